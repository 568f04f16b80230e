"""Makes the JSON Schema of rules.yaml, for editors, from the types that the file is decoded into."""

import inspect
import json
from typing import Any, Literal

import msgspec

from .schema import RulesFile
from .typespec import TypeSpec, about, keys, specs

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


def schema_text() -> str:
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
    if not field.required:  # an empty value means that the key is not set
        taken = {"anyOf": [*taken.get("anyOf", [taken]), {"type": "null"}]}
    says = about(field.type)
    return {"description": says, **taken} if says else taken


def _any_of(kind: Any, parts: dict[str, Any]) -> dict[str, Any]:
    taken = [_written(spec, parts) for spec in specs(kind)]
    return taken[0] if len(taken) == 1 else {"anyOf": taken}


def _written(spec: TypeSpec, parts: dict[str, Any]) -> dict[str, Any]:
    if spec.reads:
        return dict(spec.reads.schema)
    if spec.kind is Any:
        return {}
    if spec.kind is Literal:
        return {"anyOf": [{"enum": list(spec.args)}, _VARIABLE]}
    if spec.kind is tuple:
        least = {"minItems": 1} if spec.not_empty else {}
        return {"type": "array", "items": _any_of(spec.args[0], parts), **least}
    if spec.kind is dict:
        key, value = spec.args
        return {
            "type": "object",
            "propertyNames": _any_of(key, parts),
            "additionalProperties": _any_of(value, parts),
        }
    return _reference(spec.kind, parts)


def _reference(kind: type[msgspec.Struct], parts: dict[str, Any]) -> dict[str, Any]:
    name = getattr(kind, "schema_name", kind.__name__)
    if name not in parts:
        parts[name] = {}  # found by its own parts, if they refer to it
        parts[name] = _struct(kind, parts)
    return {"$ref": f"#/$defs/{name}"}
