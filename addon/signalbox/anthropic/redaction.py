"""Redacts text of providers: secrets in any spelling, and prompts that an error quotes."""

import re
from collections.abc import Iterable
from functools import lru_cache

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

_JSON_ESCAPE = re.compile(rb"\\{1,8}u00([0-7][0-9a-fA-F])")
_URL_ESCAPE = re.compile(rb"%(?:25){0,4}([0-7][0-9a-f])", re.IGNORECASE)
_HTML_ESCAPE = re.compile(rb"&#(?:0{0,4}(\d{1,3})|x0{0,4}([0-9a-f]{1,2}));", re.IGNORECASE)


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


def without_secrets(text: bytes, secrets: Iterable[str]) -> bytes:
    """`text` with `***` for each secret, also if characters of it are escaped as in JSON, URLs or HTML, or
    several times."""
    ordered = sorted(secrets, key=len, reverse=True)
    for secret in ordered:
        text = text.replace(secret.encode(errors="surrogateescape"), b"***")
    if not any(mark in text for mark in (b"\\", b"%", b"&#")):
        return text
    plain = _unescaped(text)
    for secret in ordered:
        if _may_be_spelled(secret, plain):
            text = _any_spelling(secret).sub(b"***", text)
    return text


def _may_be_spelled(secret: str, plain: bytes) -> bool:
    """Whether any spelling of the secret may occur. The full search takes 30 ms for a body of 170 KB."""
    is_plain = secret.isascii() and not any(mark in secret for mark in "\\%&")
    return not is_plain or secret.encode() in plain


def _unescaped(text: bytes) -> bytes:
    """The text without escapes of printable ASCII and without backslashes. Contains each secret in `text`;
    only for searching."""
    if b"u00" in text:
        text = _JSON_ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), text)
    if b"%" in text:
        text = _URL_ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), text)
    if b"&#" in text:
        text = _HTML_ESCAPE.sub(_char_of, text)
    return text.replace(b"\\", b"")


def _char_of(found: re.Match[bytes]) -> bytes:
    code = int(found[1]) if found[1] else int(found[2], 16)
    return bytes([code]) if code < 128 else found[0]


@lru_cache(64)
def _any_spelling(secret: str) -> re.Pattern[bytes]:
    return re.compile("".join(map(_spellings, secret)).encode(errors="surrogateescape"), re.IGNORECASE)


def _spellings(char: str) -> str:
    """A pattern for a character, plain or escaped; IGNORECASE holds for hexadecimal digits only."""
    code, in_url = ord(char), char.encode(errors="surrogateescape").hex()
    itself = f"(?-i:{re.escape(char)})"
    return "|".join(
        (
            rf"(?:\\{{0,8}}{itself}" if char in "/\"'\\" else f"(?:{itself}",
            rf"\\{{1,8}}u{code:04x}",
            "".join(f"%(?:25){{0,4}}{in_url[i : i + 2]}" for i in range(0, len(in_url), 2)),
            f"&#(?:0{{0,4}}{code}|x0{{0,4}}{code:x});)",
        )
    )
