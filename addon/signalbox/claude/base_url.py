"""Writes ANTHROPIC_BASE_URL into Claude Code's settings.json, and takes exactly that out again.

The edit is a splice: all other bytes of the file stay as they are, also those that another program changes.
The value before is noted in the state folder, so that it can be put back.
"""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec

from signalbox.anthropic.json_edit import BodyError, Edit, Span, delete_items, members, splice
from signalbox.config import files
from signalbox.state import atomic_file

NAME = "ANTHROPIC_BASE_URL"
NOTE = "base-url.json"
"""In the state folder: what was written, and where."""


class SettingsError(Exception):
    """The settings cannot be changed, and were not. The text is one line for people."""


class Note(msgspec.Struct, frozen=True):
    """What was done to a settings file."""

    file: str
    url: str
    previous: str | None = None
    """The JSON of the value that there was before."""
    made_env: bool = False
    made_file: bool = False
    made_folder: bool = False


# pure


def with_url(raw: bytes, url: str) -> tuple[bytes, Note]:
    """The settings with this base URL, and a note whose `file` is empty. Raises BodyError for what is no JSON
    object with, if there is one, an object `env`."""
    value = msgspec.json.encode(url)
    root = _root(raw)
    if "env" not in root:
        gap = _gap(raw, 0, root)
        deeper = gap + gap.rpartition(b"\n")[2] if b"\n" in gap else b""
        env = b'"env": {%b%b%b}' % (deeper, _member(value), gap if deeper else b"")
        return splice(raw, [_first(raw, 0, root, env)]), Note("", url, made_env=True)
    env_at = root["env"]
    inner = members(raw, env_at.value, env_at.end)
    if NAME in inner:
        at = inner[NAME]
        previous = raw[at.value : at.end].decode()
        return splice(raw, [Edit(at.value, at.end, value)]), Note("", url, previous)
    return splice(raw, [_first(raw, env_at.value, inner, _member(value))]), Note("", url)


def without_url(raw: bytes, note: Note) -> bytes:
    """The settings as they were before `with_url`, with what was changed in them since. The same object if
    they have another base URL by now. Raises BodyError."""
    root = _root(raw)
    env_at = root.get("env")
    if env_at is None:
        return raw
    inner = members(raw, env_at.value, env_at.end)
    at = inner.get(NAME)
    if at is None or msgspec.json.decode(raw[at.value : at.end]) != note.url:
        return raw
    if note.previous is not None:
        return splice(raw, [Edit(at.value, at.end, note.previous.encode())])
    if note.made_env and len(inner) == 1:
        return splice(raw, delete_items(list(root.values()), {list(root).index("env")}))
    return splice(raw, delete_items(list(inner.values()), {list(inner).index(NAME)}))


def _root(raw: bytes) -> dict[str, Span]:
    """The members of the settings, which may begin with a byte order mark. Raises BodyError."""
    return members(raw, len(raw) - len(files.without_bom(raw)))


def _member(value: bytes) -> bytes:
    return b'"%b": %b' % (NAME.encode(), value)


def _first(raw: bytes, start: int, places: dict[str, Span], member: bytes) -> Edit:
    """Inserts a member as the first one of the object at `start`, spaced like the one that was first."""
    if not places:
        at = raw.index(b"{", start) + 1
        return Edit(at, at, member)
    at = next(iter(places.values())).start
    return Edit(at, at, member + b"," + _gap(raw, start, places))


def _gap(raw: bytes, start: int, places: dict[str, Span]) -> bytes:
    """The white space before the first member of the object at `start`."""
    if not places:
        return b""
    return raw[raw.index(b"{", start) + 1 : next(iter(places.values())).start]


# acting


def set_base_url(settings: Path, url: str, state: Path) -> None:
    """Writes the base URL into this file, which is made if need be. Raises SettingsError."""
    made_folder, made_file = not settings.parent.exists(), not settings.exists()
    before = _noted(state)
    try:
        raw = b'{\n  "env": {}\n}\n' if made_file else files.read_file(settings)
        after, note = with_url(raw, url)
        note = msgspec.structs.replace(
            note,
            file=str(settings),
            made_env=note.made_env or made_file,
            made_file=made_file,
            made_folder=made_folder,
        )
        if before is not None and before.file == note.file and _is(note.previous, before.url):
            note = msgspec.structs.replace(before, url=url)
        atomic_file.replace(state / NOTE, msgspec.json.encode(note))
        _replace(settings, after)
    except BodyError as error:
        raise SettingsError(f"{settings} is left as it is: {error}") from None
    except OSError as error:
        raise SettingsError(f"{settings} cannot be changed: {error.strerror or error}") from None


def unset_base_url(state: Path) -> Path | None:
    """Takes out what `set_base_url` wrote; gives the settings file, or None where nothing was written or the
    user has another base URL by now. Raises SettingsError."""
    note = _noted(state)
    if note is None:
        return None
    settings, changed = Path(note.file), False
    try:
        if settings.exists():
            raw = files.read_file(settings)
            after = without_url(raw, note)
            changed = after is not raw
            if note.made_file and changed and not _root(after):
                settings.unlink()
                if note.made_folder:
                    with suppress(OSError):  # there is something else in it
                        settings.parent.rmdir()
            elif changed:
                _replace(settings, after)
        (state / NOTE).unlink()
    except BodyError as error:
        raise SettingsError(f"{settings} is left as it is: {error}") from None
    except OSError as error:
        raise SettingsError(f"{settings} cannot be changed: {error.strerror or error}") from None
    return settings if changed else None


def _noted(state: Path) -> Note | None:
    with suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(files.read_file(state / NOTE), type=Note)
    return None


def _is(previous: str | None, url: str) -> bool:
    return previous is not None and msgspec.json.decode(previous) == url


def _replace(settings: Path, data: bytes) -> None:
    """Atomically. The mode stays, and a symbolic link leads to the new content. Raises OSError."""
    target = settings.resolve()
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, written = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as new:
            new.write(data)
        if target.exists():
            shutil.copymode(target, written)
        Path(written).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(written).unlink()
        raise
