"""Runs a program as if it had been started by the shell itself: terminal, signals and exit code are its own.

The program gets a process group of its own, which is the foreground of the terminal where there is one. So
Ctrl-C reaches it and not us, and a signal sent to us or to our group reaches only us: passed on, it arrives
once either way. What stops the program (Ctrl-Z) stops us too, and `fg` brings both back.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

KILLED = 128
"""Added to the number of the signal that ended the program, as shells do."""

if sys.platform != "win32":
    import termios

    PASSED_ON = (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
    )


def run(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Its exit code. Raises OSError if it cannot be started."""
    if sys.platform == "win32":
        return _run_on_windows(command, environ)
    with _passing_on() as receiver, _Terminal() as terminal:
        program = subprocess.Popen(command, env=environ, process_group=0)  # noqa: S603  what the user runs
        if terminal.is_ours_alone:
            terminal.give_to(program.pid)
        receiver.group = program.pid
        while True:
            _, status = os.waitpid(program.pid, os.WUNTRACED)
            if os.WIFSTOPPED(status):
                terminal.stopped(program.pid, os.WSTOPSIG(status))
                continue
            code = os.waitstatus_to_exitcode(status)
            program.returncode = code
            if code < 0:
                terminal.restore()
            return code if code >= 0 else KILLED - code


def _run_on_windows(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Ctrl-C reaches all programs of a console: here it is left to the program."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return subprocess.call(command, env=environ)  # noqa: S603  what the user runs
    finally:
        signal.signal(signal.SIGINT, before)


if sys.platform != "win32":

    class _Receiver:
        """Passes signals on to a process group, those that came before it was there too."""

        def __init__(self) -> None:
            self._group = 0
            self._early: list[int] = []

        @property
        def group(self) -> int:
            return self._group

        @group.setter
        def group(self, group: int) -> None:
            self._group = group
            for number in self._early:
                self._send(number)

        def receive(self, number: int, _: FrameType | None) -> None:
            if self._group:
                self._send(number)
            else:
                self._early.append(number)

        def _send(self, number: int) -> None:
            with suppress(ProcessLookupError):
                os.killpg(self._group, number)

    @contextmanager
    def _passing_on() -> Iterator[_Receiver]:
        """Signals that are ignored here, as after `nohup`, stay ignored in the program too."""
        receiver = _Receiver()
        passed = [number for number in PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, receiver.receive) for number in passed}
        try:
            yield receiver
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    class _Terminal:
        """The terminal that we were started in, if there is one and we are its foreground."""

        def __init__(self) -> None:
            self._file: int | None = None
            self.is_ours_alone = False
            """False in a pipeline (`signalbox claude -p ... | less`), whose other programs need it too."""
            with suppress(OSError):
                if os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp():
                    self._file = 0
                    self._modes = termios.tcgetattr(0)
                    self.is_ours_alone = os.isatty(1)

        def __enter__(self) -> "_Terminal":
            return self

        def __exit__(self, *_: object) -> None:
            self._set_foreground(os.getpgrp())

        def give_to(self, group: int) -> None:
            """Makes the group the foreground, and wakes it if it asked for the terminal too early."""
            if self._file is not None:
                self._set_foreground(group)
                with suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGCONT)

        def stopped(self, group: int, number: int) -> None:
            """What to do when the signal has stopped the group.

            It gets the terminal if that is why it was stopped and we have it. Else this job is stopped like
            it; then this returns when the shell continues the job.
            """
            if self._file is None:
                return
            wants_terminal = number in (signal.SIGTTIN, signal.SIGTTOU)
            if not (wants_terminal and self._is_foreground()):
                self._set_foreground(os.getpgrp())
                os.killpg(0, signal.SIGTSTP)
            if self._is_foreground():
                self.give_to(group)
            else:
                with suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGCONT)

        def _is_foreground(self) -> bool:
            with suppress(OSError):
                return self._file is not None and os.tcgetpgrp(self._file) == os.getpgrp()
            return False

        def restore(self) -> None:
            """As it was, after a program that could not do that itself."""
            if self._file is not None:
                self._set_foreground(os.getpgrp())
                with suppress(OSError, termios.error):
                    termios.tcsetattr(self._file, termios.TCSADRAIN, self._modes)

        def _set_foreground(self, group: int) -> None:
            """A process in the background that does this is stopped (SIGTTOU), unless it blocks that."""
            if self._file is None:
                return
            before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
            try:
                with suppress(OSError):
                    os.tcsetpgrp(self._file, group)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
