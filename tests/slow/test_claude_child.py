"""A program run as if the shell had started it: signals, terminal and exit code are its own."""

import json
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.support.router_process import ROOT, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")]

STUB = str(ROOT / "tests/support/scripts/claude_stub.py")
RUN = "import os, sys; from signalbox.claude import child; sys.exit(child.run(sys.argv[1:], os.environ))"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", RUN, sys.executable, STUB, *arguments]


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """The leader of a group and session of its own, once it has said `ready`."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def counts(process: subprocess.Popen[str]) -> dict[str, int]:
    out, _ = process.communicate("\n", timeout=20)
    assert process.returncode == 0
    found: dict[str, int] = json.loads(out)
    return found


@pytest.mark.parametrize(("what", "code"), [(("exit", "0"), 0), (("exit", "7"), 7), (("die",), 137)])
def test_exit_code_is_the_programs(what, code):
    done = subprocess.run(command(*what), stdout=subprocess.DEVNULL, timeout=20, check=False)
    assert done.returncode == code


@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_signal_to_the_process_or_to_its_group_arrives_once(send):
    with started(command("count")) as process:
        assert process.stdout is not None
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGINT"):  # a second one would come before the next
            send(process.pid, getattr(signal, name))
            assert process.stdout.readline() == f"got {name}\n"
        assert counts(process) == {"SIGINT": 2, "SIGTERM": 1, "SIGHUP": 1}


def test_signal_that_is_ignored_here_is_ignored_there():
    deaf = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"]
    with started([*deaf, *command("count")]) as process:
        os.killpg(process.pid, signal.SIGHUP)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "got SIGTERM\n"
        assert counts(process) == {"SIGTERM": 1}


class Shell:
    """bash with a terminal."""

    def __init__(self) -> None:
        self._pid, self._file = pty.fork()
        if self._pid == 0:
            os.execv("/bin/bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"])
        self._said = ""

    def type(self, text: str) -> None:
        os.write(self._file, text.encode())

    def see(self, text: str) -> None:
        """Wait until it was printed, after what was seen before."""
        wait_until(lambda: self._read() or text in self._said, 20, lambda: f"{text!r} in {self._said!r}")
        self._said = self._said.partition(text)[2]

    def wait_for_program(self) -> None:
        """Wait until a program has the terminal: `fg` prints its name while the shell still has it."""
        wait_until(lambda: os.tcgetpgrp(self._file) != self._pid, 20, lambda: "the terminal is the shell's")

    def _read(self) -> None:
        if select.select([self._file], [], [], 0.05)[0]:
            with suppress(OSError):
                self._said += os.read(self._file, 65536).decode(errors="replace")

    def close(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.close(self._file)
        os.waitpid(self._pid, 0)


@pytest.fixture
def shell() -> Iterator[Shell]:
    one = Shell()
    yield one
    one.close()


def test_terminal_interrupts_stops_and_continues_the_program_and_not_us(shell):
    shell.type(f"{shlex.join(command('count'))}; echo code=$?\n")
    shell.see("ready\r\n")
    shell.type("\x03")
    shell.see("got SIGINT")
    shell.type("\x1a")
    shell.see("code=148")
    shell.type("fg\n")
    shell.see("claude_stub.py")
    shell.wait_for_program()
    shell.type("\x03")
    shell.see("got SIGINT")
    shell.type("\n")
    shell.see('{"SIGINT": 2}')
    shell.type("echo it is $((40 + 2))\n")
    shell.see("it is 42")


def test_program_in_a_pipeline_may_read_the_terminal(shell):
    shell.type(f"{shlex.join(command('count'))} | sed s/ready/steady/\n")
    shell.see("steady\r\n")
    shell.type("\n")
    shell.see("{}")
