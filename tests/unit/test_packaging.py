"""What lies around the code: the lock, the recipes, the rules that come with it."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from signalbox.cli.check import check
from signalbox.config.load import load
from tests.support.router_process import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
RUNTIME_LOCK = (ROOT / "requirements-runtime.lock").read_text()
JUSTFILE = (ROOT / "justfile").read_text()
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.yaml") if path.stem != "compose")
RULES = [ROOT / "rules.yaml", *EXAMPLES]


def test_the_lock_holds_names_versions_and_hashes_alone():
    pin = re.compile(r"[a-z0-9-]+==[^ ]+( ; [^\\/]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
    assert [line for line in LOCK.splitlines() if not pin.fullmatch(line)] == []


@pytest.mark.parametrize(
    "wanted",
    [Requirement(line) for line in PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]],
    ids=lambda wanted: wanted.name,
)
def test_the_lock_pins_what_the_project_asks_for(wanted):
    pinned = re.findall(rf"^{canonicalize_name(wanted.name)}==([^ ]+)", LOCK, re.MULTILINE)
    assert pinned
    assert all(wanted.specifier.contains(version) for version in pinned)


def test_the_lock_of_the_router_alone_is_a_part_of_the_whole_one():
    entry = re.compile(r"^\S+==.*(?:\n    .*)*", re.MULTILINE)
    runtime = entry.findall(RUNTIME_LOCK)
    assert set(runtime) <= set(entry.findall(LOCK))
    named = {line.split("==")[0] for line in runtime}
    needed = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["postgres"]]
    assert {canonicalize_name(Requirement(line).name) for line in needed} <= named


def test_the_python_we_develop_with_is_one_that_is_supported():
    version = (ROOT / ".python-version").read_text().strip()
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(version)


def test_all_recipes_are_there():
    recipes = set(re.findall(r"^([a-z]+)[^:=\n]*:(?!=)", JUSTFILE, re.MULTILINE))
    wanted = "run web dev signalbox test check lint typecheck fmt demo stats schema lock"
    assert recipes >= set(wanted.split())


def test_recipes_work_in_powershell():
    assert 'set windows-shell := ["powershell.exe"' in JUSTFILE
    assert "&& " not in re.sub(r"^\S.*", "", JUSTFILE, flags=re.MULTILINE)


@pytest.mark.parametrize("ignored", ["uv.lock", "/.venv", "/.tools/", "/.env"])
def test_what_is_made_here_stays_here(ignored):
    assert ignored in (ROOT / ".gitignore").read_text().splitlines()


def test_the_wheel_holds_the_data_that_the_package_reads():
    """The build takes all files of the package but those that git ignores."""
    (package,) = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    data = [
        path for path in (ROOT / package).rglob("*") if path.suffix not in (".py", ".pyc") and path.is_file()
    ]
    assert {path.name for path in data} >= {
        "prices.yaml",
        "stock.json",
        "overview.html",
        "style.css",
        "live.js",
    }
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert [path for path in data for pattern in filter(None, ignored) if path.match(pattern)] == []


def test_the_example_environment_sets_nothing():
    settings = [
        line for line in (ROOT / ".env.example").read_text().splitlines() if line[:1] not in ("", "#")
    ]
    assert settings
    assert all(line.endswith("=") for line in settings)


def test_there_is_nothing_to_say_against_the_rules_that_come_with_it():
    assert check(ROOT / "rules.yaml", {"ZAI_API_KEY": "zai-key-for-tests"}) == ([], [])


@pytest.mark.parametrize("file", RULES, ids=lambda file: file.name)
def test_editors_find_the_schema_of_the_rules_that_come_with_it(file):
    first = file.read_text().splitlines()[0]
    schema = first.removeprefix("# yaml-language-server: $schema=")
    assert (file.parent / schema).resolve() == ROOT / "addon/rules.schema.json"


def test_without_keys_every_rule_that_comes_with_it_leads_to_anthropic():
    rules = load(ROOT / "rules.yaml", {"ZAI_API_KEY": ""})
    available = [name for name, provider in rules.providers.items() if not provider.unavailable]
    assert available == ["anthropic"]
    assert all(
        any(target.provider == "anthropic" for choice in rule.choices for target in choice)
        for rule in rules.rules
    )


UV = """#!/bin/sh
echo "$@" >> asked
test ! -e fails-at-$1
"""


class Environment:
    """A project with .ci/environment.py, and a uv that only notes what it is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("pyproject.toml", "requirements.lock"):
            (folder / name).write_text(name)
        (folder / ".ci").mkdir()
        (folder / ".venv").mkdir()
        shutil.copy(ROOT / ".ci/environment.py", folder / ".ci")
        uv = folder / ".tools/bin/uv"
        uv.parent.mkdir(parents=True)
        uv.write_text(UV)
        uv.chmod(0o755)

    def ensure(self) -> list[str]:
        """What uv was asked. It fails where one of its commands does."""
        (self.folder / "asked").write_text("")
        command = [sys.executable, "-S", self.folder / ".ci/environment.py"]
        done = subprocess.run(command, capture_output=True, timeout=20, check=False)
        asked = (self.folder / "asked").read_text().splitlines()
        assert bool(done.returncode) == bool(list(self.folder.glob("fails-at-*"))), done.stderr
        return asked


@pytest.fixture
def environment(tmp_path) -> Environment:
    if sys.platform == "win32":
        pytest.skip("the uv of these tests is a shell script")
    return Environment(tmp_path)


def subcommands(asked: list[str]) -> list[str]:
    return [line.split()[0] for line in asked]


def test_the_environment_is_made_once(environment):
    assert subcommands(environment.ensure()) == ["venv", "pip", "pip"]
    assert environment.ensure() == []


@pytest.mark.parametrize("changed", ["pyproject.toml", "requirements.lock"])
def test_a_change_of_what_is_asked_fills_the_environment_again(environment, changed):
    environment.ensure()
    (environment.folder / ".venv/pyvenv.cfg").touch()
    (environment.folder / changed).write_text("other")
    assert subcommands(environment.ensure()) == ["pip", "pip"]


def test_an_environment_that_could_not_be_filled_is_tried_again(environment):
    fails = environment.folder / "fails-at-pip"
    fails.touch()
    assert subcommands(environment.ensure()) == ["venv", "pip"]
    fails.unlink()
    assert subcommands(environment.ensure()) == ["venv", "pip", "pip"]


def test_where_no_python_of_ours_is_installed_one_is_fetched(environment):
    (environment.folder / "fails-at-venv").touch()
    tries = environment.ensure()
    assert ["--no-python-downloads" in line for line in tries] == [True, True, False]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Of Debian, with an apt-get that notes its arguments and fails where `fails` is there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    apt = folder / "apt-get"
    apt.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\ntest ! -e {folder}/fails\n')
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return folder


def installed() -> bool:
    spec = importlib.util.spec_from_file_location("environment", ROOT / ".ci/environment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.system({"postgresql": "no-such-program", "sh": "sh"}, elsewhere=())


def test_programs_of_debian_that_are_missing_are_installed_by_root(machine):
    assert installed()
    update, install = (machine / "asked").read_text().splitlines()
    assert update.endswith("update")
    assert install.endswith("install -y --no-install-recommends postgresql")


def test_nobody_else_installs_any_and_is_told_what_is_skipped(machine, monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert installed()
    assert not (machine / "asked").exists()
    assert capsys.readouterr().err == "Tests that need postgresql are skipped.\n"


def test_tests_run_also_where_the_programs_cannot_be_installed(machine, capsys):
    (machine / "fails").touch()
    assert installed()
    assert "tests that need them are skipped" in capsys.readouterr().err
