"""What of a table is replicated, as SELECT: columns, a filter, masks, the newest rows; and whether that can be.

A selection is an object with any of `columns` (a list), `where` (SQL), `mask` (SQL by column) and `keep`
(`by`, `rows`, and `scan` where no index is wanted); null leaves the table out.
"""

import re
import sqlite3


ROWIDS = ("rowid", "_rowid_", "oid")
# Strings, names between three kinds of quotes, words, and single characters.
TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]|\w+|\S""")


def unquoted(token):
    """A name without its quotes."""
    if token[0] in "\"`":
        return token[1:-1].replace(token[0] * 2, token[0])
    return token[1:-1] if token[0] == "[" else token


def name_of(raw):
    return raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else raw


def low(name):
    """As SQLite compares names: only ASCII has two cases."""
    return "".join(c.lower() if c.isascii() else c for c in name)


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


class Keyed:
    """A table's columns, and what its rows are sorted by."""

    def __init__(self, db, table):
        info = [r for r in db.execute(f"PRAGMA main.table_xinfo({quoted(table)})").fetchall() if r[6] != 1]
        self.columns = [name_of(r[1]) for r in info]
        self.indexes = []
        for _, index, unique, origin, partial in db.execute(f"PRAGMA main.index_list({quoted(table)})").fetchall():
            parts = db.execute(f"PRAGMA main.index_xinfo({quoted(name_of(index))})").fetchall()
            parts = [(name_of(p[2]), name_of(p[4])) for p in parts if p[5]]
            self.indexes.append((name_of(origin), partial, parts))
        lower = [low(name) for name in self.columns]
        self.rowid = next((n for n in ("rowid", "_rowid_", "oid") if n not in lower), None)
        listed = db.execute(f"PRAGMA main.table_list({quoted(table)})").fetchall()
        if any(r[0] == b"main" and r[4] for r in listed):
            self.rowid = None
        primary = [(r[5], name_of(r[1]), r[3]) for r in info if r[5]]
        key = next((parts for origin, _, parts in self.indexes if origin == "pk"), None)
        # An INTEGER PRIMARY KEY has no index: it is the rowid itself.
        self.alias = primary[0][1] if len(primary) == 1 and key is None else None
        self.key = key or [(name, "BINARY") for _, name, _ in sorted(primary)]
        without = not self.key or (self.alias is None and not all(not_null for *_, not_null in primary))
        self.with_rowid = self.rowid is not None and without

    def column(self, name):
        return next((c for c in self.columns if low(c) == low(name)), None)

    def order(self):
        """The key, ascending, in its own collations; the rowid last, where NULL may stand in it."""
        parts = [f"_t.{quoted(name)} COLLATE {collation}" for name, collation in self.key]
        return parts + ([f"_t.{self.rowid}"] if self.with_rowid else [])

    def names_rowid(self, expression):
        """Whether one of the rowid's names stands there, quoted or not, that is no column's."""
        words = (unquoted(token) for token in TOKEN.findall(expression) if not token.startswith("'"))
        return any(low(word) in ROWIDS and self.column(word) is None for word in words)

    def strays(self, expression):
        """Whether a name between double quotes is no column's, where one may stand."""
        tokens = ["", *TOKEN.findall(expression), ""]
        for before, token, behind in zip(tokens, tokens[1:], tokens[2:]):
            if token.startswith('"') and low(before) != "collate" and behind != "(":
                name = unquoted(token)
                if self.column(name) is None and low(name) not in ROWIDS:
                    return True
        return False

    def begins_an_index(self, name):
        whole = [parts for _, partial, parts in self.indexes if not partial]
        return name == self.alias or any(parts and parts[0][0] == name for parts in whole)


def misfit(db, table, selection):
    """Why redtail must refuse this for the table as it is; None where it fits."""
    t = Keyed(db, table)
    key = [name for name, _ in t.key]
    wanted = selection.get("columns")
    for name in wanted or []:
        if t.column(name) is None:
            return f"no column {name}"
    if wanted is not None and not {low(n) for n in key} <= {low(n) for n in wanted}:
        return "a column of the key is not among the columns"
    expressions = [("where", selection["where"])] if "where" in selection else []
    for name, mask in selection.get("mask", {}).items():
        if t.column(name) is None:
            return f"no column {name} to mask"
        if t.column(name) in key:
            return f"column {name} is of the key"
        expressions.append((name, mask))
    for name, expression in expressions:
        if t.alias is None and t.key and t.names_rowid(expression):
            return f"{name}: a copy of the row has another rowid"
        if t.strays(expression):
            return f"{name}: a name that is no column's is taken for a string"
        try:
            db.execute(f"SELECT ({expression}\n) FROM main.{quoted(table)} LIMIT 0").fetchall()
        except sqlite3.Error as error:
            return f"{name}: {error}"
    keep = selection.get("keep")
    if keep is not None:
        by = t.column(keep["by"])
        if by is None:
            return f"no column {keep['by']} to keep by"
        if not keep.get("scan") and not t.begins_an_index(by):
            return f"no index begins with {by}"
    return None


def aliases(names):
    """What the columns are called in the SELECT: SQLite takes "true", quoted or not, for 1 where it can."""
    return [f"_s{at}" for at in range(len(names))]


def select(db, table, selection):
    """The columns of the selection, and the SELECT of its rows, in which they have names of their own.

    The newest rows are found inside, so that no column passes a sorter: a whole number of a virtual column
    with affinity REAL comes out of one as an integer.
    """
    t = Keyed(db, table)
    wanted = [low(n) for n in selection.get("columns") or t.columns]
    masks = {low(name): mask for name, mask in selection.get("mask", {}).items()}
    names = [n for n in t.columns if low(n) in wanted]
    values = [f"({masks[low(n)]}\n)" if low(n) in masks else f"_t.{quoted(n)}" for n in names]
    list_ = [f"{value} AS {name}" for value, name in zip(values, aliases(names))]
    where = f"({selection['where']}\n)" if "where" in selection else "1"
    source = f"main.{quoted(table)} AS _t"
    keep = selection.get("keep")
    if keep is not None:
        order = ", ".join([f"_t.{quoted(t.column(keep['by']))} DESC", *t.order()])
        if t.rowid is not None:
            mine = theirs = f"_t.{t.rowid}"
        else:
            theirs = ", ".join(f"_t.{quoted(name)}" for name, _ in t.key)
            mine = "(" + ", ".join(f"_t.{quoted(name)} COLLATE BINARY" for name, _ in t.key) + ")"
        newest = f"SELECT {theirs} FROM {source} WHERE {where} ORDER BY {order} LIMIT {keep['rows']}"
        where = f"{mine} IN ({newest})"
    return names, f"SELECT {', '.join(list_)} FROM {source} WHERE {where}"
