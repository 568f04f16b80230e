#!/usr/bin/env python3
"""Stands for Claude Code where only its start and end matter. Prints its arguments, its environment and the
file of `--settings` as JSON.

The first argument that is no option says what it does: `exit N`; `model M` makes M the default model, as
Enter in Claude Code's picker does; `count` says `ready`, names each signal that it gets, and tells their
number when a line or the end of standard input comes; `die` ends by SIGKILL.
"""

import json
import os
import signal
import stat
import sys
from pathlib import Path

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


def count():
    counts = dict.fromkeys(SIGNALS, 0)

    def receive(number, _):
        name = signal.Signals(number).name
        counts[name] += 1
        os.write(1, f"got {name}\n".encode())  # print fails where a signal interrupts another print

    for name in SIGNALS:
        if signal.getsignal(getattr(signal, name)) is not signal.SIG_IGN:
            signal.signal(getattr(signal, name), receive)
    os.write(1, b"ready\n")
    sys.stdin.readline()
    print(json.dumps({name: n for name, n in counts.items() if n}), flush=True)


def settings():
    """What the file of `--settings` holds, and its mode."""
    file = Path(sys.argv[sys.argv.index("--settings") + 1]) if "--settings" in sys.argv else None
    if file is None or not file.is_file():
        return None
    return {"mode": stat.S_IMODE(file.stat().st_mode), "values": json.loads(file.read_text())}


own = sys.argv[1:]
while own and own[0].startswith("--"):
    del own[:2]
what, *rest = own or ["print"]
if what == "count":
    count()
elif what == "die":
    os.kill(os.getpid(), signal.SIGKILL)
else:
    given = {"arguments": sys.argv[1:], "environment": dict(os.environ), "settings": settings()}
    print(json.dumps(given))
if what == "exit":
    sys.exit(int(rest[0]))
if what == "model":
    Path(os.environ["HOME"], ".claude", "settings.json").write_text(json.dumps({"model": rest[0]}))
