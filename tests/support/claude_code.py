"""The real Claude Code, as npm has it, with a home of its own, a key that is none, and nobody to call.

`Claude.ask` runs one prompt and gives what it printed. Anthropic is a scripted one: `first_party` answers as
api.anthropic.com, where `tests.support.loopback_only` has made that this machine.

`python -m tests.support.claude_code COMMAND...` installs Claude Code and then runs the command where nobody
else can be reached: `just test-claude` runs pytest so.
"""

import fcntl
import json
import os
import platform
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from tests.support import loopback_only
from tests.support.answers import Answer, error_json, message_sse, tool_block
from tests.support.fake_provider import Received, Upstream, usual
from tests.support.router_process import ROOT, clean_environment, free_ports, wait_until
from tests.support.tls import certify, serving

VERSION = "2.1.328"
PACKAGE = "@anthropic-ai/claude-code"
FOLDER = ROOT / ".claude-code"
"""Where it is installed, once, below its version. Not part of the repository."""
INSTALL = 300
"""Seconds for npm."""
KEY = "sk-ant-api03-fake-key-for-tests"
SIGNALBOX = str(Path(sys.executable).with_name("signalbox"))
HOST = "api.anthropic.com"
CONTROL = re.compile(r"\x1b\[[0-9;?<>=]*[a-zA-Z]|\x1b[()][A-Z0-9]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.")
"""What moves a terminal's cursor or colours."""


class UnavailableError(Exception):
    """Claude Code cannot be had here. The text says why."""


@cache
def program() -> Path:
    """The program as it was installed. Raises UnavailableError."""
    folder = FOLDER / VERSION
    if not folder.exists():
        raise UnavailableError("it is not installed: `just test-claude` does that")
    system = {"linux": "linux", "darwin": "darwin", "win32": "win32"}.get(sys.platform, sys.platform)
    machine = "arm64" if platform.machine().lower() in ("arm64", "aarch64") else "x64"
    found = sorted((folder / "node_modules").glob(f"{PACKAGE}-{system}-{machine}*/claude*"))
    for one in found:
        with suppress(OSError, subprocess.SubprocessError):
            said = subprocess.run([one, "--version"], capture_output=True, text=True, timeout=30, check=True)
            if said.stdout.startswith(VERSION):
                return one
    raise UnavailableError(f"{PACKAGE} {VERSION} has no program that runs here")


def install() -> None:
    """Installs it where it is not. Raises UnavailableError."""
    folder = FOLDER / VERSION
    if folder.exists():
        return
    npm = shutil.which("npm")
    if npm is None:
        raise UnavailableError("npm is not installed")
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="installing-") as made:
        command = [npm, "install", "--prefix", made, "--no-audit", "--no-fund", "--ignore-scripts"]
        try:
            done = subprocess.run(
                [*command, f"{PACKAGE}@{VERSION}"],
                capture_output=True,
                text=True,
                timeout=INSTALL,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise UnavailableError(f"npm took longer than {INSTALL} s") from None
        if done.returncode:
            why = next((line for line in done.stderr.splitlines() if "error" in line.lower()), "it failed")
            raise UnavailableError(f"npm cannot install {PACKAGE} {VERSION}: {why}")
        with suppress(OSError):  # another run was quicker
            Path(made).rename(folder)
        Path(made).mkdir(exist_ok=True)  # for its own end


@dataclass(frozen=True)
class Said:
    """What one run printed, and how it ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, Any]:
        """The object that `--output-format json` prints."""
        found: dict[str, Any] = json.loads(self.stdout)
        return found

    @property
    def text(self) -> str:
        """The answer, as the user gets it."""
        return str(self.result["result"])


class Claude:
    """Claude Code with a home and a project of its own."""

    def __init__(self, folder: Path, *, trusted: Path | None = None) -> None:
        """`trusted`: a file of certificates that it trusts too."""
        self.home = folder / "home"
        self.project = folder / "project"
        self.settings = self.home / ".claude" / "settings.json"
        self.state = folder / "state"
        """The state folder of routers."""
        self.port = 0
        """Where `through_signalbox` has the router listen."""
        programs = folder / "bin"
        for one in (self.home, self.project, programs):
            one.mkdir(parents=True, exist_ok=True)
        (programs / "claude").symlink_to(program())
        self._path = os.pathsep.join([str(programs), os.environ["PATH"]])
        self._trusted = {"NODE_EXTRA_CA_CERTS": str(trusted)} if trusted else {}

    def skip_questions(self) -> None:
        """Answer what an interactive Claude Code asks at its first start."""
        answers = {
            "hasCompletedOnboarding": True,
            "customApiKeyResponses": {"approved": [KEY[-20:]], "rejected": []},
            "projects": {str(self.project): {"hasTrustDialogAccepted": True}},
        }
        (self.home / ".claude.json").write_text(json.dumps(answers))

    def files(self) -> set[str]:
        """What is in the home, less what Claude Code names after a session or a time."""
        found = (str(path.relative_to(self.home)) for path in self.home.rglob("*"))
        return {re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d{5,}", "ID", path) for path in found}

    def through_signalbox(self, rules: str, *options: str) -> list[str]:
        """The command that runs it through a router of its own with these rules, on a port of its own."""
        (self.port,) = free_ports(1)
        file = self.project / "rules.yaml"
        file.write_text(f"{rules}\nlisten: {{here: 127.0.0.1:{self.port}}}\n")
        return [SIGNALBOX, "claude", "--rules", str(file), "--state", str(self.state), *options]

    def environment(self, **extra: str) -> dict[str, str]:
        """No setting, key or proxy of who runs the tests. A value that is empty takes the variable out."""
        usual = {
            "ANTHROPIC_API_KEY": KEY,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "CLAUDE_CODE_MAX_RETRIES": "2",
            "PATH": self._path,
            "TERM": "xterm-256color",
        }
        made = clean_environment(self.home, {**usual, **self._trusted, **extra})
        return {name: value for name, value in made.items() if value}

    def ask(self, prompt: str, *arguments: str, timeout: float = 90, **how: Any) -> Said:
        """One prompt, answered as JSON. `arguments` are Claude Code's, `how` is as in `start`."""
        process = self.start(prompt, *arguments, **how)
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            process.kill()
        return Said(process.returncode, out, err)

    def stream(
        self, told: Sequence[dict[str, Any]], *arguments: str, base_url: str = "", timeout: float = 90
    ) -> list[dict[str, Any]]:
        """What it prints for these messages of the user, both as lines of JSON: it then shows its thinking
        as in a terminal."""
        both = ("--input-format", "stream-json", "--output-format", "stream-json")
        done = subprocess.run(
            ["claude", *arguments, "-p", "--verbose", *both],
            cwd=self.project,
            env=self.environment(ANTHROPIC_BASE_URL=base_url),
            input="".join(json.dumps(one) + "\n" for one in told),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=True,
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    def start(
        self,
        prompt: str,
        *arguments: str,
        base_url: str = "",
        command: Sequence[str] = ("claude",),
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """The process that answers it. `command` is what runs in place of the program itself."""
        given = self.environment(ANTHROPIC_BASE_URL=base_url, **(environment or {}))
        return subprocess.Popen(
            [*command, *arguments, "-p", prompt, "--output-format", "json"],
            cwd=self.project,
            env=given,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


class Screen:
    """Claude Code on a terminal. It draws over what it drew before, often only what has changed: what is seen
    is compared without spaces."""

    def __init__(self, claude: Claude, command: Sequence[str]) -> None:
        claude.skip_questions()
        self._pid, self._file = pty.fork()
        if self._pid == 0:
            os.chdir(claude.project)
            os.execvpe(command[0], command, claude.environment())
        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
        self._drawn = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGTERM)
        try:
            wait_until(self._has_ended, 30, lambda: f"the end of Claude Code; it drew {self._text()!r}")
        except TimeoutError:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            raise
        finally:
            os.close(self._file)

    def type(self, text: str) -> None:
        os.write(self._file, text.encode())

    def see(self, text: str, timeout: float = 60) -> None:
        """Wait until it is drawn, after what was seen before."""
        wanted = "".join(text.split())

        def is_there() -> bool:
            self._read()
            return wanted in self._text()

        wait_until(is_there, timeout, lambda: f"{text!r} on the screen, which is {self._text()!r}")
        self._drawn = ""

    def _has_ended(self) -> bool:
        self._read()  # a program that cannot draw does not end
        return os.waitpid(self._pid, os.WNOHANG)[0] != 0

    def _read(self) -> None:
        if select.select([self._file], [], [], 0.05)[0]:
            with suppress(OSError):  # of its end
                self._drawn += os.read(self._file, 65536).decode(errors="replace")

    def _text(self) -> str:
        return "".join(CONTROL.sub("", self._drawn).split())


def said_last(received: Received) -> str:
    """The text of the last message of a request, tool results included."""
    content = received.json["messages"][-1]["content"]
    return content if isinstance(content, str) else json.dumps(content)


def is_main(received: Received) -> bool:
    """Whether it is a request of the conversation itself: it offers tools."""
    return received.path.startswith("/v1/messages") and bool(received.json.get("tools"))


def bash_loop(command: str, last: str) -> Callable[[Received], Answer]:
    """Answers of a model that lets a shell command run once, and then says `last` and what it printed."""

    def answer(received: Received) -> Answer:
        if not is_main(received):
            return first_party_answer(received)
        model = received.json["model"]
        if "tool_result" in said_last(received):
            return message_sse(model, [last])
        call = tool_block("Bash", command=command, description="for the test")
        return message_sse(model, ["I look."], tools=[call])

    return answer


def first_party_answer(received: Received) -> Answer:
    """As Anthropic: messages are answered, anything else is not there, which costs Claude Code no time."""
    if received.path.startswith("/v1/messages"):
        return usual(received)
    return error_json(404, "not_found_error")


@contextmanager
def first_party(folder: Path) -> Iterator[tuple[Upstream, Path]]:
    """api.anthropic.com on port 443 of this machine, and the certificate that vouches for it."""
    certificate = certify(folder / "first-party.pem", HOST)
    with Upstream(serving(certificate), port=443) as one:
        one.answer(first_party_answer)
        yield one, certificate


def main(command: Sequence[str]) -> None:
    """Runs `command` in place of this process; where Claude Code cannot be had, says so instead."""
    try:
        install()
        program()
    except UnavailableError as error:
        print(f"The tests with the real Claude Code are skipped: {error}.")
        return
    loopback_only.isolate()
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
