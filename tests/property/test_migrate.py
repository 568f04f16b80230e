"""Any change of another router's configuration is refused, or becomes rules that can be read."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from signalbox.config.load import RulesError, parse
from signalbox.config.secrets import from_dotenv
from signalbox.migrate import source, writer
from signalbox.migrate.environment import Environment
from signalbox.migrate.form import Migration, SourceError
from tests.support.router_process import ROOT

INPUTS = {
    path.stem: re.split(r"^--- .+\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1]
    for path in (ROOT / "tests/golden/migrations").glob("*.txt")
}
ENVIRONMENTS = {
    name: text for name, text in INPUTS.items() if re.search(r"^(export )?[A-Z_0-9]+=", text, re.MULTILINE)
}
TREES = {
    name: yaml.safe_load(text) if "model_list" in text or "base_url:" in text else source.read_json(text)
    for name, text in INPUTS.items()
    if name not in ENVIRONMENTS and "CREATE TABLE" not in text
}
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 10**12),
    st.floats(allow_nan=True),
    st.text(max_size=20),
    st.sampled_from(["https://h.example/v1", "a,b", "a/b", "${X}", "os.environ/X", "*", "[", "1e400", "nan"]),
    st.lists(st.text(max_size=5), max_size=2),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of everything in it, also of what holds more."""
    keys = tree.keys() if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield (*path, key)
        yield from places(tree[key], (*path, key))


def readable(migration: Migration) -> None:
    """The rules may have faults, where values are such as no rule takes, but each has its line."""
    text = writer.rules_text(migration)
    variables = from_dotenv(writer.dotenv_text(migration.variables)).values
    assert variables == {name: value for name, value in migration.variables.items() if value}
    assert all(re.match(r"rules\.yaml:\d+: ", line) for line in faults(text, migration.variables))
    assert yaml.safe_load(text).keys() >= {"rules"}
    assert all("\n" not in writer.one_line(note) for note in migration.notes)


def faults(rules: str, variables: dict[str, str]) -> tuple[str, ...]:
    try:
        parse(
            rules, file=Path("rules.yaml"), environ={name: value or "x" for name, value in variables.items()}
        )
    except RulesError as error:
        return error.errors
    return ()


@given(st.sampled_from(sorted(TREES)), st.data())
@settings(max_examples=settings.default.max_examples * 4)
def test_a_changed_tree(name, data):
    tree = json.loads(json.dumps(TREES[name]))
    *above, last = data.draw(st.sampled_from(list(places(tree))))
    inner = tree
    for key in above:
        inner = inner[key]
    inner[last] = data.draw(values)
    try:
        migration = source.of_tree(tree)
    except SourceError:
        return
    readable(migration)


@given(st.sampled_from(sorted(ENVIRONMENTS)), st.data())
@settings(max_examples=settings.default.max_examples * 4)
def test_a_changed_environment(name, data):
    lines = ENVIRONMENTS[name].splitlines()
    place = data.draw(st.sampled_from([i for i, line in enumerate(lines) if "=" in line]))
    value = data.draw(values.map(str))
    lines[place] = f"{lines[place].partition('=')[0]}={writer.quoted(value)}"
    try:
        migration = source.of_environment(Environment("\n".join(lines)))
    except SourceError:
        return
    readable(migration)


@given(st.dictionaries(st.from_regex("[A-Z_]{1,9}", fullmatch=True), st.text(min_size=1), max_size=4))
def test_what_an_env_holds_is_read_as_it_was_written(variables):
    text = writer.dotenv_text(variables)
    assert from_dotenv(text).values == {name: value for name, value in variables.items() if value}
