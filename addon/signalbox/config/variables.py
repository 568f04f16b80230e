"""`${NAME}` and `${NAME:-default}` in what the user wrote, and `.env`, which may give the names values."""

import io
import re
from collections.abc import Mapping

import dotenv

_REFERENCE = re.compile(
    r"(?P<literal>\$\$\{)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>(?:(?!\$\{)[^}])*))?\}|(?P<bad>\$\{)"
)


class UnsetError(ValueError):
    """Raised where a name without default has no value."""


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """`text` with each `${NAME}` replaced and `$${` turned into `${`.

    Raises UnsetError, or ValueError where `${` is not followed by a name (and default) and `}`.
    """

    def value(found: re.Match[str]) -> str:
        if found["literal"]:
            return "${"
        if found["bad"]:
            raise ValueError("expected ${NAME} or ${NAME:-default} (write $${ for the two characters)")
        if found["name"] in variables:
            return variables[found["name"]]
        if found["default"] is None:
            raise UnsetError(f"{found['name']} is not set")
        return found["default"]

    return _REFERENCE.sub(value, text)


def from_dotenv(text: str) -> dict[str, str]:
    """The names that an `.env` file sets, taken as they stand."""
    values = dotenv.dotenv_values(stream=io.StringIO(text), interpolate=False)
    return {name: value for name, value in values.items() if value}


def in_force(environ: Mapping[str, str], from_file: Mapping[str, str]) -> dict[str, str]:
    """All names with a value: the environment wins over `.env`, and empty counts as unset."""
    return {**from_file, **{name: value for name, value in environ.items() if value}}
