"""The JSON Schema of rules.yaml, for editors, from the types the file is decoded into."""

import inspect
import json
from typing import Any, Literal

import msgspec

from .schema import RulesFile
from .shapes import Shape, about, keys, shapes

_VARIABLE = {"type": "string", "pattern": r"\$\{"}


def schema() -> dict[str, Any]:
    parts: dict[str, Any] = {}
    root = _struct(RulesFile, parts)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Signalbox rules.yaml",
        **root,
        "$defs": dict(sorted(parts.items())),
    }


def text() -> str:
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _struct(kind: type[msgspec.Struct], parts: dict[str, Any]) -> dict[str, Any]:
    fields = keys(kind)
    return {
        "description": inspect.getdoc(kind),
        "type": ["object", "null"] if kind is RulesFile else "object",
        "properties": {name: _key(field, parts) for name, field in fields.items()},
        "required": [name for name, field in fields.items() if field.required],
        "additionalProperties": False,
    }


def _key(field: msgspec.structs.FieldInfo, parts: dict[str, Any]) -> dict[str, Any]:
    taken = _any_of(field.type, parts)
    if not field.required:  # nothing after the colon is the same as not given
        taken = {"anyOf": [*taken.get("anyOf", [taken]), {"type": "null"}]}
    says = about(field.type)
    return {"description": says, **taken} if says else taken


def _any_of(kind: Any, parts: dict[str, Any]) -> dict[str, Any]:
    taken = [_shape(shape, parts) for shape in shapes(kind)]
    return taken[0] if len(taken) == 1 else {"anyOf": taken}


def _shape(shape: Shape, parts: dict[str, Any]) -> dict[str, Any]:
    if shape.reads:
        return dict(shape.reads.schema)
    if shape.kind is Any:
        return {}
    if shape.kind is Literal:
        return {"anyOf": [{"enum": list(shape.args)}, _VARIABLE]}
    if shape.kind is list:
        least = {"minItems": 1} if shape.not_empty else {}
        return {"type": "array", "items": _any_of(shape.args[0], parts), **least}
    if shape.kind is dict:
        key, value = shape.args
        return {
            "type": "object",
            "propertyNames": _any_of(key, parts),
            "additionalProperties": _any_of(value, parts),
        }
    return _reference(shape.kind, parts)


def _reference(kind: type[msgspec.Struct], parts: dict[str, Any]) -> dict[str, Any]:
    if kind.__name__ not in parts:
        parts[kind.__name__] = {}  # stands for itself while its own parts are described
        parts[kind.__name__] = _struct(kind, parts)
    return {"$ref": f"#/$defs/{kind.__name__}"}
