"""Reduces the JSON Schemas of tools to the subset that each provider takes (openai-chat.md, 1).

References may be circular and may multiply what they name, so all work here is bounded.

Providers check `pattern` with engines that disagree: OpenAI and others with Python's `re`, some with RE2,
Rust's or JavaScript's (with and without its `u` flag). A pattern that one of them cannot read is a 400 for
the whole request, whether or not the tool is ever called, for example Unicode classes in a built-in tool of
Claude Code: https://github.com/anthropics/claude-code/issues/93029,
https://github.com/raine/claude-code-proxy/issues/142.

Engines that turn schemas into grammars know less: the pattern must be anchored at both ends and may hold no
escaped class (https://github.com/lmstudio-ai/lmstudio-bug-tracker/issues/2168), and a negated class or a dot
would match the quote that ends the string. Both pattern grammars below are lists of what is allowed.
"""

import re
from typing import Any

import msgspec

from signalbox.openai.incoming import Object, as_list, as_object, as_objects, as_text

_LONGEST_PATTERN = 2000
"""Characters; a longer pattern is not sent."""

_COUNT = r"(?:\d{1,3}|1000)"
"""RE2 refuses more: https://github.com/google/re2/wiki/Syntax"""
_TIMES = rf"[*+?]|\{{{_COUNT}(?:,{_COUNT}?)?\}}"

_ESCAPED = r"\\[dDsSwWnrtfv^$\\.*+?()\[\]{}|/]"
_IN_CLASS = r"(?:[^\\\[\]^&~|\x00-\x1f-]|&(?!&)|~(?!~)|\|(?!\|)|\\[nrtfv^$\\.*+?()\[\]{}|/-])"
"""One character. `[` and doubled `&`, `~`, `|` and `-` are operators in Rust, Java and JavaScript (`v`)."""
_CLASS = rf"\[\^?-?(?:{_IN_CLASS}(?:-{_IN_CLASS})?|\\[dDsSwW])*-?\]"
_REPEATED = rf"(?:[^\\^$.|?*+()\[\]{{}}\x00-\x1f]|[.)]|{_ESCAPED}|{_CLASS})(?:(?:{_TIMES})\??)?"

PORTABLE = re.compile(rf"(?:{_REPEATED}|\\[bB]|[\^$|]|\(\?:|\((?!\?))*+")
"""Patterns that all engines read alike."""

_LITERAL = r"[^\\\"^$.|?*+()\[\]{}\x00-\x1f]|\\[.^$*+?()\[\]{}|]"
_LISTED = r"\[-?(?:[^\\\"\[\]^\x00-\x1f-](?:-[^\\\"\[\]^\x00-\x1f-])?)+-?\]"
_PIECE = rf"(?:{_LITERAL}|{_LISTED})(?:{_TIMES})?"

ANCHORED = re.compile(rf"\^(?:{_PIECE}|\((?:{_PIECE}|\|)++\)(?:{_TIMES})?)*+\$")
"""Patterns that engines for grammars read too."""


def is_readable(pattern: str, known: re.Pattern[str]) -> bool:
    """Whether `known` (PORTABLE or ANCHORED) matches `pattern`, and it is well-formed."""
    if len(pattern) > _LONGEST_PATTERN or not known.fullmatch(pattern):
        return False
    try:
        re.compile(pattern)  # brackets in pairs, bounds and ranges in order
    except (re.error, RecursionError):
        return False
    return True


_ONE = frozenset(
    {
        "items", "additionalProperties", "additionalItems", "not", "contains", "propertyNames", "if", "then",
        "else", "unevaluatedItems", "unevaluatedProperties", "contentSchema",
    }
)  # fmt: skip
_SEVERAL = frozenset({"anyOf", "oneOf", "allOf", "prefixItems", "items"})
_NAMED = frozenset(
    {"properties", "patternProperties", "dependentSchemas", "dependencies", "$defs", "definitions"}
)
_BRANCHES = ("allOf", "anyOf", "oneOf")
_NOT_AT_ROOT = frozenset({*_BRANCHES, "enum", "const", "not"})
_STRING_FORMATS = ("enum", "date-time")
_PATTERN = "Must match the regular expression {}"
_NAMES = "Names may match the regular expression {}"
_BOUNDS = {
    "minLength": "At least {} characters",
    "maxLength": "At most {} characters",
    "minItems": "At least {} items",
    "maxItems": "At most {} items",
}
_HINTS = {
    "object": ("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
    "array": ("items", "minItems", "maxItems", "uniqueItems"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "string": ("minLength", "maxLength", "pattern", "format"),
}
"""Keywords that belong to one type only."""

_MOST_INLINED = 500
"""References followed in one schema; further ones become `{"type": "object"}`."""


class SchemaRules(msgspec.Struct, frozen=True, kw_only=True):
    """The subset of JSON Schema that a provider takes. The defaults are OpenAI's."""

    allowed: frozenset[str] | None = None
    """The only keywords it takes; None is all."""
    refused: frozenset[str] = frozenset()
    inlined: bool = False
    """Whether `$ref` is replaced by its target."""
    typed: bool = False
    """Whether each schema needs a `type`; with alternatives, each of them."""
    patterns: re.Pattern[str] = PORTABLE
    """The regular expressions it takes; others are moved to the description."""
    repeats: int | None = None
    """The highest bound of a length it takes; higher ones are moved to the description."""
    narrow: bool = False
    """One `type` each with `nullable`; `enum` and `format` of strings only; no `const`, `oneOf`, `allOf`."""


PLAIN = SchemaRules()
GEMINI = SchemaRules(
    allowed=frozenset(
        {
            "type", "format", "title", "description", "nullable", "enum", "items", "properties", "required",
            "minItems", "maxItems", "minimum", "maximum", "minLength", "maxLength", "minProperties",
            "maxProperties", "pattern", "example", "default", "anyOf", "propertyOrdering",
        }
    ),
    inlined=True,
    typed=True,
    narrow=True,
)  # fmt: skip
KIMI = SchemaRules(inlined=True, typed=True)
MISTRAL = SchemaRules(refused=frozenset({"$id", "$schema", "additionalProperties", "strict"}), inlined=True)
_MOST_REPEATED = 1999
"""Of llama.cpp; a built-in tool of Claude Code asks for at most 524288 characters:
https://github.com/lemonade-sdk/lemonade/issues/2691, https://github.com/ggml-org/llama.cpp/issues/27087"""
GRAMMAR = SchemaRules(patterns=ANCHORED, repeats=_MOST_REPEATED)
"""For servers that compile all tools into one grammar which constrains the model: llama.cpp, which LM Studio
and Ollama contain too, and which may run behind any URL."""
VLLM = SchemaRules(
    refused=frozenset({"additionalProperties", "strict"}), patterns=ANCHORED, repeats=_MOST_REPEATED
)


def parameters(schema: object, rules: SchemaRules) -> Object:
    """A tool's schema, which must describe an object; anything that is not a schema becomes any object.

    Alternatives at the root become one object with the properties of all, none of them required.
    """
    root = as_object(schema)
    if rules.inlined or "$ref" in root:
        root = _Inliner(root).inlined(root)
    branches = [branch for word in _BRANCHES for branch in as_objects(root.get(word))]
    kept = {key: value for key, value in root.items() if key not in _NOT_AT_ROOT}
    return _cleaned(_one_object(kept, branches), rules)


def _one_object(schema: Object, branches: list[Object]) -> Object:
    """One object with the properties of all alternatives, requiring none of theirs."""
    properties: Object = {}
    for branch in (*branches, schema):
        properties |= as_object(branch.get("properties"))
    return {**schema, "type": "object", "properties": properties}


def cleaned(schema: object, rules: SchemaRules) -> Object:
    """Any other schema, such as that of the answer."""
    root = as_object(schema)
    return _cleaned(_Inliner(root).inlined(root) if rules.inlined else root, rules)


def is_strict(schema: object) -> bool:
    """Whether every object in it requires all its properties and allows no others, which OpenAI requires for
    `strict: true`."""
    if isinstance(schema, list):
        return all(map(is_strict, schema))
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        unnamed = as_object(schema.get("properties")).keys() - {*map(str, as_list(schema.get("required")))}
        if unnamed or schema.get("additionalProperties") is not False:
            return False
    return all(map(is_strict, schema.values()))


class _Inliner:
    def __init__(self, root: Object) -> None:
        self._root = root
        self._followed = 0

    def inlined(self, schema: Any, within: tuple[str, ...] = ()) -> Any:
        """`within` are the references followed so far; following one of them again would be circular."""
        if not isinstance(schema, dict):
            return schema
        if isinstance(ref := schema.get("$ref"), str):
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            return self.inlined({**self._named_by(ref, within), **beside}, (*within, ref))
        return {
            key: self._value(key, value, within)
            for key, value in schema.items()
            if key not in ("$defs", "definitions")
        }

    def _value(self, key: str, value: Any, within: tuple[str, ...]) -> Any:
        if key in _NAMED and isinstance(value, dict):
            return {name: self.inlined(one, within) for name, one in value.items()}
        if key in _SEVERAL and isinstance(value, list):
            return [self.inlined(one, within) for one in value]
        return self.inlined(value, within) if key in _ONE else value

    def _named_by(self, ref: str, within: tuple[str, ...]) -> Object:
        self._followed += 1
        here, *steps = ref.split("/")
        target: Any = self._root if here == "#" else None
        if ref in within or self._followed > _MOST_INLINED:
            target = None
        for step in steps:
            name = step.replace("~1", "/").replace("~0", "~")
            target = target.get(name) if isinstance(target, dict) else None
        return target if isinstance(target, dict) else {"type": "object"}


def _cleaned(schema: Any, rules: SchemaRules, *, invents: bool = True) -> Object:
    """`invents`: whether a schema that needs a type and has none becomes a string."""
    schema = _narrowed(as_object(schema)) if rules.narrow else as_object(schema)
    schema = _with_items(_in_words(schema, rules))
    if rules.typed:
        schema = _typed_alternatives(schema)
    kept = {key: _value(key, value, rules) for key, value in schema.items() if _is_known(key, value, rules)}
    if rules.typed and not any(word in kept for word in ("type", *_BRANCHES)):
        kind = _type_of(kept) or ("string" if invents else "")
        kept |= {"type": kind} if kind else {}
    return _fitted(kept) if rules.narrow else _without_mere_words(kept)


def _in_words(schema: Object, rules: SchemaRules) -> Object:
    """Moves keywords that the provider would refuse into the description."""
    words, gone = [], set()
    if "pattern" in schema and not _is_readable(schema["pattern"], rules):
        gone.add("pattern")
        words += [_PATTERN.format(schema["pattern"])] if as_text(schema["pattern"]) else []
    for key, text in _BOUNDS.items():
        bound = schema.get(key)
        if rules.repeats is not None and isinstance(bound, int | float) and bound > rules.repeats:
            gone.add(key)
            words.append(text.format(bound))
    names = as_object(schema.get("patternProperties"))
    if strange := [name for name in names if not _is_readable(name, rules)]:
        words += map(_NAMES.format, strange)
        schema = schema | {"patternProperties": {n: one for n, one in names.items() if n not in strange}}
        gone |= {"additionalProperties"} if schema.get("additionalProperties") is False else set()
    return _described({key: value for key, value in schema.items() if key not in gone}, words)


def _is_readable(pattern: object, rules: SchemaRules) -> bool:
    return isinstance(pattern, str) and is_readable(pattern, rules.patterns)


def _described(schema: Object, words: list[str]) -> Object:
    texts = [text for text in (schema.get("description"), *words) if isinstance(text, str) and text]
    return schema | {"description": "\n".join(texts)} if words else schema


def _without_mere_words(schema: Object) -> Object:
    """Moves descriptions out of parts of `allOf` that have nothing else left."""
    parts = as_list(schema.get("allOf"))
    words = [as_text(part.get("description")) for part in as_objects(parts) if {*part} == {"description"}]
    if not words:
        return schema
    left = [part for part in parts if {*as_object(part)} != {"description"}]
    schema = {key: value for key, value in schema.items() if key != "allOf"}
    return _described(schema | ({"allOf": left} if left else {}), words)


def _with_items(schema: Object) -> Object:
    """Gives an array one schema for its items, which may be missing, or one for each position
    (`array schema missing items`: https://github.com/ogx-ai/ogx/pull/3602)."""
    kind, items = schema.get("type"), schema.get("items")
    if isinstance(items, dict) or not ("items" in schema or kind == "array" or "array" in as_list(kind)):
        return schema
    several = as_objects(items)
    return schema | {"items": several[0] if len(several) == 1 else {"anyOf": several} if several else {}}


def _typed_alternatives(schema: Object) -> Object:
    """Moves the type of a schema into its alternatives that have none
    (https://github.com/MoonshotAI/kimi-code/issues/2661)."""
    words = [word for word in _BRANCHES if as_list(schema.get(word))]
    if "type" not in schema or not words:
        return schema
    typed = {
        word: [{"type": schema["type"], **as_object(branch)} for branch in schema[word]] for word in words
    }
    return {key: typed.get(key, value) for key, value in schema.items() if key != "type"}


def _is_known(key: str, value: object, rules: SchemaRules) -> bool:
    if rules.allowed is not None:
        return key in rules.allowed
    return key not in rules.refused and (key, value) != ("format", "uri")


def _value(key: str, value: Any, rules: SchemaRules) -> Any:
    if key in _NAMED:
        return {
            # `dependencies` may list names of properties instead of holding schemas
            name: one if key == "dependencies" and isinstance(one, list) else _cleaned(one, rules)
            for name, one in as_object(value).items()
        }
    if key in _SEVERAL and isinstance(value, list):
        return [_cleaned(one, rules, invents=rules.narrow) for one in value]
    return _cleaned(value, rules) if key in _ONE and isinstance(value, dict) else value


def _type_of(schema: Object) -> str:
    """The type that the keywords of an untyped schema imply; else empty."""
    values = [schema["const"]] if "const" in schema else as_list(schema.get("enum"))
    if kinds := {type(value) for value in values if value is not None}:
        named = {int: "integer", bool: "boolean", float: "number"}
        return named.get(kinds.pop(), "string") if len(kinds) == 1 else "string"
    return next((kind for kind, words in _HINTS.items() if any(word in schema for word in words)), "")


def _narrowed(schema: Object) -> Object:
    """The same schema in the subset of Gemini, which is OpenAPI 3.0's."""
    schema = dict(schema)
    for part in as_objects(schema.pop("allOf", None)):
        schema = _merged(schema, _narrowed(part))
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    if None in as_list(schema.get("enum")):
        schema |= {"enum": [value for value in schema["enum"] if value is not None], "nullable": True}
    branches = as_objects(schema.pop("anyOf", None)) + as_objects(schema.pop("oneOf", None))
    if isinstance(types := schema.get("type"), list):
        branches = [_of_type(name, schema) for name in types] or branches
        schema = {key: value for key, value in schema.items() if key in ("title", "description")}
    elif types == "null":
        schema |= {"type": "string", "nullable": True}
    elif not isinstance(types, str):
        schema.pop("type", None)
    meant = [branch for branch in branches if branch.get("type") != "null"]
    nullable = {"nullable": True} if len(meant) < len(branches) else {}
    if len(meant) == 1:
        return _narrowed(_merged(schema, meant[0])) | nullable
    if meant and "properties" in schema and all(branch.get("type", "object") == "object" for branch in meant):
        return _one_object(schema, meant) | nullable
    if meant:
        return {**schema, "anyOf": meant} | nullable
    return schema | nullable


def _of_type(name: object, schema: Object) -> Object:
    """The schema for one type of several, without the keywords of the others, which would be repeated for
    each type at each level."""
    kind = "number" if name == "integer" else name
    others = {word for other, words in _HINTS.items() if other != kind for word in words}
    return {key: value for key, value in schema.items() if key not in others} | {"type": name}


def _merged(schema: Object, other: Object) -> Object:
    """Both schemas in one; `schema` wins where they disagree."""
    merged = other | schema
    if "pattern" in other and merged["pattern"] != other["pattern"]:
        merged = _described(merged, [_PATTERN.format(other["pattern"])])
    if "properties" in schema and "properties" in other:
        merged["properties"] = as_object(other["properties"]) | as_object(schema["properties"])
    if "required" in schema and "required" in other:
        merged["required"] = as_list(other["required"]) + as_list(schema["required"])
    return merged


def _fitted(schema: Object) -> Object:
    """Drops keywords that Gemini refuses for this `type`."""
    kind = schema.get("type")
    values = [value for value in as_list(schema.pop("enum", None)) if value != ""]
    if values and kind == "string" and all(isinstance(value, str) for value in values):
        schema["enum"] = values
    if kind == "string" and schema.get("format") not in _STRING_FORMATS:
        schema.pop("format", None)
    if (kind == "array" or "items" in schema) and not isinstance(schema.get("items"), dict):
        schema["items"] = next(iter(as_objects(schema.get("items"))), {"type": "string"})
    if "required" in schema:
        required = as_list(schema["required"])
        schema["required"] = [name for name in as_object(schema.get("properties")) if name in required]
    return schema
