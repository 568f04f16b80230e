"""JSON Schemas of tools, as far as each provider understands them (openai-chat.md, 1).

Everything here ends: references may go in circles, and may multiply what they name.
"""

from typing import Any

import msgspec

from signalbox.translate.shapes import Object, as_list, as_object, as_objects

_ONE = frozenset(
    {
        "items", "additionalProperties", "additionalItems", "not", "contains", "propertyNames", "if", "then",
        "else",
    }
)  # fmt: skip
_SEVERAL = frozenset({"anyOf", "oneOf", "allOf", "prefixItems", "items"})
_NAMED = frozenset({"properties", "patternProperties", "dependentSchemas", "$defs", "definitions"})
_BRANCHES = ("allOf", "anyOf", "oneOf")
_NOT_AT_ROOT = frozenset({*_BRANCHES, "enum", "const", "not"})
_STRING_FORMATS = ("enum", "date-time")

_MOST_INLINED = 500
"""References followed in one schema; any further one reads as any object."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider takes in `parameters`. The defaults are those of OpenAI."""

    allowed: frozenset[str] | None = None
    """The only keywords it knows; None is all."""
    refused: frozenset[str] = frozenset()
    inlined: bool = False
    """Whether `$ref` is replaced by what it names."""
    typed: bool = False
    """Whether each schema needs a `type`."""
    narrow: bool = False
    """One `type` each with `nullable`; `enum` and `format` of strings only; no `const`, `oneOf`, `allOf`."""


PLAIN = Rules()
GEMINI = Rules(
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
KIMI = Rules(inlined=True, typed=True)
MISTRAL = Rules(refused=frozenset({"$id", "$schema", "additionalProperties", "strict"}), inlined=True)
VLLM = Rules(refused=frozenset({"additionalProperties", "strict"}))


def parameters(schema: object, rules: Rules) -> Object:
    """A tool's schema, which must be that of an object; what is no schema is that of any object.

    Alternatives at the root become one object that has the properties of all and requires none of them.
    """
    root = as_object(schema)
    if rules.inlined or "$ref" in root:
        root = _Inliner(root).inlined(root)
    properties: Object = {}
    for word in _BRANCHES:
        for branch in as_objects(root.get(word)):
            properties |= as_object(branch.get("properties"))
    properties |= as_object(root.get("properties"))
    kept = {key: value for key, value in root.items() if key not in _NOT_AT_ROOT}
    return _cleaned({**kept, "type": "object", "properties": properties}, rules)


def cleaned(schema: object, rules: Rules) -> Object:
    """Any other schema, of an answer for example."""
    root = as_object(schema)
    return _cleaned(_Inliner(root).inlined(root) if rules.inlined else root, rules)


def is_strict(schema: object) -> bool:
    """Whether each object in it requires all its properties and allows no others, as OpenAI asks of a
    schema with `strict: true`."""
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
        """`within` are the references that lead here: one of them again would be a circle."""
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


def _cleaned(schema: Any, rules: Rules) -> Object:
    schema = _narrowed(as_object(schema)) if rules.narrow else as_object(schema)
    kept = {key: _value(key, value, rules) for key, value in schema.items() if _is_known(key, value, rules)}
    if rules.typed and not any(word in kept for word in ("type", *_BRANCHES)):
        kept["type"] = _type_of(kept)
    return _fitted(kept) if rules.narrow else kept


def _is_known(key: str, value: object, rules: Rules) -> bool:
    if rules.allowed is not None:
        return key in rules.allowed
    return key not in rules.refused and (key, value) != ("format", "uri")


def _value(key: str, value: Any, rules: Rules) -> Any:
    if key in _NAMED:
        return {name: _cleaned(one, rules) for name, one in as_object(value).items()}
    if key in _SEVERAL and isinstance(value, list):
        return [_cleaned(one, rules) for one in value]
    return _cleaned(value, rules) if key in _ONE and isinstance(value, dict) else value


def _type_of(schema: Object) -> str:
    """What an untyped schema most likely means."""
    if "properties" in schema:
        return "object"
    if "items" in schema:
        return "array"
    values = [schema["const"]] if "const" in schema else as_list(schema.get("enum"))
    kinds = {type(value) for value in values if value is not None}
    return {frozenset({int}): "integer", frozenset({bool}): "boolean", frozenset({float}): "number"}.get(
        frozenset(kinds), "string"
    )


def _narrowed(schema: Object) -> Object:
    """The same in the words of Gemini, which are those of OpenAPI 3.0."""
    schema = dict(schema)
    for part in as_objects(schema.pop("allOf", None)):
        schema = _merged(schema, _narrowed(part))
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    if None in as_list(schema.get("enum")):
        schema |= {"enum": [value for value in schema["enum"] if value is not None], "nullable": True}
    branches = as_objects(schema.pop("anyOf", None)) + as_objects(schema.pop("oneOf", None))
    if isinstance(types := schema.get("type"), list):
        branches = [{**schema, "type": name} for name in types] or branches
        schema = {key: value for key, value in schema.items() if key in ("title", "description")}
    elif types == "null":
        schema |= {"type": "string", "nullable": True}
    elif not isinstance(types, str):
        schema.pop("type", None)
    meant = [branch for branch in branches if branch.get("type") != "null"]
    nullable = {"nullable": True} if len(meant) < len(branches) else {}
    if len(meant) == 1:
        return _narrowed(_merged(schema, meant[0])) | nullable
    if meant:
        return {**schema, "anyOf": meant} | nullable
    return schema | nullable


def _merged(schema: Object, other: Object) -> Object:
    """Both at once; where they disagree the first."""
    merged = other | schema
    if "properties" in schema and "properties" in other:
        merged["properties"] = as_object(other["properties"]) | as_object(schema["properties"])
    if "required" in schema and "required" in other:
        merged["required"] = as_list(other["required"]) + as_list(schema["required"])
    return merged


def _fitted(schema: Object) -> Object:
    """Without what Gemini refuses beside this `type`."""
    kind = schema.get("type")
    values = as_list(schema.pop("enum", None))
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
