"""The files of situations that `signalbox test` plays."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from signalbox.cli.test import test_command as command
from signalbox.scenarios import format
from signalbox.scenarios.fakes import Cast
from signalbox.scenarios.format import Ask, Named, Piece, Problem, Scenario, ScenarioError, Step, parse
from signalbox.scenarios.play import models_of, play
from tests.support.router_process import ROOT

PAGE = (ROOT / "docs/testing-rules.md").read_text()


@pytest.mark.parametrize("file", sorted(format.SHIPPED.glob("*.yaml")), ids=lambda file: file.stem)
def test_what_is_shipped_can_be_read(file):
    assert parse(file.read_text(), file.name).about.endswith(".")


def test_a_scenario_says_what_providers_do_and_what_is_asked():
    found = parse(
        """
about: A story.
providers:
  first: [{after: 2m, status: 429, error: {message: Slow down, code: "1302"}}, answer]
  zai: {stream: [begin, {text: Hel}, {pause: 40s}, cut]}
asks: [{model: x, stream: false}, {after: 1h}]
wants: error
""",
        "story.yaml",
    )
    first = Step(after=120.0, status=429, error=Problem("Slow down", code="1302"))
    zai = Step(stream=("begin", Piece(text="Hel"), Piece(pause=40.0), "cut"))
    asks = (Ask(model="x", stream=False), Ask(after=3600.0))
    assert found == Scenario("A story.", {"first": (first, "answer"), "zai": (zai,)}, asks, "error")


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("providers: {first: answer}", 'story.yaml:1: the key "about" is missing (at $)'),
        ("about: x\nprovider: {}", 'story.yaml:2: unknown key "provider", did you mean "providers"? (at $)'),
        ("about: x\nproviders: {first: anwser}", 'did you mean "answer"? (at $.providers.first)'),
        ("about: x\nproviders: {first: {after: soon}}", "expected a duration such as 300ms"),
        ("about: x\nproviders: {first: {body: a, stream: [end]}}", "give either body or stream"),
        ("about: x\nproviders: {first: {stream: [{text: a, pause: 1s}]}}", "a piece of a stream is one of"),
        ("about: x\nasks: []", "this list is empty"),
        ("about: [", "story.yaml:1: "),
    ],
)
def test_errors_name_line_and_place(written, fault):
    with pytest.raises(ScenarioError) as caught:
        parse(written, "story.yaml")
    assert fault in str(caught.value)


def test_the_users_own_stand_beside_the_rules_and_win(tmp_path):
    folder = tmp_path / "scenarios"
    folder.mkdir()
    (folder / "mine.yaml").write_text("about: Mine.")
    (folder / "down.yaml").write_text("about: Another one.")
    found = {one.name: one.scenario.about for one in format.chosen((), tmp_path / "rules.yaml")}
    assert found["mine"] == "Mine."
    assert found["down"] == "Another one."
    assert "overloaded" in found
    (named,) = format.chosen([str(folder / "mine.yaml")], Path("elsewhere/rules.yaml"))
    assert named.name == "mine"


def test_all_faults_are_reported_at_once(tmp_path):
    (tmp_path / "bad.yaml").write_text("about: [")
    with pytest.raises(ScenarioError) as caught:
        format.chosen(["ovrloaded", str(tmp_path / "bad.yaml"), "none.yaml"], tmp_path / "rules.yaml")
    lines = str(caught.value).splitlines()
    assert lines[0] == 'unknown scenario "ovrloaded", did you mean "overloaded"?'
    assert lines[1].startswith(f"{tmp_path / 'bad.yaml'}:1: ")
    assert lines[2] == "none.yaml cannot be read: No such file or directory"


def test_unknown_name_is_wrong_usage_and_a_broken_file_is_not(tmp_path):
    (tmp_path / "rules.yaml").write_text("")
    (tmp_path / "bad.yaml").write_text("about: [")
    for name, code in (("ovrloaded", 2), (str(tmp_path / "bad.yaml"), 1)):
        done = CliRunner().invoke(command, [name, "--rules", str(tmp_path / "rules.yaml")])
        assert (done.exit_code, done.stdout) == (code, "")


def test_list_as_json_has_names_and_what_they_are_about(tmp_path):
    (tmp_path / "rules.yaml").write_text("")
    done = CliRunner().invoke(
        command, ["overloaded", "--list", "--json", "--rules", str(tmp_path / "rules.yaml")]
    )
    (one,) = json.loads(done.stdout)
    assert one["scenario"] == "overloaded"
    assert one["about"]


def test_what_the_rules_do_not_have_is_reported():
    from signalbox.config.rules import Rules

    named = Named("mine", Scenario("x", {"zia": ("answer",)}, (Ask(client="ann"),)))
    with pytest.raises(ScenarioError, match='mine: unknown client "ann"\nmine: unknown provider "zia"'):
        play(Rules(), [named], 8082)


def test_times_in_texts_are_filled_in():
    text = format.with_times("a {epoch 0s} b {iso 2h} c {time 1d} {other 2h}")
    assert re.fullmatch(
        r"a \d{10} b \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ c \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \{other 2h\}", text
    )


def test_providers_reply_by_name_or_by_the_order_in_which_they_are_asked():
    cast = Cast({"first": ("silence", "whole"), "zai": ("refused", "answer"), "others": ("refused",)})
    assert cast.is_refused("zai")
    assert not cast.is_refused("zai")
    assert cast.reply("kimi") == "silence"
    assert cast.reply("kimi") == "whole"
    assert cast.reply("kimi") == "whole"
    assert cast.is_refused("glm")
    assert cast.is_refused("glm")
    assert cast.reply("zai") == "answer"


def test_each_rule_that_a_tier_leads_to_is_asked_once():
    from signalbox.config.load import parse as rules_of

    text = """
providers: {a: {url: "http://a.invalid"}}
rules: [{match: "*haiku*", to: a}, {match: "*", to: a}]
"""
    rules = rules_of(text, file=Path("rules.yaml"), environ={})
    assert models_of(rules, (Ask(),)) == ["claude-haiku-4-5", "claude-sonnet-4-5"]
    assert models_of(rules, (Ask(model="x"),)) == [""]


@pytest.mark.parametrize("struct", [Scenario, Step, Piece, Ask], ids=lambda struct: struct.__name__)
def test_the_tables_of_the_docs_have_all_keys(struct):
    table = re.search(rf"^<!-- keys: {struct.__name__} -->\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert table
    named = {key for row in table[1].splitlines() for key in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == set(struct.__struct_fields__)
