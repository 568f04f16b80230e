"""The commands of README and docs, pasted line by line into a shell in a fresh copy, with an empty HOME."""

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from mitmproxy import io
from mitmproxy.test import tflow

from tests.support.router_process import ROOT, free_ports, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.clone, pytest.mark.timeout(900)]

LEFT_OUT = (
    ".git",
    ".venv",
    ".tools",
    ".litellm",
    ".env",
    ".*_cache",
    ".hypothesis",
    "__pycache__",
    "*.egg-info",
)
PORTS = ("8080", "8081", "8082", "8083", "8090", "8091")
SERVERS = re.compile(r"just (\w+=\d+ )*(run|web)\b|mitmdump ")
SHELL_STATE = re.compile(r"(export|source) ")
ELSEWHERE = re.compile(r"curl https://")
"""Asks a provider with a real key."""
CLAUDE = """#!/bin/sh
# In place of Claude Code: asks whether the router is where it was told to be.
exec {python} -c 'import os, sys, urllib.request
url = os.environ.get("ANTHROPIC_BASE_URL")
proxy = urllib.request.ProxyHandler({{}})
url and urllib.request.build_opener(proxy).open(url + "/health", timeout=5).read()'
"""
OLD = """{
  "Providers": [{"name": "local", "api_base_url": "http://127.0.0.1:9/v1", "api_key": "k", "models": ["m"]}],
  "Router": {"default": "local,m"}
}"""
"""What `signalbox init` finds of claude-code-router."""
INSTALL, START = 300.0, 60.0


class Shell:
    """Runs what is pasted; exports and activations last, as they do for a person."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.failures: list[str] = []
        self._state: list[str] = []

    def paste(self, line: str) -> None:
        if SHELL_STATE.match(line):
            self._state.append(line)
        done = subprocess.run(
            self._command(line), cwd=self.folder, env=self.environment, timeout=INSTALL,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        if done.returncode:
            self.failures.append(f"{line}\nended with {done.returncode}:\n{done.stdout[-1500:]}")

    @contextmanager
    def serving(self, line: str) -> Iterator[None]:
        """The line is a router: it is up inside of `with`, and Ctrl-C ends it without a word."""
        said: list[str] = []
        process = subprocess.Popen(
            self._command(line), cwd=self.folder, env=self.environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        reader = threading.Thread(target=lambda: said.extend(process.stdout or ()), daemon=True)
        reader.start()
        try:
            wait_until(
                lambda: process.poll() is not None or any("point Claude Code here" in one for one in said),
                INSTALL,
                lambda: f"{line} to start; it said:\n{''.join(said)}",
            )
            before = len(said)
            yield
            if process.poll() is not None:
                self.failures.append(f"{line}\nended by itself:\n{''.join(said)[-1500:]}")
            os.killpg(process.pid, signal.SIGINT)
            process.wait(START)
            reader.join(START)
            if any("error" in one.lower() for one in said[before:]):
                self.failures.append(f"{line}\nsaid at Ctrl-C:\n{''.join(said[before:])}")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            reader.join(START)
            assert process.stdout is not None
            process.stdout.close()

    def _command(self, line: str) -> list[str]:
        return ["bash", "-c", "\n".join([*self._state, line])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """A copy of the project in which the usual ports are others, free ones."""
    folder = tmp_path_factory.mktemp("fresh") / "signalbox"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    others = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
    code = folder / "addon" / "signalbox" / "lifecycle" / "spec.py"
    pages = [folder / "justfile", code, folder / "README.md", *(folder / "docs").glob("*.md")]
    for page in pages:
        page.write_text(
            re.sub(r"\b(\d{4})\b", lambda found: others.get(found[1], found[1]), page.read_text())
        )
    for name in ("my.yaml", "other.yaml"):
        shutil.copy(folder / "rules.yaml", folder / name)
    with (folder / "yesterday.flows").open("wb") as file:
        io.FlowWriter(file).add(tflow.tflow(resp=True))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)  # its environment is large, and pytest keeps folders


@pytest.fixture(scope="module")
def shell(folder, tmp_path_factory) -> Shell:
    home, programs = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("programs")
    (home / ".claude-code-router").mkdir()
    (home / ".claude-code-router/config.json").write_text(OLD)
    claude = programs / "claude"
    claude.write_text(CLAUDE.format(python=sys.executable))
    claude.chmod(claude.stat().st_mode | stat.S_IXUSR)
    ours = str(Path(sys.executable).parent)
    path = [str(programs), *(one for one in os.environ["PATH"].split(os.pathsep) if one != ours)]
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("PIP_", "UV_", "SSL_", "LANG", "LC_")) or name.lower().endswith("_proxy")
    }
    caches = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "uv"
    return Shell(
        folder,
        {"UV_CACHE_DIR": str(caches), **kept, "HOME": str(home), "PATH": os.pathsep.join(path)}
        | {"PYTEST_ADDOPTS": "--collect-only -q", "BROWSER": "true"},
    )


def blocks(page: Path) -> list[list[str]]:
    """The commands of each `sh` block; one that goes on in the next line is one."""
    found = re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [[line for line in block.replace("\\\n", "").splitlines() if line] for block in found]


def paste_block(shell: Shell, lines: list[str]) -> None:
    """In order; a router of the block runs while the lines after it do."""
    if not lines:
        return
    line, *rest = lines
    if ELSEWHERE.match(line):
        paste_block(shell, rest)
    elif SERVERS.search(line):
        with shell.serving(line):
            paste_block(shell, rest)
    else:
        shell.paste(line)
        paste_block(shell, rest)


def test_what_readme_says_works_when_pasted(shell, folder):
    page = folder / "README.md"
    for lines in blocks(page):
        if "curl " in lines[0]:  # said of a router that runs
            lines = ["just run", *lines]
        paste_block(shell, lines)
    text = page.read_text()
    for line in ("just run my.yaml", *re.findall(r"`(just \w+port=\d+ (?:run|web))`", text)):
        assert f"`{line}`" in text
        with shell.serving(line):
            pass
    assert shell.failures == []


def test_what_the_pages_of_docs_say_works_when_pasted_after_it(shell, folder):
    for page in sorted((folder / "docs").glob("*.md")):
        for lines in blocks(page):
            needs_router = any("127.0.0.1" in line for line in lines) and not SERVERS.search(lines[0])
            paste_block(shell, ["just run", *lines] if needs_router else lines)
    assert shell.failures == []


def test_the_files_are_where_readme_says_that_they_are(shell, folder):
    """Only what README's box names was written into the empty HOME."""
    home = Path(shell.environment["HOME"])
    written = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    told = (".local/state/signalbox/", ".mitmproxy/", ".cache/uv/", ".cache/pip/", ".local/share/uv/")
    told += (".rustup/",)  # of a Rust on this machine, whose version pip asks for
    told += (".claude-code-router/",)  # which the test has put there
    assert {path for path in written if not path.startswith(told)} == set()
    assert any(path.startswith(".mitmproxy/") for path in written)
    assert (folder / ".venv").is_dir()
