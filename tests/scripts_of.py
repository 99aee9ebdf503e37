"""Takes the SQL out of other projects' test suites, for REDTAIL_SCRIPTS.

    python3 tests/scripts_of.py FOLDER OUT

Reads every `.test` file below FOLDER (Tcl, as SQLite's own suite is written) and every `.sql` file, and writes
one script for each: statements as they stand, and `-- sync` where the suite looks at the database. Blocks that
Tcl would have to substitute are left out.
"""

import os
import re
import sqlite3
import sys

# What stands before a block of SQL in braces.
BLOCK = re.compile(r"\b(?:execsql|catchsql|do_execsql_test|do_catchsql_test|db\s+eval)\b[^{}\n]*\{")


def block(text, start):
    """The text up to the brace that closes the block, and where that is."""
    depth = 1
    for at in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[start:at], at
    return None, len(text)


def statements(sql):
    """Statement by statement; what is not complete at the end is one too."""
    found, rest = [], ""
    for part in re.split(r"(?<=;)", sql):
        rest += part
        if sqlite3.complete_statement(rest):
            found.append(rest.strip())
            rest = ""
    if rest.strip():
        found.append(rest.strip())
    return [s for s in found if s.strip("; \t\n")]


def tcl(text):
    """Every block of SQL in a file of Tcl, in its order."""
    at = 0
    while match := BLOCK.search(text, at):
        sql, at = block(text, match.end())
        if sql is not None and not re.search(r"\$\{?[a-zA-Z]|\[[a-z]|\\$", sql, re.M):
            yield statements(sql)


def main(folder, out):
    os.makedirs(out, exist_ok=True)
    for path, _, names in os.walk(folder):
        for name in sorted(names):
            if not name.endswith((".test", ".sql")):
                continue
            with open(os.path.join(path, name), encoding="utf-8", errors="replace") as file:
                text = file.read()
            blocks = list(tcl(text)) if name.endswith(".test") else [[s] for s in statements(text)]
            # One statement a line is not possible: each ends in a line of its own.
            lines = []
            for sql in blocks:
                lines += [line for statement in sql for line in (statement, "--;")] + ["-- sync"]
            with open(os.path.join(out, name + ".sql"), "w", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
