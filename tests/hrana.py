"""An application's connection to a server, over Hrana: enough of sqlite3's interface to play scripts with.

Written for the tests and shared with nothing: what redtail says to a server is judged by another client.
"""

import base64
import http.client
import json
import sqlite3
import urllib.parse


def is_server(db):
    return db.startswith("http://")


def data_file(db):
    """The server's own file of the database: its address is followed by `#` and this path."""
    return db.partition("#")[2]


# What servers are shown; None where they ask for nothing.
TOKEN = None


class Refused(sqlite3.OperationalError):
    """The server, not the database behind it, will not have the statement."""


# What sqld refuses before SQLite sees it, or answers that JSON cannot carry.
NOT_ALLOWED = (
    "SQL_PARSE_ERROR",
    "SQL_NO_STATEMENT",
    "SQL_MANY_STATEMENTS",
    "unsupported statement",
    "Unsupported statement",
    "not authorized",
    "is not allowed",
    "utf-8",
)


class Connection:
    def __init__(self, db):
        address = urllib.parse.urlparse(db.partition("#")[0])
        self.http = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
        self.baton = None
        self.in_transaction = False

    def send(self, requests):
        body = json.dumps({"baton": self.baton, "requests": requests})
        headers = {"content-type": "application/json"}
        if TOKEN is not None:
            headers["authorization"] = "Bearer " + TOKEN
        for last in (False, True):
            try:
                self.http.request("POST", "/v3/pipeline", body, headers)
                response = self.http.getresponse()
                answer = response.read()
                break
            except (http.client.HTTPException, OSError):
                # The connection of an earlier request has gone, perhaps with its server.
                self.http.close()
                if last or self.baton is not None:
                    self.baton, self.in_transaction = None, False
                    raise sqlite3.OperationalError("the server is gone") from None
        if response.status != 200:
            self.baton, self.in_transaction = None, False
            text = answer.decode("utf-8", "replace")
            raise (Refused if any(n in text for n in NOT_ALLOWED) else sqlite3.OperationalError)(text[:300])
        answer = json.loads(answer)
        self.baton = answer["baton"]
        return answer["results"]

    def execute(self, sql, bind=()):
        """Runs one statement; outside of a transaction its stream is closed with it."""
        stmt = {"sql": sql, "args": [argument(v) for v in bind], "want_rows": True}
        requests = [{"type": "execute", "stmt": stmt}, {"type": "get_autocommit"}]
        opens = sql.lstrip().upper().startswith(("BEGIN", "SAVEPOINT"))
        if self.baton is None and not opens:
            requests.append({"type": "close"})
        results = self.send(requests)
        if results[1]["type"] == "ok":
            self.in_transaction = not results[1]["response"]["is_autocommit"]
        if self.baton is not None and not self.in_transaction:
            self.send([{"type": "close"}])
            self.baton = None
        if results[0]["type"] == "error":
            error = results[0]["error"]
            text = f"{error['message']} ({error.get('code')})"
            raise (Refused if any(n in text for n in NOT_ALLOWED) else sqlite3.OperationalError)(text)
        return Rows([tuple(map(value, row)) for row in results[0]["response"]["result"]["rows"]])

    def all(self, statements):
        """Runs statements whose results nobody wants, in one request; BEGIN and COMMIT are left to each."""
        wanted = [s for s in statements if s.rstrip(";") not in ("BEGIN TRANSACTION", "COMMIT")]
        steps = [{"stmt": {"sql": s, "want_rows": False}} for s in ["PRAGMA foreign_keys = OFF", "BEGIN", *wanted, "COMMIT"]]
        results = self.send([{"type": "batch", "batch": {"steps": steps}}, {"type": "close"}])
        self.baton = None
        errors = results[0].get("error") or results[0]["response"]["result"]["step_errors"]
        if isinstance(errors, dict) or any(errors):
            raise sqlite3.OperationalError(str([e for e in errors if e][:1]))

    def close(self):
        if self.baton is not None:
            try:
                self.send([{"type": "close"}])
            except sqlite3.Error:
                pass
        self.http.close()

    def clean(self):
        """Drops everything there is; says whether that worked."""
        try:
            self.close()
            self.baton, self.in_transaction = None, False
            self.execute("PRAGMA foreign_keys = OFF")
            find = "SELECT type, CAST(name AS BLOB) FROM sqlite_schema WHERE type IN ('trigger','view','table') AND name NOT GLOB 'sqlite_*' AND name NOT GLOB 'libsql_*'"
            for _ in range(4):
                found = self.execute(find).fetchall()
                if not found:
                    return True
                for kind, name in found:
                    try:
                        name = name.decode("utf-8").replace('"', '""')
                        self.execute(f'DROP {kind.decode()} IF EXISTS "{name}"')
                    except (sqlite3.Error, UnicodeError):
                        pass
        except sqlite3.Error:
            pass
        return False


class Rows:
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)

    def fetchall(self):
        return self.rows

    def fetchone(self):
        return self.rows[0] if self.rows else None


def argument(v):
    if v is None:
        return {"type": "null"}
    if isinstance(v, int):
        return {"type": "integer", "value": str(v)}
    if isinstance(v, float):
        return {"type": "float", "value": v}
    if isinstance(v, str):
        return {"type": "text", "value": v}
    return {"type": "blob", "base64": base64.b64encode(v).decode("ascii")}


def value(cell):
    kind = cell["type"]
    if kind == "null":
        return None
    if kind == "integer":
        return int(cell["value"])
    if kind == "float":
        # JSON writes a whole one like an integer, and an infinity as null.
        return None if cell["value"] is None else float(cell["value"])
    if kind == "text":
        return cell["value"].encode("utf-8")
    raw = cell["base64"]
    return base64.b64decode(raw + "=" * (-len(raw) % 4))
