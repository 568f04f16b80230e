"""Redacts text of providers: secrets in any spelling, and prompts that an error quotes."""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

_LINE = 200
_LONGEST = 4000
"""Characters of a text of any length that are looked at."""

_SECRET = re.compile(r"\bbearer\s+[^\s\"']+|sk-[^\s\"',]*|[\w.+=-]{36,}|\b[0-9a-f]{32,}", re.IGNORECASE)
_QUOTED = re.compile(
    r"(?<![\w\\])b?(?P<mark>\\*[\"'`])(?P<quoted>.*?)(?:(?<!\\)(?P=mark)(?!\w)|\Z)", re.DOTALL
)
_KEY = re.compile(
    r"\b(?:(?P<message>msg|message)|input|input_value|ctx|content|text|prompt|value|arguments)\\{0,8}[\"']?\s{0,9}[:=]\s{0,9}"
)
_INPUT_VALUE = re.compile(r"\binput(_value)?=(?:.(?!, input_type=))*.", re.DOTALL)
"""pydantic: `[type=string_type, input_value=['what was sent'], input_type=list]`."""

_ROUNDS = 4
"""How many times escapes are undone in what undoing them gave."""
_SHORTEST = 8
"""Characters of the shortest text that is searched for: of a secret where undoing escapes shortens it, and of
a prompt."""
_LONGEST_SAID = 200_000
"""Characters of a prompt in which the words of an error are looked for."""
_QUOTED_WORDS = 4
"""As many words in a row are a quote; fewer may stand in any two texts."""


def one_line(text: str) -> str:
    """One line of at most 200 characters for people, without keys, tokens and quoted input."""
    printable = "".join(char if char.isprintable() else " " for char in text[:_LONGEST])
    line = _unquoted(_SECRET.sub("***", " ".join(printable.split())))
    return line if len(line) <= _LINE else line[: _LINE - 1] + "…"


def _unquoted(text: str) -> str:
    """Replaces quotes from the request in an error by `…`: values of input fields, and quotes of several
    words. Names of fields, models and values stay."""
    text = _INPUT_VALUE.sub(r"input\1=…", text)

    keys = {found.end(): found["message"] is not None for found in _KEY.finditer(text)}
    input_from = next((end for end, is_message in keys.items() if not is_message), len(text))

    def shown(found: re.Match[str]) -> str:
        is_message = keys.get(found.start())
        is_shown = found.start() < input_from if is_message else len(found["quoted"].split()) < 2
        return found[0] if is_shown and is_message is not False else f"{found['mark']}…{found['mark']}"

    return _QUOTED.sub(shown, text)


def without_quotes_of(said: str, text: str) -> str:
    """`text` with `…` for `said`, and for each run of four or more words that stands in it. For an error that
    repeats a prompt without quotation marks."""
    known = " ".join(said[:_LONGEST_SAID].split())
    if not known:
        return text
    if len(known) >= _SHORTEST:
        text = text.replace(known, "…")
    words, kept, at = text.split(" "), list[str](), 0
    while at < len(words):
        end = at + _QUOTED_WORDS
        if end > len(words) or " ".join(words[at:end]) not in known:
            kept.append(words[at])
            at += 1
            continue
        while end < len(words) and " ".join(words[at : end + 1]) in known:
            end += 1
        kept.append("…")
        at = end
    return " ".join(kept)


def without_secrets(text: bytes, secrets: Iterable[str]) -> bytes:
    """`text` with `***` for each secret, also if characters of it are escaped as in JSON, URLs or HTML, or
    several times. Linear in the length of the text."""
    ordered = sorted(secrets, key=len, reverse=True)
    for secret in ordered:
        text = text.replace(_bytes(secret), b"***")
    if not any(mark in text for mark in (b"\\", b"%", b"&")):
        return text
    steps = _steps_for(frozenset().union(*ordered))
    plain = _unescaped(text, steps)
    for secret in ordered:
        wanted = _wanted(secret)
        if wanted is not None and wanted in plain:
            text = _blanked(text, secret, wanted, steps)
            plain = _unescaped(text, steps)
    return text


def signs_of(secrets: Iterable[str]) -> re.Pattern[bytes]:
    """Matches somewhere in each text in which `without_secrets` would find something to mask."""
    characters = frozenset[str]().union(*secrets)
    signs = [*map(_bytes, secrets), *(step.mark for step in _steps_for(characters)[:-1])]
    signs += (b"\\" + char.encode() for char in characters & set("/\"'\\"))
    return re.compile(b"|".join(map(re.escape, signs)))


def _bytes(secret: str) -> bytes:
    return secret.encode(errors="surrogateescape")


class _Step(NamedTuple):
    """One kind of escape."""

    mark: bytes
    """What is in each text that has such an escape."""
    pattern: re.Pattern[bytes]
    of: Callable[[re.Match[bytes]], bytes]
    """What the escape stands for."""


_ENTITIES = {b"amp": b"&", b"quot": b'"', b"apos": b"'", b"lt": b"<", b"gt": b">"}


def _steps_for(characters: frozenset[str]) -> tuple[_Step, ...]:
    """Those by which these characters may be written."""
    is_wide = any(not char.isascii() for char in characters)
    return _steps(is_wide=is_wide, has_names=not characters.isdisjoint("&\"'<>"))


@lru_cache(4)
def _steps(*, is_wide: bool, has_names: bool) -> tuple[_Step, ...]:
    """`is_wide`: characters beyond ASCII too, which texts in other languages have by the thousand;
    `has_names`: those that HTML has names for too, whose `&` code has by the thousand."""
    return (
        _Step(
            b"\\u" if is_wide else b"\\u00",
            re.compile(rb"\\{1,8}u([0-9a-fA-F]{4})" if is_wide else rb"\\{1,8}u(00[0-7][0-9a-fA-F])"),
            lambda found: _utf8(int(found[1], 16)),
        ),
        _Step(
            b"%",
            re.compile(rb"%(?:25){0,4}([0-9a-fA-F]{2})" if is_wide else rb"%(?:25){0,4}([0-7][0-9a-fA-F])"),
            lambda found: bytes([int(found[1], 16)]),
        ),
        _Step(
            b"&" if has_names else b"&#",
            re.compile(
                rb"&(?:#(?:0{0,4}(\d{1,5})|x0{0,4}([0-9a-f]{1,4}))|(amp|quot|apos|lt|gt));", re.IGNORECASE
            ),
            _of_html,
        ),
        _Step(b"\\", re.compile(rb"\\+"), lambda _: b""),
    )


def _of_html(found: re.Match[bytes]) -> bytes:
    if found[3]:
        return _ENTITIES[found[3].lower()]
    return _utf8(int(found[1]) if found[1] else int(found[2], 16))


def _utf8(code: int) -> bytes:
    return chr(code).encode(errors="surrogatepass")


def _unescaped(text: bytes, steps: tuple[_Step, ...]) -> bytes:
    """The text without escapes and backslashes, for searching only."""
    for _ in range(_ROUNDS):
        before = text
        for step in steps:
            if step.mark == b"\\":
                text = text.replace(b"\\", b"")
            elif step.mark in text:
                text = step.pattern.sub(step.of, text)
        if text == before:
            break
    return text


@lru_cache(256)
def _wanted(secret: str) -> bytes | None:
    """What is searched for in an unescaped text: a secret may itself hold what looks like an escape. None
    where so little is left of it that other texts would match."""
    wanted = _unescaped(_bytes(secret), _steps(is_wide=not secret.isascii(), has_names=True))
    return wanted if len(wanted) >= min(_SHORTEST, len(secret)) else None


class _Edit(NamedTuple):
    """What stands from `start` to `end` stood from `start_before` to `end_before`."""

    start: int
    end: int
    start_before: int
    end_before: int


def _blanked(text: bytes, secret: str, wanted: bytes, steps: tuple[_Step, ...]) -> bytes:
    """The text with `***` wherever it spells `wanted`."""
    edits = []
    plain = text
    for _ in range(_ROUNDS):
        before = plain
        for step in steps:
            if step.mark in plain:
                plain, made = _undone(plain, step)
                edits.append(made)
        if plain == before:
            break
    is_escaped = secret[0] in "/\"'\\"
    pieces, at = list[bytes](), 0
    for start, end in _places(wanted, plain):
        for made in reversed(edits):
            start, end = _start_before(made, start, is_escaped=is_escaped), _end_before(made, end)
        pieces += (text[at:start], b"***")
        at = end
        while secret.endswith("\\") and text[at : at + 1] == b"\\":
            at += 1
    return b"".join((*pieces, text[at:]))


def _undone(text: bytes, step: _Step) -> tuple[bytes, list[_Edit]]:
    pieces, edits, at, length = list[bytes](), list[_Edit](), 0, 0
    for found in step.pattern.finditer(text):
        start, end = found.span()
        said = step.of(found)
        pieces += (text[at:start], said)
        length += start - at
        edits.append(_Edit(length, length + len(said), start, end))
        length += len(said)
        at = end
    return b"".join((*pieces, text[at:])), edits


def _places(wanted: bytes, plain: bytes) -> Iterator[tuple[int, int]]:
    start = plain.find(wanted)
    while start >= 0:
        yield start, start + len(wanted)
        start = plain.find(wanted, start + len(wanted))


def _start_before(edits: list[_Edit], start: int, *, is_escaped: bool) -> int:
    """Where this character stood, or its escape; `is_escaped`: backslashes before it belong to it."""
    at = bisect_right(edits, start, key=lambda edit: edit.start) - 1
    if at < 0:
        return start
    edit = edits[at]
    if start < edit.end or (is_escaped and edit.start == edit.end == start):
        return edit.start_before
    return edit.end_before + start - edit.end


def _end_before(edits: list[_Edit], end: int) -> int:
    """The same for the end of a text."""
    at = bisect_right(edits, end - 1, key=lambda edit: edit.start) - 1
    if at < 0:
        return end
    edit = edits[at]
    return edit.end_before if end <= edit.end else edit.end_before + end - edit.end
