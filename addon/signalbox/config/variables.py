"""`${NAME}` and `${NAME:-default}` in what the user wrote, and `.env`, which may give the names values."""

import io
import re
from collections.abc import Mapping

import msgspec
from dotenv import parser

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


class Dotenv(msgspec.Struct, frozen=True):
    """What one `.env` file says: names with a value, taken as they stand, and the line (from 1) of each."""

    file: str = ".env"
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    ignored: tuple[int, ...] = ()
    """Lines that are neither a setting nor a comment."""


def from_dotenv(text: str, file: str = ".env") -> Dotenv:
    """Reads the text of the file of that name. Empty counts as unset, and the last setting of a name wins."""
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    ignored = []
    for found in parser.parse_stream(io.StringIO(text)):
        written = found.original.string
        line = found.original.line + written[: len(written) - len(written.lstrip())].count("\n")
        if found.error:
            ignored.append(line)
        elif found.key is not None:
            values[found.key], lines[found.key] = found.value or "", line
    return Dotenv(file, {name: value for name, value in values.items() if value}, lines, tuple(ignored))


def in_force(environ: Mapping[str, str], *files: Dotenv) -> dict[str, str]:
    """All names with a value: the environment wins over `files`, an earlier file over a later one."""
    settings = [file.values for file in reversed(files)]
    return {name: value for values in (*settings, environ) for name, value in values.items() if value}


def origins(environ: Mapping[str, str], *files: Dotenv) -> dict[str, str]:
    """`FILE:LINE` of each name whose value comes from one of the files."""
    found = {name: f"{file.file}:{file.lines[name]}" for file in reversed(files) for name in file.values}
    return {name: place for name, place in found.items() if not environ.get(name)}


def set_in(text: str, places: Mapping[str, str]) -> str:
    """` (ZAI_URL is set in .env:3)` for those names in `text` that `places` has; else nothing."""
    names = [found["name"] for found in _REFERENCE.finditer(text)]
    found = ", ".join(f"{name} is set in {places[name]}" for name in names if name in places)
    return f" ({found})" if found else ""
