"""What README.md and docs/ say is so: YAML loads, commands exist, tables name the keys that there are."""

import re

import pytest

from signalbox.cli import COMMANDS
from signalbox.config import schema
from signalbox.config.load import parse
from tests.support.router_process import ROOT

PAGES = {path.name: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
README = PAGES["README.md"]
TEXT = "\n".join(PAGES.values())
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = [(name, *found) for name, page in PAGES.items() for found in FENCED.findall(page)]
YAML = [(name, text) for name, language, text in BLOCKS if language == "yaml"]
SHELL = "\n".join(text for _, language, text in BLOCKS if language == "sh")
INLINE = re.findall(r"`([^`\n]+)`", FENCED.sub("", TEXT))
RECIPES = set(re.findall(r"^([a-z]+)[^:=\n]*:(?!=)", (ROOT / "justfile").read_text(), re.MULTILINE))


def table(name: str) -> str:
    """The table under `<!-- keys: NAME -->`."""
    found = re.search(rf"^<!-- keys: {name} -->\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    assert found
    return found[1]


def keys(name: str) -> set[str]:
    """What the first column of a table names."""
    return {key for row in table(name).splitlines() for key in re.findall(r"`(\w+)`", row.split("|")[1])}


def recipes_in(text: str) -> set[str]:
    """The recipes that `just NAME` names, also after variables: `just port=8090 run`."""
    return set(re.findall(r"\bjust (?:\w+=\S+ )*([a-z]+)\b(?!=)", text))


KEYS = dict.fromkeys(re.findall(r"\$\{(\w+_(?:KEY|SECRET))\b", TEXT), "key-for-tests")


@pytest.mark.parametrize("text", [text for _, text in YAML], ids=[name for name, _ in YAML])
def test_its_rules_load(text):
    rules = parse(text, file=ROOT / "rules.yaml", environ=KEYS)
    assert rules.rules
    assert rules.warnings == ()


def test_its_recipes_exist():
    named = recipes_in("\n".join([SHELL, *INLINE]))
    assert named
    assert named <= RECIPES


def test_every_recipe_is_in_it():
    assert recipes_in(table("recipes")) == RECIPES


def test_its_commands_are_those_that_exist():
    assert set(re.findall(r"\| `signalbox ([a-z-]+)", TEXT)) == set(COMMANDS)
    assert set(re.findall(r"\bsignalbox ([a-z-]+)", "\n".join([SHELL, *INLINE]))) <= set(COMMANDS)


@pytest.mark.parametrize(
    ("struct", "parent"),
    [
        (schema.ProviderSpec, "providers.*."),
        (schema.RuleSpec, "rules.*."),
        (schema.Match, "rules.*.match."),
        (schema.RulesFile, ""),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_its_tables_hold_the_keys_that_are_in_effect(struct, parent):
    written = set(struct.__struct_encode_fields__)
    assert keys(getattr(struct, "schema_name", struct.__name__)) == written


def test_ci_runs_the_line_for_the_tests_with_the_checks_and_the_slow_tests():
    (line,) = [line for line in SHELL.splitlines() if line.endswith("just test")]
    install, _, test = line.partition(" && ")
    ci = (ROOT / ".ci/run").read_text()
    assert install in ci
    assert test.replace("test", "check test-all") in ci


@pytest.mark.parametrize("name", PAGES)
def test_the_files_it_leads_to_are_there(name):
    folder = ROOT if name == "README.md" else ROOT / "docs"
    led_to = re.findall(r"\]\((?!https:)([^)#]+)", PAGES[name])
    assert [path for path in led_to if not (folder / path).exists()] == []


@pytest.mark.parametrize("name", sorted(PAGES.keys() - {"README.md"}))
def test_readme_leads_to_every_page(name):
    assert f"](docs/{name})" in README


def test_its_first_screen_shows_rules_commands_and_a_picture():
    first = "\n".join(README.splitlines()[:30])
    assert "```yaml" in first
    assert "```sh" in first
    assert "![" in first


def test_every_test_that_the_page_on_security_names_is_there():
    named = re.findall(r"`(tests/\S+\.py)`", PAGES["security.md"])
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []
