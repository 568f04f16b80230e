"""`just dev`: runs a command, and anew whenever the code under addon/ changes.

mitmproxy reloads router.py alone, and only by replacing it under traffic; a change of the package
needs a new process.
"""

import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import signalbox

CODE = Path(signalbox.__file__).resolve().parent.parent
INTERVAL = 0.5


def snapshot(folder: Path) -> dict[Path, int]:
    """When each Python file below was last changed, in nanoseconds."""
    found = {}
    for file in folder.rglob("*.py"):
        try:
            found[file] = file.stat().st_mtime_ns
        except FileNotFoundError:  # an editor is replacing it: the next look sees the new one
            continue
    return found


def run_until_changed(command: list[str], folder: Path, interval: float = INTERVAL) -> int | None:
    """Run `command`; its exit code where it ends by itself, None where it was ended for a change."""
    before = snapshot(folder)
    process = subprocess.Popen(command)  # noqa: S603  what the developer asked for
    try:
        while snapshot(folder) == before:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(interval)
        return None
    finally:
        process.terminate()
        process.wait()


def wait_for_change(folder: Path, interval: float = INTERVAL) -> None:
    before = snapshot(folder)
    while snapshot(folder) == before:
        time.sleep(interval)


def main(command: list[str]) -> int:
    """Go on until Ctrl-C. A command that fails by itself, say by a broken edit, waits for the next edit."""
    try:
        while (code := run_until_changed(command, CODE)) != 0:
            if code is not None:
                print(f"ended with {code}; waiting for a change", file=sys.stderr)  # noqa: T201  to the developer
                wait_for_change(CODE)
        return code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and so end the command, as Ctrl-C does
    sys.exit(main(sys.argv[1:]))
