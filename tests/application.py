"""An application of the source: Python's sqlite3, which tells all that a program can see of its own writes.

Knows every request of the oracle and a few more, and has a collation and a function of its own, as programs
do: APP and app_twice.
"""

import _sqlite3
import collections
import ctypes
import sqlite3
import sys

sys.dont_write_bytecode = True
import oracle  # noqa: E402

# SQLITE_DBCONFIG_ENABLE_TRIGGER
ENABLE_TRIGGER = 1003

open_as_oracle = oracle.connect


def connect(path, create=False):
    # A file is made when it is first named; what a server has is read from its file.
    db = open_as_oracle(path, create or not oracle.hrana.is_server(path))
    if isinstance(db, oracle.hrana.Connection):
        return db
    # Nothing here is about power losses.
    db.execute("PRAGMA synchronous = OFF")
    db.create_collation("APP", lambda a, b: (a.lower() > b.lower()) - (a.lower() < b.lower()))
    db.create_function("app_twice", 1, lambda x: None if x is None else x * 2, deterministic=True)
    return db


def seen(value):
    """A value that was handed to the program, with its class."""
    if isinstance(value, bytes):
        return value.hex()
    return repr(value)


def step(db, sql):
    """What one statement shows: its rows, how many rows it changed, the last rowid, or its error."""
    answer = {"rows": []}
    try:
        for row in db.execute(sql):
            answer["rows"].append([seen(value) for value in row])
    except sqlite3.Error as error:
        answer["error"] = f"{type(error).__name__}: {error}"
        # Since Python 3.11.
        answer["code"] = getattr(error, "sqlite_errorcode", None)
    answer["changes"], answer["last"] = db.execute("SELECT changes(), last_insert_rowid()").fetchone()
    answer["open"] = db.in_transaction
    return answer


def play(request):
    """Runs statements in order; the answer to each, and the contents of all tables at the end."""
    db = connect(request["db"])
    try:
        if db.execute("PRAGMA journal_mode").fetchone()[0] == b"delete":
            # Quicker, and nothing here is about crashes.
            db.execute("PRAGMA journal_mode = MEMORY")
        answers = [step(db, sql) for sql in request["sql"]]
        if db.in_transaction:
            db.execute("ROLLBACK")
        return {"answers": answers, "contents": contents(db)}
    finally:
        db.close()


def contents(db):
    """Every row of every table of the application, with its rowid where it can be had, and the schema."""
    found = {}
    for table in oracle.tables(db):
        names = oracle.columns(db, table)
        rows = collections.Counter(map(repr, oracle.rows(db, table, names)))
        try:
            rowids = [row[0] for row in db.execute(f"SELECT rowid FROM {oracle.quoted(table)} ORDER BY 1")]
        except sqlite3.Error:
            rowids = None
        found[table] = [names, sorted(rows.items()), repr(rowids)]
    schema = db.execute("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE '\\_redtail\\_%' ESCAPE '\\'")
    found["sqlite_schema"] = sorted(repr(row) for row in schema)
    return found


def cost(request):
    """How many instructions of SQLite's machine each statement takes. The statements are rolled back."""
    db = connect(request["db"])
    try:
        counts = []
        for sql in request["sql"]:
            db.execute("BEGIN")
            taken = [0]

            def count(taken=taken):
                taken[0] += 1
                return 0

            db.set_progress_handler(count, 1)
            db.execute(sql).fetchall()
            db.set_progress_handler(None, 1)
            counts.append(taken[0])
            db.execute("ROLLBACK")
        return {"counts": counts}
    finally:
        db.close()


def blob(request):
    """Writes into a blob in place, which fires no trigger. Since Python 3.11."""
    db = connect(request["db"])
    try:
        if not hasattr(db, "blobopen"):
            return {"written": False}
        with db.blobopen(request["table"], request["column"], request["rowid"]) as blob:
            blob.write(bytes.fromhex(request["hex"]))
        return {"written": True}
    finally:
        db.close()


def untriggered(request):
    """Runs statements on a connection that fires no triggers. Python's own switch for that came with 3.12."""
    lib = ctypes.CDLL(_sqlite3.__file__)
    for name in ("sqlite3_open", "sqlite3_db_config", "sqlite3_exec", "sqlite3_close"):
        if not hasattr(lib, name):
            return {"written": False}
    db = ctypes.c_void_p()
    if lib.sqlite3_open(request["db"].encode(), ctypes.byref(db)) != 0:
        raise RuntimeError("not opened")
    try:
        switched = ctypes.c_int(1)
        lib.sqlite3_db_config(db, ENABLE_TRIGGER, ctypes.c_int(0), ctypes.byref(switched))
        if switched.value != 0:
            raise RuntimeError("triggers stay on")
        for sql in request["sql"]:
            error = ctypes.c_char_p()
            if lib.sqlite3_exec(db, sql.encode(), None, None, ctypes.byref(error)) != 0:
                raise RuntimeError(f"{sql:.200}: {error.value}")
    finally:
        lib.sqlite3_close(db)
    return {"written": True}


def overwrite(request):
    """Copies another database into this one, page by page, as SQLite's own backup does: the file stays."""
    db, other = connect(request["db"]), connect(request["from"])
    try:
        other.backup(db)
    finally:
        db.close()
        other.close()
    return {}


oracle.connect = connect
oracle.OPERATIONS |= {"play": play, "cost": cost, "blob": blob, "overwrite": overwrite, "untriggered": untriggered}

if __name__ == "__main__":
    oracle.main()
