"""The small commands: learned, schema and picker."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from signalbox.cli.commands import learned_command, picker_command, schema_command
from signalbox.state.learned_db import FILE
from signalbox.state.unsupported_store import WEEK, UnsupportedStore
from tests.support.answers import error_json, json_answer
from tests.support.fake_provider import Upstream


@pytest.fixture
def state(tmp_path: Path) -> Path:
    with closing(UnsupportedStore(tmp_path)) as store:
        store.learn("zai", "glm-4.7", ["context_management", "tools.strict"])
    with closing(UnsupportedStore(tmp_path, clock=lambda: time.time() - WEEK + 7000)) as store:
        store.learn("kimi", "k3\x1b[2J", ["speed"])
    return tmp_path


def learned(state: Path, *args: str) -> Result:
    return CliRunner().invoke(learned_command, [*args, "--state", str(state)])


def test_list_shows_what_is_left_out_where_and_for_how_long(state):
    result = learned(state, "list")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        r"kimi/k3\x1b[2J: speed (for another 2 hours)",
        "zai/glm-4.7: context_management (for another 7 days)",
        "zai/glm-4.7: tools.strict (for another 7 days)",
    ]


def test_forget_takes_a_provider_and_a_field(state):
    result = learned(state, "forget", "zai", "tools.strict")
    assert result.stdout == "Forgotten: zai/glm-4.7: tools.strict\n"
    assert len(learned(state, "list").stdout.splitlines()) == 2


def test_forget_alone_forgets_everything(state):
    assert len(learned(state, "forget").stdout.splitlines()) == 3
    assert learned(state, "list").stdout == "Nothing was learned.\n"


def test_list_as_json_has_an_object_for_each(state):
    first, *others = json.loads(learned(state, "list", "--json").stdout)
    until = datetime.fromisoformat(first.pop("until")).timestamp()
    assert first == {"provider": "kimi", "model": "k3\x1b[2J", "field": "speed"}
    assert until == pytest.approx(time.time() + 7000, abs=60)
    assert [one["field"] for one in others] == ["context_management", "tools.strict"]


def test_forget_says_when_there_is_nothing_to_forget(state, tmp_path):
    assert learned(state, "forget", "other").stdout == "There is nothing to forget.\n"
    assert learned(tmp_path / "none", "list").stdout == "Nothing was learned.\n"


@pytest.mark.slow
def test_failed_forget_is_one_line_and_changes_nothing(state):
    with closing(sqlite3.connect(state / FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        result = learned(state, "forget", "zai")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"Error: {state / FILE}: database is locked: nothing was forgotten\n"
        assert len(learned(state, "list").stdout.splitlines()) == 3


def test_damaged_file_is_reported_and_left_alone(state):
    (state / FILE).write_bytes(b"no database" * 1000)
    for command in ("list", "forget"):
        result = learned(state, command)
        assert result.exit_code == 1
        assert "file is not a database" in result.stderr
    assert (state / FILE).read_bytes().startswith(b"no database")


def test_schema_that_cannot_be_written_is_one_line(tmp_path):
    result = CliRunner().invoke(schema_command, ["--out", str(tmp_path / "none" / "schema.json")])
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {tmp_path / 'none' / 'schema.json'} cannot be written: No such file or directory\n"
    )


def test_what_stdout_cannot_encode_is_a_question_mark(tmp_path):
    """As where Windows writes to a pipe in its code page."""
    (tmp_path / "rules.yaml").write_text("""
providers: {zai: {url: "https://api.z.ai/api/anthropic", key: fake}}
rules: [{match: "*", to: zai/glm-4.7}]
""")
    command = [sys.executable, "-m", "signalbox.cli", "explain", "claude-sonnet-4-5"]
    environ = {**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"model claude-sonnet-4-5 ? glm-4.7" in done.stdout


GLM = json_answer({"data": [{"id": "glm-4.7", "object": "model"}]})


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home with nothing in it, and no environment that speaks of Claude Code."""
    for name in ("ANTHROPIC_BASE_URL", "CLAUDE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_rules(home: Path, zai: Upstream, more: str = "") -> None:
    (home / "rules.yaml").write_text(f"""
providers:
  anthropic: {{url: "https://api.anthropic.com", auth: client, quota: {{accounts: [work]}}}}
  zai: {{url: "{zai.url}", api: openai, key: key-of-the-provider, models: list}}
rules: [{{match: "*", to: anthropic}}]
{more}
""")


def run(home: Path) -> Result:
    return CliRunner().invoke(picker_command, ["--state", str(home / "state")])


def test_it_writes_the_file_of_every_account_and_says_so(home, upstream):
    upstream.answer(GLM)
    write_rules(home, upstream)
    result = run(home)
    assert result.exit_code == 0, result.output
    files = [home / folder / "cache/gateway-models.json" for folder in (".claude", "work")]
    assert [Path(line.partition(": ")[0]).absolute() for line in result.stdout.splitlines()] == files
    for file in files:
        found = json.loads(file.read_text())
        assert found["baseUrl"] == "http://127.0.0.1:8082"
        ids = [model["id"] for model in found["models"]]
        assert "claude-opus-5-5" in ids
        assert ids[-1] == "claude-router-glm-4.7"


def test_the_first_listener_of_the_rules_is_the_gateway(home, upstream):
    upstream.answer(GLM)
    write_rules(home, upstream, 'listen: {main: "127.0.0.1:9000", other: "127.0.0.1:9001"}')
    assert "models for http://127.0.0.1:9000" in run(home).stdout


def test_environment_names_the_gateway(home, upstream, monkeypatch):
    upstream.answer(GLM)
    write_rules(home, upstream)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://box.lan:8082")
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(home / "config"))
    assert f"{home / 'config'}" in run(home).stdout
    found = json.loads((home / "config/cache/gateway-models.json").read_text())
    assert found["baseUrl"] == "http://box.lan:8082"


def test_failed_fetch_leaves_the_files_and_fails(home, upstream):
    upstream.answer(GLM, error_json(500, "api_error"))
    write_rules(home, upstream)
    run(home)
    file = home / ".claude/cache/gateway-models.json"
    before = file.read_bytes()
    result = run(home)
    assert result.exit_code == 1
    assert "stays as it was, no list came from zai" in result.stderr
    assert file.read_bytes() == before


def test_errors_in_the_rules_are_printed(home):
    (home / "rules.yaml").write_text("modle: 1")
    result = run(home)
    assert result.exit_code == 1
    assert result.stderr.startswith("rules.yaml:1: ")


def test_settings_are_printed_with_the_models_own_ids_and_nothing_is_written(home, upstream):
    upstream.answer(GLM)
    write_rules(home, upstream)
    result = CliRunner().invoke(picker_command, ["--settings", "--state", str(home / "state")])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["modelPicker"]["options"]
    assert (row["model"], row["label"]) == ("glm-4.7", "glm-4.7 · zai")
    assert [path.name for path in home.iterdir()] == ["rules.yaml"]
