"""JSON values as the types that they should have; what has another type counts as nothing."""

from typing import Any

type Object = dict[str, Any]


def as_object(value: object) -> Object:
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def as_objects(value: object) -> list[Object]:
    """Those that a list holds."""
    return [one for one in as_list(value) if isinstance(one, dict)]


def as_text(value: object) -> str:
    return value if isinstance(value, str) else ""
