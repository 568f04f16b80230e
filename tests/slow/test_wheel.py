"""The wheel that `just build` makes, in an environment with what requirements-runtime.lock pins."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

from tests.support.router_process import (
    OPENER,
    ROOT,
    START,
    authority_folder,
    clean_environment,
    free_ports,
    wait_until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

UV = ROOT / ".tools" / "bin" / "uv"
PROGRAMS = "Scripts" if sys.platform == "win32" else "bin"


def run(*command: object, folder: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of an environment into which the wheel is installed."""
    if not UV.exists():
        pytest.skip("uv is not in .tools")
    folder = tmp_path_factory.mktemp("wheel")
    build = (UV, "build", "--quiet", "--wheel", "--python", sys.executable)
    environment = {"UV_SYSTEM_CERTS": "true", **os.environ, "VIRTUAL_ENV": str(folder / "venv")}
    run(*build, "--out-dir", folder, ROOT, folder=folder, environment=environment)
    (wheel,) = folder.glob("*.whl")
    run(UV, "venv", "--quiet", "--python", sys.executable, folder / "venv", folder=folder)
    install = (UV, "pip", "install", "--quiet")
    lock = ROOT / "requirements-runtime.lock"
    run(*install, "--require-hashes", "-r", lock, folder=folder, environment=environment)
    run(*install, "--no-deps", wheel, folder=folder, environment=environment)
    return folder / "venv" / PROGRAMS


@pytest.fixture
def environment(tmp_path: Path, installed: Path) -> dict[str, str]:
    """Of a user who has nothing but the installation."""
    path = os.pathsep.join([str(installed), os.environ["PATH"]])
    return clean_environment(tmp_path, {"PATH": path, "XDG_CONFIG_HOME": str(tmp_path / "config")})


def test_without_rules_of_ones_own_those_of_the_wheel_are_checked(installed, environment, tmp_path):
    said = run(installed / "signalbox", "check", folder=tmp_path, environment=environment)
    assert "ZAI_API_KEY is not set" in said


def test_presets_of_the_wheel_become_rules(installed, environment, tmp_path):
    command = (installed / "signalbox", "init", "--preset", "tiers", "--out", tmp_path / "new")
    run(*command, folder=tmp_path, environment=environment)
    schema = (tmp_path / "new/rules.yaml").read_text().splitlines()[0].partition("$schema=")[2]
    assert (
        json.loads(Path(url2pathname(urlsplit(schema).path)).read_text())["title"] == "Signalbox rules.yaml"
    )
    said = run(
        installed / "signalbox",
        "check",
        tmp_path / "new/rules.yaml",
        folder=tmp_path,
        environment=environment,
    )
    assert "OPENROUTER_API_KEY is not set" in said


def test_rules_in_the_configuration_folder_are_found(installed, environment, tmp_path):
    (tmp_path / "config" / "signalbox").mkdir(parents=True)
    provider = "{url: 'http://127.0.0.1:9', key: '${MINE}'}"
    rules = f"providers: {{mine: {provider}}}\nrules: [{{match: '*', to: mine}}]\n"
    (tmp_path / "config" / "signalbox" / "rules.yaml").write_text(rules)
    (tmp_path / "config" / "signalbox" / ".env").write_text("MINE=key-for-tests\n")
    command = (installed / "signalbox", "explain", "claude-haiku-4-5", "--json")
    explained = json.loads(run(*command, folder=tmp_path, environment=environment))
    assert explained["target"]["provider"] == "mine"


@pytest.fixture
def port(installed, environment, tmp_path) -> Iterator[int]:
    """The port of mitmdump with the router.py of the wheel."""
    (free,) = free_ports(1)
    router = Path(
        run(installed / "signalbox", "addon-path", folder=tmp_path, environment=environment).strip()
    )
    command = [installed / "mitmdump", "-s", router, "--mode", f"reverse:http://127.0.0.1:9@127.0.0.1:{free}"]
    settings = {"confdir": authority_folder(), "router_state": tmp_path / "state"}
    options = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*map(str, command), *options], cwd=tmp_path, env=environment, stdout=output, stderr=output
        )
    try:
        wait_until(lambda: answers(free) or process.poll() is not None, START, log.read_text)
        assert process.poll() is None, log.read_text()
        yield free
    finally:
        process.terminate()
        process.wait(10)


def answers(port: int) -> bool:
    try:
        with OPENER.open(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
    except OSError:
        return False


def test_mitmdump_runs_the_router_of_the_wheel_with_its_rules_prices_and_pages(port):
    with OPENER.open(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
        assert set(json.load(answer)["providers"]) == {"anthropic", "zai"}
    with OPENER.open(f"http://127.0.0.1:{port}/ui", timeout=10) as page:
        assert b"<svg" in page.read()


def test_an_installation_as_a_tool_that_is_used_and_uninstalled_leaves_the_home_as_it_was(
    installed, tmp_path
):
    """As docs/installing.md has it. The files that uv itself keeps about tools are not in the home here."""
    (wheel,) = installed.parents[1].glob("*.whl")
    home, own = tmp_path / "home", {"UV_SYSTEM_CERTS": "true", "UV_TOOL_DIR": str(tmp_path / "tools")}
    home.mkdir()
    programs = home / ".local" / "bin"
    environment = {**os.environ, **own, "HOME": str(home), "UV_TOOL_BIN_DIR": str(programs)}
    environment.setdefault("UV_CACHE_DIR", str(tmp_path / "cache"))
    tool = (UV, "tool")
    run(*tool, "install", "--quiet", "--python", sys.executable, wheel, folder=home, environment=environment)
    for command in ("check", "env"):
        run(programs / "signalbox", command, folder=home, environment=environment)
    run(*tool, "uninstall", "--quiet", "signalbox", folder=home, environment=environment)
    assert [path for path in home.rglob("*") if path.is_file()] == []
