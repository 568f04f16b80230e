"""JSON Schemas of tools, and the regular expressions in them."""

import json
import re
from collections.abc import Iterator
from time import perf_counter, process_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalbox.openai.schemas import (
    ANCHORED,
    GEMINI,
    GRAMMAR,
    KIMI,
    MISTRAL,
    PLAIN,
    PORTABLE,
    VLLM,
    SchemaRules,
    cleaned,
    is_readable,
    is_strict,
    parameters,
)

RULES = {"plain": PLAIN, "grammar": GRAMMAR, "gemini": GEMINI, "kimi": KIMI, "mistral": MISTRAL, "vllm": VLLM}
STRING = {"type": "string"}
TREE = {
    "type": "object",
    "properties": {"root": {"$ref": "#/$defs/Node"}},
    "$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}, "name": STRING}}},
}
ANY = {"type": "object", "properties": {}}


def _properties(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
@pytest.mark.parametrize(
    "schema", [None, True, 5, "x", [], {}, {"type": "string"}, {"type": "object"}], ids=str
)
def test_the_root_is_always_an_object(schema, rules):
    assert parameters(schema, rules) == ANY


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_a_schema_that_all_providers_take_is_unchanged(rules):
    schema = {**_properties(path={"type": "string", "description": "Where"}), "required": ["path"]}
    assert parameters(schema, rules) == schema
    assert list(parameters(schema, rules)) == list(schema)


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_alternatives_at_the_root_become_one_object(rules):
    a, b = {**_properties(a=STRING), "required": ["a"]}, _properties(b={"type": "integer"})
    assert parameters({"anyOf": [a, b]}, rules) == _properties(a=STRING, b={"type": "integer"})
    assert parameters({**_properties(c=STRING), "oneOf": [a]}, rules) == _properties(a=STRING, c=STRING)


def test_a_reference_at_the_root_is_followed():
    named = {"$ref": "#/$defs/Args", "$defs": {"Args": _properties(a=STRING)}}
    assert parameters(named, PLAIN) == _properties(a=STRING)


def test_openai_takes_references_and_all_keywords():
    schema = {"$schema": "x", **TREE, "additionalProperties": False}
    assert parameters(schema, PLAIN) == schema
    assert cleaned(schema, PLAIN) == schema


def test_no_one_takes_the_format_uri():
    assert parameters(_properties(url={"type": "string", "format": "uri"}), PLAIN) == _properties(url=STRING)


@pytest.mark.parametrize("rules", [GEMINI, KIMI, MISTRAL], ids=["gemini", "kimi", "mistral"])
def test_references_are_replaced_and_circles_end(rules):
    node = _properties(next={"type": "object"}, name=STRING)
    assert parameters(TREE, rules) == _properties(root=node)


@pytest.mark.parametrize("ref", ["#/nowhere", "#/type", "https://example.com/schema.json", "", "#a"])
def test_a_reference_to_nowhere_is_any_object(ref):
    assert parameters(_properties(a={"$ref": ref}), KIMI) == _properties(a={"type": "object"})


def test_keywords_beside_a_reference_stay():
    schema = {
        **_properties(a={"$ref": "#/definitions/A~1B", "description": "Mine"}),
        "definitions": {"A/B": STRING},
    }
    assert parameters(schema, MISTRAL) == _properties(a={"type": "string", "description": "Mine"})


def test_properties_may_be_called_as_keywords_are():
    schema = _properties(
        **{"$ref": STRING, "definitions": STRING, "additionalProperties": STRING, "enum": STRING}
    )
    for rules in RULES.values():
        assert parameters(schema, rules) == schema


def test_kimi_gets_a_type_for_each_property():
    schema = _properties(
        a={},
        b={"enum": [1, 2]},
        c={"properties": {}},
        d={"items": {}},
        e={"enum": ["x", 1]},
        f=True,
        g={"const": 5},
        h={"enum": [1, None]},
    )
    assert parameters(schema, KIMI)["properties"] == {
        "a": STRING,
        "b": {"enum": [1, 2], "type": "integer"},
        "c": ANY | {"properties": {}},
        "d": {"items": STRING, "type": "array"},
        "e": {"enum": ["x", 1], "type": "string"},
        "f": STRING,
        "g": {"const": 5, "type": "integer"},
        "h": {"enum": [1, None], "type": "integer"},
    }


NEEDS_ITEMS = [
    {"type": "array"},
    {"type": ["array", "null"]},
    {"type": "array", "items": True},
    {"type": "array", "items": []},
]


@pytest.mark.parametrize(
    "rules", [PLAIN, GRAMMAR, MISTRAL, VLLM], ids=["plain", "grammar", "mistral", "vllm"]
)
@pytest.mark.parametrize("schema", NEEDS_ITEMS, ids=str)
def test_an_array_has_a_schema_for_its_items(schema, rules):
    told = _properties(
        a=schema, b=_properties(c=schema), d={"anyOf": [schema]}, e={"type": "array", "items": schema}
    )
    whole = {**schema, "items": {}}
    assert parameters(told, rules) == _properties(
        a=whole, b=_properties(c=whole), d={"anyOf": [whole]}, e={"type": "array", "items": whole}
    )


@pytest.mark.parametrize("rules", [GEMINI, KIMI], ids=["gemini", "kimi"])
def test_items_of_an_array_have_a_type_if_each_schema_needs_one(rules):
    sent = parameters(_properties(a={"type": "array"}), rules)
    assert sent == _properties(a={"type": "array", "items": STRING})


def test_items_by_place_become_alternatives():
    pair = {"type": "array", "items": [STRING, {"type": "integer"}]}
    assert parameters(_properties(a=pair), PLAIN) == _properties(
        a={"type": "array", "items": {"anyOf": [STRING, {"type": "integer"}]}}
    )


A, B = {"required": ["a"]}, {"required": ["b"]}


@pytest.mark.parametrize("word", ["anyOf", "oneOf", "allOf"])
def test_kimi_gets_the_type_in_the_alternatives(word):
    """https://github.com/MoonshotAI/kimi-code/issues/2661"""
    schema = {"type": "object", "properties": {"a": STRING}, word: [A, {"type": "null"}]}
    assert parameters(_properties(x=schema), KIMI)["properties"]["x"] == {
        "properties": {"a": STRING},
        word: [{"type": "object", **A}, {"type": "null"}],
    }


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        (
            {"anyOf": [A, {"items": STRING}]},
            {"anyOf": [{**A, "type": "object"}, {"items": STRING, "type": "array"}]},
        ),
        ({"anyOf": [{"minimum": 1}, {}]}, {"anyOf": [{"minimum": 1, "type": "number"}, {}]}),
        (
            {"type": "integer", "anyOf": [{"title": "any"}, {"minimum": 1}, True]},
            {
                "anyOf": [
                    {"title": "any", "type": "integer"},
                    {"minimum": 1, "type": "integer"},
                    {"type": "integer"},
                ]
            },
        ),
        (
            {"type": "object", "anyOf": [{"anyOf": [A, B]}, B]},
            {
                "anyOf": [
                    {"anyOf": [{"type": "object", **A}, {"type": "object", **B}]},
                    {"type": "object", **B},
                ]
            },
        ),
    ],
    ids=str,
)
def test_kimi_gets_no_type_that_an_alternative_does_not_have(schema, sent):
    assert parameters(_properties(x=schema), KIMI) == _properties(x=sent)


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_a_pattern_that_not_all_engines_read_is_moved_to_the_description(rules):
    pattern = r"^(?!__.*__$)[^\p{Cc}./[\]]{1,200}$"
    described = {"type": "string", "description": "The field.", "pattern": pattern}
    schema = _properties(a=described, b={"type": "array", "items": {"type": "string", "pattern": pattern}})
    words = f"Must match the regular expression {pattern}"
    assert parameters(schema, rules) == _properties(
        a={"type": "string", "description": f"The field.\n{words}"},
        b={"type": "array", "items": {"type": "string", "description": words}},
    )
    assert cleaned(schema, rules) == parameters(schema, rules)


def test_grammars_are_made_of_patterns_with_two_anchors_only():
    told = _properties(
        a={"type": "string", "pattern": "\\S"},
        b={"type": "string", "pattern": "^\\d{4}$"},
        c={"type": "string", "pattern": "^wf_[a-z0-9-]{6,}$"},
    )
    assert parameters(told, PLAIN) == told
    sent = parameters(told, GRAMMAR)["properties"]
    assert "pattern" not in sent["a"]
    assert sent["b"] == {"type": "string", "description": "Must match the regular expression ^\\d{4}$"}
    assert sent["c"] == told["properties"]["c"]


def test_long_bounds_go_into_the_description_where_grammars_are_made():
    """https://github.com/ggml-org/llama.cpp/issues/27087"""
    told = _properties(
        a={"type": "string", "maxLength": 524288, "description": "A script."},
        b={"type": "array", "items": STRING, "minItems": 1, "maxItems": 2000},
        c={"type": "string", "maxLength": 1999},
    )
    assert parameters(told, PLAIN) == told
    assert parameters(told, GRAMMAR) == _properties(
        a={"type": "string", "description": "A script.\nAt most 524288 characters"},
        b={"type": "array", "items": STRING, "minItems": 1, "description": "At most 2000 items"},
        c={"type": "string", "maxLength": 1999},
    )


def test_names_by_a_pattern_that_not_all_engines_read_are_allowed_in_words():
    told = {
        **_properties(),
        "patternProperties": {"^x-": STRING, "\\p{L}": STRING},
        "additionalProperties": False,
    }
    assert parameters(_properties(a=told), PLAIN)["properties"]["a"] == {
        **_properties(),
        "patternProperties": {"^x-": STRING},
        "description": "Names may match the regular expression \\p{L}",
    }


def test_parts_of_which_only_words_are_left_are_no_parts():
    """A built-in tool of Claude Code has such a schema; llama.cpp takes `allOf` for an object."""
    told = {"type": "string", "allOf": [{"pattern": "^[^\\n]*$"}, {"pattern": "^[\\s\\S]{0,300}$"}]}
    assert parameters(_properties(to=told), PLAIN) == _properties(to=told)
    sent = parameters(_properties(to=told), GRAMMAR)["properties"]["to"]
    assert {*sent} == {"type", "description"}
    assert all(part["pattern"] in sent["description"] for part in told["allOf"])


@pytest.mark.parametrize("rules", [MISTRAL, VLLM], ids=["mistral", "vllm"])
def test_some_refuse_additional_properties(rules):
    inner = {**_properties(), "additionalProperties": False}
    assert parameters(
        {**_properties(a=inner), "additionalProperties": False, "strict": True}, rules
    ) == _properties(a=_properties())


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        ({"type": ["string", "null"]}, {"type": "string", "nullable": True}),
        ({"type": ["string", "integer"]}, {"anyOf": [STRING, {"type": "integer"}]}),
        (
            {"anyOf": [STRING, {"type": "null"}], "default": "x"},
            {"type": "string", "default": "x", "nullable": True},
        ),
        (
            {"oneOf": [STRING, {"type": "integer"}], "title": "T"},
            {"title": "T", "anyOf": [STRING, {"type": "integer"}]},
        ),
        ({"allOf": [{"$ref": "#/$defs/N"}], "description": "D"}, {"type": "integer", "description": "D"}),
        ({"allOf": [_properties(a=STRING), _properties(b=STRING)]}, _properties(a=STRING, b=STRING)),
        (
            {"allOf": [{**_properties(a=STRING), "required": ["a"]}, {"required": ["a"]}], "required": ["b"]},
            {**_properties(a=STRING), "required": ["a"]},
        ),
        ({"const": "x"}, {"type": "string", "enum": ["x"]}),
        ({"const": 5}, {"type": "integer"}),
        ({"type": "integer", "enum": [1, 2]}, {"type": "integer"}),
        (
            {"type": ["string", "null"], "enum": ["x", None]},
            {"type": "string", "enum": ["x"], "nullable": True},
        ),
        ({"enum": [None]}, {"type": "string", "nullable": True}),
        ({"type": "null"}, {"type": "string", "nullable": True}),
        ({"type": "string", "format": "date-time"}, {"type": "string", "format": "date-time"}),
        ({"type": "string", "format": "email"}, STRING),
        ({"type": "integer", "format": "int64"}, {"type": "integer", "format": "int64"}),
        ({"type": "array"}, {"type": "array", "items": STRING}),
        ({"type": "array", "items": {"type": ["integer"]}}, {"type": "array", "items": {"type": "integer"}}),
        (
            {"type": "array", "items": [STRING, {"type": "integer"}]},
            {"type": "array", "items": {"anyOf": [STRING, {"type": "integer"}]}},
        ),
        ({"enum": ["", "fast"]}, {"type": "string", "enum": ["fast"]}),
        (
            {"anyOf": [{"type": "string", "enum": ["", "fast"]}, {"type": "integer"}]},
            {"anyOf": [{"type": "string", "enum": ["fast"]}, {"type": "integer"}]},
        ),
        ({"type": "string", "enum": [""]}, STRING),
        ({"type": "string", "enum": ["", None]}, {"type": "string", "nullable": True}),
        ({"const": ""}, STRING),
        (
            {"type": "object", "anyOf": [{"required": ["a"]}, {"minProperties": 1}]},
            {"anyOf": [{"type": "object", "required": []}, {"type": "object", "minProperties": 1}]},
        ),
        (
            {**_properties(a=STRING), "anyOf": [{"required": ["a"]}, _properties(b=STRING)]},
            _properties(a=STRING, b=STRING),
        ),
        (
            {"type": "string", "allOf": [{"pattern": "^a"}, {"pattern": "^b"}]},
            {"type": "string", "pattern": "^a", "description": "Must match the regular expression ^b"},
        ),
        (
            {**_properties(a=STRING), "required": ["b", "a", 5, [], "a"]},
            {**_properties(a=STRING), "required": ["a"]},
        ),
        ({"type": "integer", "exclusiveMinimum": 0, "minimum": 1}, {"type": "integer", "minimum": 1}),
        (
            {**_properties(), "patternProperties": {}, "propertyNames": {}, "additionalProperties": {}},
            _properties(),
        ),
    ],
    ids=str,
)
def test_gemini_has_fewer_words(schema, sent):
    told = {**_properties(x=schema), "$defs": {"N": {"type": "integer"}}}
    assert parameters(told, GEMINI) == _properties(x=sent)


SCHEMAS: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(
        [STRING, {"type": "null"}, {"type": ["array", "null"]}, {"const": 5}, {"enum": [[], 1]}, True, None]
    )
    | st.builds(lambda ref: {"$ref": ref}, st.sampled_from(["#", "#/$defs/a", "#/$defs/b", "#/x", "x"])),
    lambda inner: st.dictionaries(
        st.sampled_from(
            [
                "type",
                "items",
                "anyOf",
                "oneOf",
                "allOf",
                "required",
                "format",
                "enum",
                "not",
                "$ref",
                "const",
                "properties",
            ]
        ),
        inner
        | st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "type", "$ref"]), inner, max_size=2),
        max_size=4,
    ),
    max_leaves=12,
)


@pytest.mark.slow
@settings(max_examples=3 * settings.default.max_examples)
@given(SCHEMAS, SCHEMAS, SCHEMAS, st.sampled_from(list(RULES.values())))
def test_anything_becomes_a_schema(schema, first, second, rules):
    root = {**schema, "$defs": {"a": first, "b": second}} if isinstance(schema, dict) else schema
    sent = parameters(root, rules)
    assert sent["type"] == "object"
    json.dumps(cleaned(root, rules))
    if rules is GEMINI:
        for inner in _walk(sent):
            _check_for_gemini(inner)


def _walk(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", [])]
    for one in [*inner, schema["items"]] if "items" in schema else inner:
        yield from _walk(one)


def _check_for_gemini(schema: dict[str, Any]) -> None:
    assert GEMINI.allowed is not None
    assert schema.keys() <= GEMINI.allowed
    assert isinstance(schema.get("type"), str) or "anyOf" in schema, schema
    assert all(isinstance(value, str) for value in schema.get("enum", []))
    assert set(schema.get("required", [])) <= schema.get("properties", {}).keys()
    assert "items" in schema or schema.get("type") != "array"


def test_references_that_multiply_end():
    """Each names the next one twice: in full it would be a schema of 2 ** 60 parts."""
    names = [f"n{n}" for n in range(60)]
    defs: dict[str, Any] = {
        name: _properties(a={"$ref": f"#/$defs/{after}"}, b={"$ref": f"#/$defs/{after}"})
        for name, after in zip(names, [*names[1:], "end"], strict=True)
    }
    start = perf_counter()
    parameters({**_properties(x={"$ref": "#/$defs/n0"}), "$defs": defs}, GEMINI)
    assert perf_counter() - start < 2


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        ({**_properties(a=STRING), "required": ["a"], "additionalProperties": False}, True),
        ({**_properties(a=STRING), "required": ["a"]}, False),
        ({**_properties(a=STRING), "additionalProperties": False}, False),
        (STRING, True),
        ({"type": "array", "items": _properties()}, False),
        ({"anyOf": [STRING, _properties()]}, False),
    ],
)
def test_a_schema_is_strict_where_each_object_names_all_it_has(schema, strict):
    assert is_strict(schema) is strict


def test_rules_are_data():
    assert parameters(_properties(a={"x": 1}), SchemaRules(refused=frozenset({"x"}))) == _properties(a={})


def test_types_within_types_do_not_multiply():
    schema: dict[str, Any] = STRING
    for _ in range(40):
        schema = {"type": ["object", "array", "null"], "properties": {"a": schema}}
    assert len(json.dumps(parameters(_properties(a=schema), GEMINI))) < 10_000


def test_each_of_several_types_keeps_its_own_keywords():
    types = {"type": ["object", "integer", "array"]}
    several = _properties(a=STRING) | types | {"minimum": 3, "maxItems": 2}
    assert parameters(_properties(x=several), GEMINI)["properties"]["x"]["anyOf"] == [
        _properties(a=STRING),
        {"type": "integer", "minimum": 3},
        {"type": "array", "maxItems": 2, "items": STRING},
    ]


@pytest.mark.parametrize("word", ["unevaluatedItems", "unevaluatedProperties", "contentSchema"])
def test_schemas_in_seldom_used_places_are_cleaned_too(word):
    inner = {"type": "string", "pattern": r"\p{L}"}
    words = {"type": "string", "description": r"Must match the regular expression \p{L}"}
    assert parameters({**_properties(), word: inner}, SchemaRules())[word] == words
    told = {"dependencies": {"a": ["b"], "c": inner}}
    assert parameters({**_properties(), **told}, SchemaRules())["dependencies"] == {"a": ["b"], "c": words}


READ_BY_ALL = [
    "",
    "^$",
    r"\S",
    r"^\d{4}-\d{2}-\d{2}$",
    r"^[\w.+-]+@[\w-]+\.[a-z]{2,}$",
    r"^(?:a|b)*?c+?$",
    r"\bword\b",
    "^wf_[a-z0-9-]{6,}$",
    "^[!#$%&'*+._`|~0-9A-Za-z-]+$",
    r"^[^\n\r]*$",
    r"^[\s\S]{0,300}$",
    r"^https?:\/\/",
    "^ü{1,1000}$",
    r"[\]\[]",
]
READ_BY_SOME = [
    r"\p{L}",
    r"^[^\p{Cc}]+$",
    r"\P{Cc}",
    "^(?!__)",
    "(?=a)",
    "(?<=a)b",
    "(?<!a)b",
    "(?<name>a)",
    "(?P<name>a)",
    "(?i)a",
    "(?>a)",
    r"(a)\1",
    "[[a]",
    "[[:alpha:]]",
    "[a&&b]",
    "[a--b]",
    "[a||b]",
    r"[\w-.]",
    "[]a]",
    "[^]",
    "[]",
    "[z-a]",
    "a{1001}",
    "a{2,1}",
    "a++",
    "a**",
    "*a",
    "(a",
    "a)",
    "a{",
    "a}",
    "]",
    r"\A a \Z",
    r"\u00e9",
    r"\x41",
    r"\0",
    r"\cA",
    r"\e",
    "\\",
    "a\nb",
    "(" * 400 + ")" * 400 + "(",
    "a" * 2001,
]
READ_BY_GRAMMARS = [
    "^$",
    "^wf_[a-z0-9-]{6,}$",
    r"^v[0-9]+\.[0-9]+$",
    "^(one|two|three)$",
    "^#?[0-9A-Fa-f]{6}$",
]
NOT_BY_GRAMMARS = [
    r"\S",
    r"^\d{4}$",
    "[0-9]",
    "^[0-9]",
    "[0-9]$",
    "^.*$",
    '^"$',
    "^[^a]$",
    r"^[\d]$",
    r"^\w+$",
    "^(?:a)$",
    "^a+?$",
    "^a|b$",
    "^((a))$",
    r"^\\$",
]


@pytest.mark.parametrize("pattern", READ_BY_ALL)
def test_a_pattern_that_all_engines_read_is_portable(pattern):
    assert is_readable(pattern, PORTABLE)


@pytest.mark.parametrize("pattern", READ_BY_SOME, ids=lambda text: text[:20])
def test_a_pattern_that_only_some_engines_read_is_not_portable(pattern):
    assert not is_readable(pattern, PORTABLE)
    assert not is_readable(pattern, ANCHORED)


@pytest.mark.parametrize("pattern", READ_BY_GRAMMARS)
def test_patterns_for_grammars_are_anchored_and_spelled_out(pattern):
    assert is_readable(pattern, ANCHORED)
    assert is_readable(pattern, PORTABLE)


@pytest.mark.parametrize("pattern", NOT_BY_GRAMMARS)
def test_other_patterns_make_no_grammar(pattern):
    assert not is_readable(pattern, ANCHORED)


@given(st.text(st.sampled_from(r"^$.|?*+()[]{}\-/,019adDwSpP &~üé" + '"'), max_size=12))
def test_a_readable_pattern_is_a_regular_expression(pattern):
    for known in (PORTABLE, ANCHORED):
        if is_readable(pattern, known):
            re.compile(pattern)


@pytest.mark.parametrize("piece", ["a", "(a|", "[a-", "[a-z]", "a{1,", r"\d", "(a)*", "^(a|b)+", "[", "(?:"])
def test_any_pattern_is_looked_at_in_no_time(piece):
    start = process_time()
    for known in (PORTABLE, ANCHORED):
        for end in ("", "!\\"):
            is_readable("^" + piece * (1900 // len(piece)) + end, known)
    assert process_time() - start < 1
