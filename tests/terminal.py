"""Runs a program in a terminal of its own: `terminal.py SECONDS PATTERN… -- PROGRAM ARG…`.

Reads until every pattern was seen (or the program ended), then interrupts it, and prints one line of JSON: what was on
the terminal, the patterns that were not seen, and the exit code.
"""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

until = time.monotonic() + float(sys.argv[1])
split = sys.argv.index("--")
patterns, program = sys.argv[2:split], sys.argv[split + 1 :]
pid, fd = pty.fork()
if pid == 0:
    os.environ["TERM"] = "xterm"
    os.execvp(program[0], program)
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
seen, interrupted = b"", False
while time.monotonic() < until:
    if select.select([fd], [], [], 0.1)[0]:
        try:
            seen += os.read(fd, 65536)
        except OSError:
            break
    if not interrupted and all(p.encode() in seen for p in patterns):
        interrupted = True
        os.kill(pid, signal.SIGINT)
else:
    os.kill(pid, signal.SIGKILL)
_, status = os.waitpid(pid, 0)
text = seen.decode(errors="replace")
missing = [p for p in patterns if p not in text]
print(json.dumps({"text": text, "missing": missing, "code": os.waitstatus_to_exitcode(status)}))
