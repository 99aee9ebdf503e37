"""An independent reader of the source: Python's sqlite3, in a process of its own.

Reads one JSON request a line on stdin and answers one JSON object a line on stdout, so that a test
never asks redtail whether redtail is right. Values are compared by storage class and exact bytes;
text is read with CAST(x AS BLOB), because other ways of reading it may stop at a NUL.
"""

import base64
import collections
import json
import os
import re
import shutil
import sqlite3
import struct
import sys
import urllib.parse

sys.dont_write_bytecode = True
import hrana  # noqa: E402
import selection  # noqa: E402
from selection import low, name_of, quoted  # noqa: E402

DIFFERENCES = 10
OURS = ("sqlite_", "_redtail_", "libsql_")
CLASSES = ("null", "integer", "real", "text", "blob")


def connect(path, create=False):
    """To write to a server is its own business; its file is read all the same."""
    mode = "rwc" if create else "rw"
    if hrana.is_server(path):
        if create:
            return hrana.Connection(path)
        path = hrana.data_file(path)
    uri = "file:" + urllib.parse.quote(path) + "?mode=" + mode
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=30)
    db.text_factory = bytes
    return db


def tables(db):
    """Every ordinary table of the application, by name."""
    if sqlite3.sqlite_version_info >= (3, 37):
        listed = [(name_of(r[1]), name_of(r[2])) for r in db.execute("PRAGMA table_list") if r[0] == b"main"]
        names = [name for name, kind in listed if kind == "table"]
    else:
        listed = db.execute("SELECT name, sql FROM main.sqlite_master WHERE type = 'table'")
        names = [name_of(n) for n, sql in listed if not re.match(rb"(?i)\s*create\s+virtual", sql or b"")]
    return sorted(n for n in names if not n.lower().startswith(OURS))


def columns(db, table):
    """Columns in the table's order, generated ones (hidden 2 and 3) included."""
    info = db.execute(f"PRAGMA main.table_xinfo({quoted(table)})").fetchall()
    return [name_of(r[1]) for r in info if r[6] != 1]


def utf8(db):
    """The conversion of text from the database's encoding, or None where it is UTF-8 already."""
    encoding = name_of(db.execute("PRAGMA encoding").fetchone()[0])
    return None if encoding == "UTF-8" else encoding.replace("UTF-16", "utf-16-")


def text(value, encoding):
    """Text as UTF-8; what is no text in the database's own encoding as its bytes, under that encoding's name."""
    if encoding is None:
        return ("text", value)
    try:
        return ("text", value.decode(encoding).encode("utf-8"))
    except UnicodeError:
        return (encoding, value)


def exact(kind, value, encoding):
    """One value as (class, exact content), so that equality is by class and bits."""
    if kind == b"null":
        return ("null", None)
    if kind == b"integer":
        return ("integer", value)
    if kind == b"real":
        return ("real", struct.pack(">d", value))
    if kind == b"text":
        return text(value, encoding)
    return ("blob", value)


# SQLite's limit of columns in a result is 2,000; each value takes two.
SLICE = 900


def rows(db, table, names):
    """Every row of a table as a tuple of exact values. Must be called in a transaction."""
    slices = [names[at : at + SLICE] for at in range(0, len(names), SLICE)]
    if len(slices) == 1:
        yield from read_slice(db, table, names)
        return
    # The same scan of the same snapshot gives rows in the same order.
    for parts in zip(*(read_slice(db, table, part) for part in slices), strict=True):
        yield tuple(value for part in parts for value in part)


def read_slice(db, table, names):
    return read_exact(db, f"main.{quoted(table)} NOT INDEXED", names)


def read_exact(db, source, names):
    """These columns of every row of a FROM clause, exactly."""
    encoding = utf8(db)
    pairs = ", ".join(
        f"typeof({c}), CASE typeof({c}) WHEN 'text' THEN CAST({c} AS BLOB) ELSE {c} END"
        for c in (quoted(n) for n in names)
    )
    for row in db.execute(f"SELECT {pairs} FROM {source}"):
        yield tuple(exact(row[i], row[i + 1], encoding) for i in range(0, len(row), 2))


def real_text(value):
    """The shortest decimal form that reads back as the same float."""
    return repr(value)


def typed(value):
    """An exact value in the typed form of the dump."""
    kind, content = value
    if kind == "null":
        return {"type": "null"}
    if kind == "integer":
        return {"type": "integer", "value": str(content)}
    if kind == "real":
        return {"type": "real", "value": real_text(struct.unpack(">d", content)[0])}
    if kind == "text":
        try:
            return {"type": "text", "value": content.decode("utf-8")}
        except UnicodeDecodeError:
            pass
    return {"type": kind, "base64": base64.b64encode(content).decode("ascii")}


def digits(text):
    """The significant digits of a decimal number."""
    return re.split("[eE]", text.lstrip("-"))[0].replace(".", "").strip("0")


def parsed(cell, encoding=None):
    """The exact value of a typed cell. Whatever is not in the promised form is a ValueError.

    In a database of another encoding than UTF-8, text in base64 is in the database's own bytes.
    """
    kind = cell.get("type")
    if kind not in CLASSES:
        raise ValueError(f"no such type: {cell!r:.200}")
    expected = {"type"}
    if kind != "null":
        expected.add("base64" if kind == "blob" or (kind == "text" and "base64" in cell) else "value")
    if set(cell) != expected:
        raise ValueError(f"fields {sorted(cell)} of a {kind}")
    if kind == "null":
        return ("null", None)
    content = cell["base64"] if "base64" in cell else cell["value"]
    if not isinstance(content, str):
        raise ValueError(f"a {kind} must be written as a string, not {content!r:.200}")
    if kind == "integer":
        if str(int(content)) != content:
            raise ValueError(f"integer written as {content:.200}")
        return ("integer", int(content))
    if kind == "real":
        number = float(content)
        if re.fullmatch(r"-?\d+", content) or len(digits(content)) > len(digits(real_text(number))):
            raise ValueError(f"real written as {content:.200}, shortest is {real_text(number)}")
        return ("real", struct.pack(">d", number))
    if "base64" not in cell:
        return ("text", content.encode("utf-8"))
    raw = base64.b64decode(content, validate=True)
    if base64.b64encode(raw).decode("ascii") != content:
        raise ValueError("base64 is not in its padded standard form")
    if kind == "text" and encoding is not None:
        return (encoding, raw)
    if kind == "text" and is_utf8(raw):
        raise ValueError("text that is UTF-8 is written as base64")
    return (kind, raw)


def is_utf8(raw):
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def script(request):
    """Runs statements in order, each as given. {"sql": …, "fails": true} must be refused by the database."""
    db = connect(request["db"], create=True)
    try:
        for statement in request["sql"]:
            expected = isinstance(statement, dict)
            sql = statement["sql"] if expected else statement
            try:
                db.execute(sql).fetchall()
            except hrana.Refused as error:
                return {"unsupported": f"{sql:.100}: {error}"}
            except sqlite3.Error as error:
                if not expected:
                    raise RuntimeError(f"{sql:.200}: {error}") from error
            else:
                if expected:
                    raise RuntimeError(f"{sql:.200}: expected to fail")
    finally:
        db.close()
    return {}


def query(request):
    """The rows of one SELECT, as typed values."""
    db = connect(request["db"])
    try:
        cursor = db.execute(request["sql"])
        kinds = {int: b"integer", float: b"real", bytes: b"text", type(None): b"null"}
        return {"rows": [[typed(exact(kinds[type(v)], v, None)) for v in row] for row in cursor]}
    finally:
        db.close()


def schema(request):
    """Every row of sqlite_schema, in its order, and the application's user_version."""
    db = connect(request["db"])
    try:
        found = db.execute("SELECT type, name, tbl_name, sql FROM main.sqlite_master ORDER BY rowid").fetchall()
        version = db.execute("PRAGMA user_version").fetchone()[0]
        return {"schema": [[name_of(v) for v in row] for row in found], "user_version": version}
    finally:
        db.close()


def dump(request):
    """Writes every row of every ordinary table, in the typed form and one read transaction."""
    db = connect(request["db"])
    counts = {}
    try:
        db.execute("BEGIN")
        with open(request["out"], "w", encoding="utf-8") as out:
            for table in tables(db):
                names = columns(db, table)
                counts[table] = 0
                for row in rows(db, table, names):
                    line = {"table": table, "row": {n: typed(v) for n, v in zip(names, row)}}
                    out.write(json.dumps(line, ensure_ascii=False) + "\n")
                    counts[table] += 1
        db.execute("COMMIT")
    finally:
        db.close()
    return {"tables": counts, "rows": sum(counts.values())}


class Findings:
    """The first few differences, described; and how many there were."""

    def __init__(self):
        self.count = 0
        self.described = []

    def add(self, text):
        self.count += 1
        if len(self.described) < DIFFERENCES:
            self.described.append(text[:600])


def read_dump(path, orders, findings, encoding):
    """The dump as a multiset of rows for each table. Column order and key uniqueness are checked here."""
    found = {table: collections.Counter() for table in orders}
    keys = set()
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line.decode("utf-8"))
                table, row = record["table"], record["row"]
                if table not in orders:
                    raise ValueError(f"no such table in the source: {table}")
                if list(row) != orders[table]:
                    raise ValueError(f"columns of {table}: {list(row)}, in the source {orders[table]}")
                if not isinstance(record["key"], list) or not record["key"]:
                    raise ValueError(f"key of {table}: {record['key']!r:.200}")
                key = (table, json.dumps(record["key"], sort_keys=True))
                if key in keys:
                    raise ValueError(f"the key occurs twice: {key}")
                keys.add(key)
                found[table][tuple(parsed(cell, encoding) for cell in row.values())] += 1
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                findings.add(f"line {number}: {type(error).__name__} {error}: {line[:200]!r}")
    return found


def compare(request):
    """Compares a dump with the source, value by value, in one read transaction of the source.

    `selects` has, for tables of which not everything is replicated, the columns and the SELECT that says
    what is; null for tables that are left out.
    """
    db = connect(request["db"])
    findings, total = Findings(), 0
    selects = request.get("selects", {})
    try:
        db.execute("BEGIN")
        orders = {table: columns(db, table) for table in tables(db)}
        for table, select in selects.items():
            if select is None:
                del orders[table]
            else:
                orders[table] = select["columns"]
        found = read_dump(request["dump"], orders, findings, utf8(db))
        for table, names in orders.items():
            left = found[table]
            select = selects.get(table)
            for row in read_exact(db, f"({select['sql']})", names) if select else rows(db, table, names):
                total += 1
                if left[row] > 0:
                    left[row] -= 1
                else:
                    findings.add(f"{table}: in the source only: {json.dumps([typed(v) for v in row])}")
            for row in left.elements():
                findings.add(f"{table}: in the replica only: {json.dumps([typed(v) for v in row])}")
        db.execute("COMMIT")
    finally:
        db.close()
    answer = {"equal": findings.count == 0, "rows": total, "tables": len(orders)}
    return answer | {"count": findings.count, "differences": findings.described}


class Schema:
    """Columns and SELECT of every ordinary table."""

    def __init__(self, db):
        self.encoding = utf8(db)
        self.orders = {table: columns(db, table) for table in tables(db)}
        self.selects = {}

    def selected(self, db, table, wanted):
        """The columns and rows of a selection, or why there must be none."""
        why = selection.misfit(db, table, wanted)
        if why is not None:
            return why, [], []
        names, select = selection.select(db, table, wanted)
        if self.encoding is not None:
            return None, names, list(read_exact(db, f"({select})", selection.aliases(names)))
        return None, names, self.read(db, select)

    def rows(self, db, table):
        """Every row of a table as a tuple of exact values. Must be called in a transaction."""
        names = self.orders[table]
        if self.encoding is not None or len(names) > SLICE:
            return rows(db, table, names)
        select = self.selects.get(table)
        if select is None:
            select = f"SELECT {', '.join(map(quoted, names))} FROM main.{quoted(table)} NOT INDEXED"
            self.selects[table] = select
        return self.read(db, select)

    def read(self, db, select):
        """Text comes as a bytearray here, with all its bytes, and is so told from a blob."""
        db.text_factory = bytearray
        try:
            found = db.execute(select).fetchall()
        finally:
            db.text_factory = bytes
        return [tuple([EXACT[type(value)](value) for value in row]) for row in found]


EXACT = {
    type(None): lambda value: ("null", None),
    int: lambda value: ("integer", value),
    float: lambda value: ("real", struct.pack(">d", value)),
    bytearray: lambda value: ("text", bytes(value)),
    bytes: lambda value: ("blob", value),
}


class Application:
    """The application of a case: one connection that stays open while its script runs."""

    # A statement that runs longer than so many times a hundred thousand of SQLite's instructions is given up.
    LONGEST = 30

    def __init__(self):
        self.db = None
        # What the comparison reads: the same connection, or another where the application may do anything
        # to its own; a server's file.
        self.reader = None
        self.apart = False
        self.path = None
        self.ticks = 0
        # The schema's rows and what followed from them at the last comparison.
        self.seen = self.schema = None
        # What `take` took, and the schema version before it; until the next comparison.
        self.taken = []
        self.version = None

    def open(self, path):
        self.close()
        self.db, self.path, self.seen = connect(path, create=True), path, None
        self.reader = None
        if hrana.is_server(path):
            return
        if not self.apart:
            self.reader = self.db
        # Nothing here is about the application's own power loss.
        self.db.execute("PRAGMA synchronous = OFF")
        self.db.set_progress_handler(self.tick, 100_000)
        self.db.execute("PRAGMA user_version").fetchall()

    def close(self):
        if self.db is not None:
            self.db.close()
            if self.reader is not None and self.reader is not self.db:
                self.reader.close()
            self.db = self.reader = None

    def tick(self):
        self.ticks += 1
        return self.ticks > self.LONGEST

    def run(self, sql):
        """What the database says if it refuses the statement."""
        self.ticks = 0
        try:
            self.db.execute(sql).fetchall()
        except (sqlite3.Error, sqlite3.Warning, UnicodeError, OverflowError) as error:
            return f"{error}" or type(error).__name__
        return None

    def read(self):
        if self.reader is None:
            self.reader = connect(self.path)
        return self.reader

    def known(self, db):
        """What follows from the schema, asked anew whenever a row of it has changed."""
        seen = db.execute("SELECT rowid, * FROM main.sqlite_master").fetchall()
        if seen != self.seen:
            self.seen, self.schema = seen, Schema(db)
        return self.schema

    def rows(self, sql, *bind):
        self.ticks = 0
        return self.db.execute(sql, bind).fetchall()


APPLICATION = Application()


def begin(request):
    """Starts a case on a new database, or on a server that is emptied for it."""
    APPLICATION.apart = request.get("apart", False)
    if APPLICATION.apart:
        # Where scripts make files of their own.
        os.chdir(os.path.dirname(request["db"]))
    APPLICATION.open(request["db"])
    if hrana.is_server(request["db"]):
        return {"clean": APPLICATION.db.clean()}
    return {"clean": True}


def leave(request):
    """Lets go of the database, whose files are about to be copied or replaced."""
    APPLICATION.close()
    return {}


def reopen(request):
    """Goes on with a database as it is."""
    APPLICATION.open(request["db"])
    return {}


def play(request):
    """Runs statements one after another; answers for each what refused it."""
    refused = [APPLICATION.run(sql) for sql in request["sql"]]
    return {"refused": refused, "open": APPLICATION.db.in_transaction}


def take(request):
    """Drops the capture triggers of a table by hand: one kind of them, or all."""
    APPLICATION.version = APPLICATION.rows("PRAGMA schema_version")[0][0]
    find = "SELECT name, sql FROM main.sqlite_master WHERE type = 'trigger' AND name GLOB ? AND lower(tbl_name) = lower(?)"
    pattern = "_redtail_*_" + request["which"] if request["which"] else "_redtail_*"
    found = APPLICATION.rows(find + " ORDER BY rowid", pattern, request["table"])
    APPLICATION.taken = [name_of(sql) for _, sql in found]
    statements = ["DROP TRIGGER " + quoted(name_of(name)) for name, _ in found]
    return {"sql": statements, "refused": [APPLICATION.run(sql) for sql in statements]}


def put_back(request):
    """Makes again, word for word, what was dropped last."""
    statements, APPLICATION.taken = APPLICATION.taken, []
    return {"sql": statements, "refused": [APPLICATION.run(sql) for sql in statements]}


def set_back(request):
    """Sets the schema version back to what it was before `take`, as a careless tool may."""
    statements, APPLICATION.version = [f"PRAGMA schema_version = {APPLICATION.version}"], None
    if statements[0].endswith("None"):
        return {"sql": [], "refused": []}
    return {"sql": statements, "refused": [APPLICATION.run(sql) for sql in statements]}


def backup(request):
    """Copies the database, through SQLite, to where `restore` finds it."""
    with sqlite3.connect(request["to"]) as to:
        APPLICATION.db.backup(to)
    to.close()
    return {}


def restore(request):
    """Puts a copy in the place of the database, as an administrator does while nobody has it open."""
    if os.path.exists(request["from"]):
        APPLICATION.close()
        for end in ("-wal", "-shm", "-journal"):
            if os.path.exists(APPLICATION.path + end):
                os.remove(APPLICATION.path + end)
        shutil.copyfile(request["from"], APPLICATION.path)
        APPLICATION.open(APPLICATION.path)
    return {}


def cell(value):
    """An exact value from the short form of `same`: null, a number, or a letter before hexadecimal digits."""
    if value is None:
        return ("null", None)
    if isinstance(value, int):
        return ("integer", value)
    kinds = {"r": "real", "t": "text", "b": "blob", "l": "utf-16-le", "g": "utf-16-be"}
    return (kinds[value[0]], bytes.fromhex(value[1:]))


def may_skip(db, table):
    """Whether redtail may leave out an ordinary table: its rowid is hidden, or an index cannot be searched.

    The latter is one whose first term is made of an automatic key, which is not known before an insert.
    """
    info = db.execute(f"PRAGMA main.table_xinfo({quoted(table)})").fetchall()
    if {"rowid", "_rowid_", "oid"} <= {name_of(r[1]).lower() for r in info}:
        return True
    indexes = db.execute(f"PRAGMA main.index_list({quoted(table)})").fetchall()
    keys = [r for r in info if r[5]]
    automatic = len(keys) == 1 and keys[0][2].upper() == b"INTEGER" and all(index[3] != b"pk" for index in indexes)
    made = {r[0] for r in info if r[6]} | {-2}
    for index in indexes:
        parts = db.execute(f"PRAGMA main.index_xinfo({quoted(name_of(index[1]))})").fetchall()
        if automatic and index[2] and parts[0][1] in made:
            return True
    return False


def same(request):
    """Compares the replica's tables, which come with the request, with the source as the application sees it."""
    db, findings, total = APPLICATION.read(), Findings(), 0
    APPLICATION.ticks, APPLICATION.version = 0, None
    replica = {t["name"]: t for t in request["tables"]}
    skipped = dict(request["skipped"])
    selections = {low(name): wanted for name, wanted in request["selections"].items()}
    db.execute("BEGIN")
    try:
        known = APPLICATION.known(db)
        for table in sorted(set(replica) - set(known.orders)):
            findings.add(f"{table}: a table in the replica only")
        for table, names in known.orders.items():
            wanted = selections.get(low(table), {})
            if wanted is None:
                if table in replica:
                    findings.add(f"{table}: left out, and in the replica")
                continue
            if table in skipped:
                if table in replica:
                    findings.add(f"{table}: skipped, and in the replica")
                if not may_skip(db, table):
                    findings.add(f"{table}: an ordinary table, and skipped: {skipped[table]}")
                continue
            if table not in replica:
                findings.add(f"{table}: a table in the source only")
                continue
            found = replica[table]
            ours = None
            if wanted:
                why, names, ours = known.selected(db, table, wanted)
                if why is not None:
                    findings.add(f"{table}: what is wanted of it does not fit, and was not refused: {why}")
                    continue
            if names != found["columns"]:
                findings.add(f"{table}: columns {found['columns']}, in the source {names}")
                continue
            theirs = [tuple(map(cell, row)) for row in found["rows"]]
            ours = list(known.rows(db, table)) if ours is None else ours
            total += len(ours)
            if theirs == ours:
                continue
            left = collections.Counter(theirs)
            for row in ours:
                if left[row] > 0:
                    left[row] -= 1
                else:
                    findings.add(f"{table}: in the source only: {json.dumps([typed(v) for v in row])}")
            for row in left.elements():
                findings.add(f"{table}: in the replica only: {json.dumps([typed(v) for v in row])}")
    finally:
        db.execute("COMMIT")
    return {"rows": total, "count": findings.count, "differences": findings.described}


def misfits(request):
    """Which selections redtail must refuse, and why."""
    db = APPLICATION.read()
    found = {}
    db.execute("BEGIN")
    try:
        names = {low(name): name for name in tables(db)}
        for table, wanted in request["selections"].items():
            if wanted and low(table) in names:
                why = selection.misfit(db, names[low(table)], wanted)
                if why is not None:
                    found[table] = why
    finally:
        db.execute("COMMIT")
    return {"misfits": found}


def load(request):
    """Loads a database file into a server, statement by statement."""
    source = sqlite3.connect(request["from"])
    statements = list(source.iterdump())
    source.close()
    db = connect(request["db"], create=True)
    try:
        for at in range(0, len(statements), 2000):
            db.all(statements[at : at + 2000])
    finally:
        db.close()
    return {"statements": len(statements)}


def token(request):
    """What servers are shown from here on."""
    hrana.TOKEN = request["token"]
    return {}


OPERATIONS = {
    "script": script,
    "query": query,
    "schema": schema,
    "dump": dump,
    "compare": compare,
    "begin": begin,
    "load": load,
    "token": token,
    "leave": leave,
    "open": reopen,
    "play": play,
    "take": take,
    "put_back": put_back,
    "set_back": set_back,
    "backup": backup,
    "restore": restore,
    "same": same,
    "misfits": misfits,
}


def main():
    # Not print: the pipes are UTF-8 whatever the locale says.
    def answer(value):
        sys.stdout.buffer.write(json.dumps(value).encode("ascii") + b"\n")
        sys.stdout.buffer.flush()

    answer({"ready": True, "sqlite": sqlite3.sqlite_version})
    for line in sys.stdin.buffer:
        try:
            request = json.loads(line.decode("utf-8"))
            answer(OPERATIONS[request["op"]](request))
        except Exception as error:  # the answer is how a test hears of it
            answer({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
