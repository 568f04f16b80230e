"""The JSON Schema for editors."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from signalbox.config import jsonschema
from signalbox.config.load import parse

ROOT = Path(__file__).parents[2]
SCHEMA = jsonschema.schema()
JSON_TYPES = {
    "object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float),
    "null": type(None),
}  # fmt: skip


def accepts(schema: dict[str, Any], value: Any) -> bool:
    """As much of JSON Schema as ours uses."""
    if not schema:
        return True
    if "$ref" in schema:
        return accepts(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], value)
    if "anyOf" in schema:
        return any(accepts(one, value) for one in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    return _type_fits(schema, value) and {
        dict: _object_fits,
        list: lambda schema, value: (
            len(value) >= schema.get("minItems", 0) and all(accepts(schema["items"], item) for item in value)
        ),
        str: lambda schema, value: re.search(schema.get("pattern", ""), value) is not None,
        int: _number_fits,
        float: _number_fits,
    }.get(type(value), lambda schema, value: True)(schema, value)


def _type_fits(schema: dict[str, Any], value: Any) -> bool:
    types = schema.get("type", list(JSON_TYPES))
    types = [types] if isinstance(types, str) else types
    if isinstance(value, bool):
        return "boolean" in types
    return any(isinstance(value, JSON_TYPES[name]) for name in types)


def _number_fits(schema: dict[str, Any], value: float) -> bool:
    return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))


def _object_fits(schema: dict[str, Any], value: dict[str, Any]) -> bool:
    known, others = schema.get("properties", {}), schema.get("additionalProperties", {})
    return all(name in value for name in schema.get("required", ())) and all(
        accepts(known[key], item)
        if key in known
        else others is not False and accepts(schema.get("propertyNames", {}), key) and accepts(others, item)
        for key, item in value.items()
    )


def with_a(provider: str) -> str:
    return f"providers: {{a: {{url: https://h, {provider}}}}}"


def with_rule(rule: str) -> str:
    return f"rules: [{{match: x, to: a, {rule}}}]"


def test_the_committed_schema_is_fresh():
    assert (ROOT / "addon/rules.schema.json").read_text(encoding="utf-8") == jsonschema.schema_text()


def test_the_text_is_stable_and_ends_in_a_line():
    assert jsonschema.schema_text() == jsonschema.schema_text()
    assert jsonschema.schema_text().endswith("}\n")


SHIPPED = {ROOT / "rules.yaml", *(ROOT / "examples").glob("*.yaml")} - {ROOT / "examples" / "compose.yaml"}


@pytest.mark.parametrize("path", sorted(SHIPPED), ids=lambda p: p.name)
def test_shipped_rules_are_accepted_by_the_schema(path):
    assert accepts(SCHEMA, yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "text",
    [
        "",
        with_a("key: '${K}'"),
        with_a("key: {file: x}"),
        with_a("keys: [a, {command: [b, c]}]"),
        with_a("timeout: {idle: 5m, connect: 0}"),
        with_a("timeout: {idle: '${T}'}"),
        with_a("max_tokens: 8000"),
        with_a("max_tokens: {'*': 8k}"),
        with_a("models: list, beta: [x], headers: {X-A: 5, X-B: }, body: {set: {a: [1, {b: null}]}}"),
        with_a("api: '${API}'"),
        with_a("circuit:"),
        with_a("budget: {tokens: 50M, per: week}, quota: {redirect_at: {5h: 90}}"),
        with_rule("name: x"),
        'rules: [{match: {model: ["*x*"], stream: true, port: 80, quota: {a.7d: ">80"}}, to: a}]',
        "rules: [{match: ['*'], to: [[a, b/c], {provider: a, model: x}, {reject: 429, message: gone}]}]",
        "limits: {body: 10MB}\nfail: closed\npicker: true\nledger: sqlite\nlisten: {a: '127.0.0.1:80'}",
    ],
)
def test_schema_accepts_what_the_loader_accepts(text):
    assert accepts(SCHEMA, yaml.safe_load(text))


@pytest.mark.parametrize(
    "text",
    [
        with_a("models: [1, 2.5, {id: 3}], key: 5, long_context: [4], beta: [6], rename: {'*': 1}"),
        "providers: {'5': {url: https://h}}\nrules: [{match: 5, to: 5, name: true}]",
        with_a("key: x")
        + "\nrules: [{match: {quota: {a.7d: ' > 80 % '}, prompt: 404}, to: {provider: a, model: 5}}]",
        "clients: {a: 5, b: true}",
        with_a("key: x") + "\nrules: [{match: x, to: a, name: none-of-these}]",
        with_a("key: x") + "\nrules: [{match: x, to: a, name: '#b'}]",
        "week: {starts: Monday 00:00}\nfailover: {'on': [404, connect]}",
        "log: {file: 5, level: '${LEVEL:-info}'}\nui: {hosts: [Router.lan, 5]}",
    ],
)
def test_schema_and_loader_accept_the_same_plain_texts(text):
    assert parse(text, file=ROOT / "rules.yaml", environ={})
    assert accepts(SCHEMA, yaml.safe_load(text))


@pytest.mark.parametrize(
    "text",
    [
        "rulse: []",
        "providers: {a: {}}",
        "providers: {a.b: {url: https://h}}",
        "providers: {a: {url: ftp://h}}",
        with_a("api: opnai"),
        with_a("timeout: {idle: 5 minutes}"),
        with_a("timeout: {idle: 5}"),
        with_a("keys: []"),
        "rules: [{match: x}]",
        "rules: [{match: x, to: []}]",
        "rules: [{match: x, to: {reject: 200}}]",
        "rules: [{match: {modle: x}, to: a}]",
        with_a("max_tokens: 1.5"),
        "inspect: {keep: 2.5}",
        with_rule("name: none"),
        with_rule("name: '#2'"),
        "fail: never",
        "picker: maybe",
    ],
)
def test_schema_refuses_what_the_loader_refuses(text):
    assert not accepts(SCHEMA, yaml.safe_load(text))


@pytest.mark.parametrize("name", sorted(SCHEMA["$defs"].keys() - {"Price"}))
def test_every_key_is_described(name):
    part = SCHEMA["$defs"][name]
    assert part["description"]
    assert [key for key, value in part["properties"].items() if not value.get("description")] == []
