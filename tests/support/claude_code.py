"""The real Claude Code, as npm has it, with a home of its own, a key that is none, and nobody to call.

`Claude.ask` runs one prompt and gives what it printed. Anthropic is a scripted one: `first_party` answers as
api.anthropic.com, where `tests.support.loopback_only` has made that this machine.

`python -m tests.support.claude_code COMMAND...` installs Claude Code and then runs the command where nobody
else can be reached: `just test-claude` runs pytest so.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.support import loopback_only
from tests.support.answers import Answer, error_json, message_sse, tool_block
from tests.support.fake_provider import Received, Upstream, usual
from tests.support.router_process import ROOT, clean_environment, free_ports
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
        programs = folder / "bin"
        for one in (self.home, self.project, programs):
            one.mkdir(parents=True, exist_ok=True)
        (programs / "claude").symlink_to(program())
        self._path = os.pathsep.join([str(programs), os.environ["PATH"]])
        self._trusted = {"NODE_EXTRA_CA_CERTS": str(trusted)} if trusted else {}

    def through_signalbox(self, rules: str, *options: str) -> list[str]:
        """The command that runs it through a router of its own with these rules, on a port of its own."""
        (port,) = free_ports(1)
        file = self.project / "rules.yaml"
        file.write_text(f"{rules}\nlisten: {{here: 127.0.0.1:{port}}}\n")
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

    def ask(
        self,
        prompt: str,
        *arguments: str,
        base_url: str = "",
        command: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> Said:
        """One prompt, answered as JSON. `arguments` are further ones of Claude Code; `command` is what runs
        in place of the program itself."""
        given = {"ANTHROPIC_BASE_URL": base_url, **(environment or {})}
        done = subprocess.run(
            [*(command or ["claude"]), *arguments, "-p", prompt, "--output-format", "json"],
            cwd=self.project,
            env=self.environment(**given),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)


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
