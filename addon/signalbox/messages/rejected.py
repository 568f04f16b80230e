"""What a provider's refusal says that it does not take: fields of the body and values of `anthropic-beta`.

The wordings are those of Anthropic (and of all who check with pydantic), serde, FastAPI, Google, OpenAI,
Go and JSON Schema, as reported by users of Claude Code behind such providers, for example in
https://github.com/anthropics/claude-code/issues/31033 (an extra input),
https://github.com/QuantumNous/new-api/issues/2975 (beta values) and
https://github.com/anthropics/claude-code/issues/63544 (a role).
"""

import re
from collections.abc import Collection, Iterator

from .betas import FIELDS
from .body import Body
from .errors import read_error
from .fields import SYSTEM, is_essential, without

_STATUSES = (400, 422)
_HEAD = 16 * 1024
_PATH = r"(?<![\w.])([A-Za-z_][\w.\[\]-]{0,200})"

_BETAS = re.compile(r"Unexpected value\(s\) (.{1,2000}?) for the `anthropic-beta` header")
_FIELD = re.compile(
    rf"{_PATH}: Extra inputs are not permitted"
    rf"|(?:{_PATH}: )?unknown (?:field|name) [`'\"]{_PATH}[`'\"]"
    r"|(?:unsupported|unknown|unrecognized)(?: request)? (?:parameter|argument|field)(?: supplied)?:? [`'\"]?"
    rf"{_PATH}"
    rf"|property [`'\"]{_PATH}[`'\"] is unsupported"
    rf"|[`'\"]{_PATH}[`'\"] (?:was|were) unexpected",
    re.IGNORECASE,
)
_LOCATION = re.compile(r"['\"]loc['\"]\s*:\s*[\[(]([^\])]{1,200})[\])]")
_VALUE = re.compile(
    rf"{_PATH}: (?:Input tag '(?P<tag>[^']{{1,80}})' found using '(?P<key>\w+)'"
    r"|unknown variant `(?P<variant>[^`]{1,80})`)"
)
_SENTENCES = (
    (re.compile(r"does not support the effort parameter"), "output_config.effort"),
    (re.compile(r"adaptive thinking is not supported"), "thinking.type=adaptive"),
    (re.compile(r"Unexpected role .?system|System messages are not allowed", re.IGNORECASE), SYSTEM),
)


def rejected_by(status: int, error: bytes, request: Body, sent: Collection[str]) -> frozenset[str]:
    """Fields as `fields.without` takes them, and values out of `sent`; empty where nothing is to be left out.

    `error` is the decoded body of the answer, `request` what it answers, `sent` the values of its
    `anthropic-beta`. Only what stands in the request is named, and never an essential field.
    """
    if status not in _STATUSES:
        return frozenset()
    text = _text(error)
    listed = {beta for found in _BETAS.finditer(text) for beta in _parts(found[1])}
    fields = {name for way in _ways(text) for name in _names(way, request)}
    stand = {name for name in fields if not is_essential(name) and without(request, {name})}
    return frozenset(stand | (listed & set(sent)))


def _text(error: bytes) -> str:
    """What it says; gateways put the error of another, in JSON, into their own."""
    told = read_error(error[:_HEAD])
    text = told[1] if told else error[:_HEAD].decode(errors="replace")
    return re.sub(r"\\+(['\"])", r"\1", text)


def _ways(text: str) -> Iterator[list[str]]:
    """Where the refused fields may stand, as the parts of names."""
    for found in _FIELD.finditer(text):
        above, path = (["", *filter(None, found.groups())])[-2:]
        yield _way(path)
        if above:
            yield _way(f"{above}.{path}")
    if "extra_forbidden" in text:
        yield from (_way(found[1]) for found in _LOCATION.finditer(text))
    for found in _VALUE.finditer(text):
        way, value = _way(found[1]), found["tag"] or found["variant"]
        if way[-1:] in (["role"], ["type"]):  # serde names the key, pydantic the object that has it
            yield [*way[:-1], f"{way[-1]}={value}"]
        else:
            yield [*way, f"{found['key'] or 'type'}={value}"]
    yield from (name.split(".") for sentence, name in _SENTENCES if sentence.search(text))


def _way(path: str) -> list[str]:
    """The parts of a path less indices and what stands for the body itself."""
    way = [part for part in _parts(path) if not part.isdigit()]
    return way[1:] if way[:1] in (["body"], ["request"]) else way


def _parts(path: str) -> list[str]:
    return re.findall(r"[\w-]+", path)


def _names(way: list[str], request: Body) -> Iterator[str]:
    """The field itself, or the one of a beta that it is. A bare key that is none of the body's own may be
    any of them."""
    *above, last = way or [""]
    known = [name for name in FIELDS if name.rpartition(".")[2] == last and _leads(above, name)]
    yield from known if known and (above or last not in request) else [".".join(way)]


def _leads(above: list[str], name: str) -> bool:
    """Whether the way has all parts of the name in their order; types may stand between them."""
    rest = iter(above)
    return not above or all(part in rest for part in name.split(".")[:-1])
