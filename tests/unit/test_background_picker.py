"""The file from which Claude Code fills its model picker."""

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from signalbox.background.model_list import Gathered
from signalbox.background.picker import (
    FILE,
    PickerResult,
    account_base_url,
    folders,
    settings,
    write,
)
from signalbox.config.load import parse
from signalbox.config.rules import Model, Rules
from signalbox.record.prices import shipped

ENTRIES = [
    {"type": "model", "id": "claude-a", "display_name": "Claude A (200K)", "capabilities": {}},
    {"type": "model", "id": "claude-router-glm", "display_name": "glm"},
]
LISTENER = "http://127.0.0.1:8082"
ALL = Gathered(ENTRIES)
SOME = Gathered(ENTRIES[:1], ("zai",))


def rules(folder: Path, accounts: str = "", **environ: str) -> Rules:
    text = f'providers: {{a: {{url: "https://h", auth: client, quota: {{accounts: [{accounts}]}}}}}}\n'
    environ = {"CLAUDE_CONFIG_DIR": str(folder / "own")} | environ
    return parse(text, file=folder / "rules.yaml", environ=environ)


def written(rules: Rules, gathered: Gathered = ALL, listener: str | None = LISTENER) -> list[PickerResult]:
    return write(rules, gathered, listener, now=1_795_262_400.1234)


def user_settings(folder: Path, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "settings.json").write_text(text)


def test_it_is_the_file_that_claude_code_itself_writes(tmp_path):
    file = tmp_path / "own/cache/gateway-models.json"
    assert written(rules(tmp_path)) == [PickerResult(file, LISTENER, 2)]
    assert json.loads(file.read_text()) == {
        "baseUrl": LISTENER,
        "fetchedAt": 1_795_262_400_123,
        "models": [
            {"id": "claude-a", "display_name": "Claude A (200K)"},
            {"id": "claude-router-glm", "display_name": "glm"},
        ],
    }
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == [FILE.name]


def test_every_account_has_one_with_the_url_of_its_own_settings(tmp_path):
    user_settings(
        tmp_path / "b", '{"env": {"ANTHROPIC_BASE_URL": "http://b:1", "OTHER": 7}, "model": "opus"}'
    )
    found = rules(tmp_path, accounts="b, ./own, c")
    assert folders(found) == [tmp_path / "own", tmp_path / "b", tmp_path / "c"]
    urls = [(one.file.parts[-3], one.base_url) for one in written(found)]
    assert urls == [("own", LISTENER), ("b", "http://b:1"), ("c", LISTENER)]
    assert json.loads((tmp_path / "b" / FILE).read_text())["baseUrl"] == "http://b:1"


def test_without_a_folder_of_the_environment_it_is_that_of_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert folders(rules(tmp_path, CLAUDE_CONFIG_DIR="")) == [tmp_path / ".claude"]


def test_settings_win_over_the_environment_and_that_over_the_listener(tmp_path):
    found = rules(tmp_path, ANTHROPIC_BASE_URL="http://environment:1")
    assert account_base_url(tmp_path / "own", found, LISTENER) == "http://environment:1"
    for mark in ("", "\ufeff"):
        user_settings(tmp_path / "own", mark + '{"env": {"ANTHROPIC_BASE_URL": "http://settings:1"}}')
        assert account_base_url(tmp_path / "own", found, LISTENER) == "http://settings:1"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"env": 7}',
        '{"env": {"ANTHROPIC_BASE_URL": 7}}',
        '{"env": {"ANTHROPIC_BASE_URL": ""}}',
    ],
)
def test_settings_that_say_nothing_of_it_leave_it_to_the_others(tmp_path, text):
    user_settings(tmp_path / "own", text)
    assert account_base_url(tmp_path / "own", rules(tmp_path), LISTENER) == LISTENER


def test_a_failed_fetch_leaves_a_good_file_as_it_is(tmp_path):
    written(rules(tmp_path))
    before = (tmp_path / "own" / FILE).read_bytes()
    for gathered in (SOME, Gathered([], ("anthropic",)), Gathered([])):
        (told,) = written(rules(tmp_path), gathered)
        assert told.fault
        assert (tmp_path / "own" / FILE).read_bytes() == before
    assert "stays as it was, no list came from zai" in written(rules(tmp_path), SOME)[0].line


@pytest.mark.parametrize("broken", [None, "", "{}", '{"models": []}', '{"models": 7}', "[1]"])
def test_what_there_is_is_better_than_a_file_without_models(tmp_path, broken):
    file = tmp_path / "own" / FILE
    if broken is not None:
        file.parent.mkdir(parents=True)
        file.write_text(broken)
    assert written(rules(tmp_path), SOME) == [PickerResult(file, LISTENER, 1)]
    assert len(json.loads(file.read_text())["models"]) == 1


def test_where_claude_code_has_no_gateway_nothing_is_written(tmp_path):
    (told,) = written(rules(tmp_path), listener=None)
    assert "ANTHROPIC_BASE_URL is not set" in told.fault
    assert not told.file.exists()


def test_a_folder_that_cannot_be_written_costs_the_other_accounts_nothing(tmp_path):
    (tmp_path / "own").touch()
    own, other = written(rules(tmp_path, accounts="b"))
    assert "cannot be written" in own.fault
    assert other == PickerResult(tmp_path / "b" / FILE, LISTENER, 2)


OFFERING = """
providers:
  anthropic: {url: "https://api.anthropic.com", auth: client}
  zai: {url: "https://api.z.ai/api/anthropic", key: k, long_context: [glm-5.2]}
  local: {url: "http://127.0.0.1:1", prices: {"*": {}}}
"""


def rows(**offered: list[Model]) -> list[dict[str, str]]:
    found = parse(OFFERING, file=Path("rules.yaml"), environ={})
    made = settings(found, offered, shipped(), datetime(2026, 11, 29, tzinfo=UTC))
    return made["modelPicker"]["options"] if made else []


def test_a_row_names_model_and_provider_and_says_what_the_model_costs_and_is_like():
    assert rows(zai=[Model("glm-4.7")]) == [
        {
            "model": "glm-4.7",
            "label": "glm-4.7 · zai",
            "description": "$0.60 in, $2.20 out, per million tokens",
            "behavesAs": "claude-sonnet-4-6",
        }
    ]
    assert rows(local=[Model("qwen")])[0]["description"] == "no price per token"
    assert "description" not in rows(zai=[Model("glm-9")])[0]


def test_the_words_of_the_rules_come_before_those_of_the_router():
    (row,) = rows(zai=[Model("glm-4.7", "GLM", "the usual one", "claude-haiku-4-5")])
    assert list(row.values()) == ["glm-4.7", "GLM", "the usual one", "claude-haiku-4-5"]


def test_claudes_models_and_those_of_a_long_context_behave_as_nothing_else():
    long, claude, other = rows(
        zai=[Model("glm-5.2")], anthropic=[Model("claude-opus-5-5")], local=[Model("anthropic/claude-x")]
    )
    assert long["model"] == "glm-5.2[1m]"
    assert not any("behavesAs" in row for row in (long, claude, other))


def test_a_model_that_two_providers_offer_has_one_row():
    assert [row["label"] for row in rows(local=[Model("glm-4.7")], zai=[Model("glm-4.7")])] == [
        "glm-4.7 · local"
    ]


def test_without_models_there_are_no_settings():
    assert rows() == []
