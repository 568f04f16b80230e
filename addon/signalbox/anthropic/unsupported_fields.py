"""Reads from an error what a provider does not support: fields of the body and values of `anthropic-beta`.

The wordings are those of Anthropic (and others that validate with pydantic), serde, FastAPI, Google, OpenAI,
Go and JSON Schema, as users of Claude Code reported them for such providers, for example in
https://github.com/anthropics/claude-code/issues/31033 (an extra input),
https://github.com/QuantumNous/new-api/issues/2975 (beta values) and
https://github.com/anthropics/claude-code/issues/63544 (a role).
Values of effort: https://github.com/router-for-me/CLIProxyAPI/issues/1307 and 1572,
https://github.com/mistralai/mistral-vibe/issues/1117, https://github.com/musistudio/claude-code-router/issues/1238.
"""

import re
from collections.abc import Collection, Iterator

from .betas import FIELDS
from .errors import read_error
from .field_paths import SYSTEM, edits_without, is_essential
from .json_edit import Body

STATUSES = (400, 422)
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
    (re.compile(r"does not support (?:thinking|reasoning)\b", re.IGNORECASE), "reasoning_effort"),
    (re.compile(r"does not support (?:thinking|reasoning)\b", re.IGNORECASE), "reasoning"),
    (
        re.compile(
            r"does not support (?:parameter )?.?reasoning_?effort"
            r"|reasoning_?effort.? (?:parameter )?is not (?:supported|enabled)",
            re.IGNORECASE,
        ),
        "reasoning_effort",
    ),
    (
        re.compile(r"temperature['\"`]?:? (?:does not support|only 1)", re.IGNORECASE),
        "temperature",
    ),
)

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""All known values of effort, lowest first."""
_EFFORT_FIELDS = ("reasoning_effort", "reasoning.effort", "thinking.effort", "output_config.effort")
_IS_OF_EFFORT = re.compile(r"effort|reasoning|think|\blevel", re.IGNORECASE)
_NOT_TAKEN = re.compile(
    r"unsupported|not support|invalid|unknown|unexpected|unrecognized|not (?:a )?valid|not allowed",
    re.IGNORECASE,
)
_WORD = rf"['\"`]?\b(?:{'|'.join(EFFORTS)})\b['\"`]?"
_TAKEN = re.compile(
    r"(?<!not )(?<![a-z])"
    r"(?:supported|supports|valid|allowed|accepted|available|expected|must be|should be|one of)\b"
    rf"[^.;\n]{{0,60}}?((?:{_WORD}(?: \(default\))?[\s,|/]*(?:or\s|and\s)?\s*)+)",
    re.IGNORECASE,
)
"""A list of the values that are supported."""
_MANDATORY = re.compile(
    r"(?:reasoning|thinking)\b.{0,60}"
    r"(?:is mandatory|is required|(?:cannot|can't|can not) be (?:disabled|turned off))",
    re.IGNORECASE,
)

_IMAGE_STATUSES = (*STATUSES, 404, 500)
"""404 is OpenRouter's, 500 llama.cpp's."""
_MODEL_END = r"(?=\s*(?:$|[.,;:!()'\"\]}-]|(?:by|for|with|on) (?:this|the|that|your)\b))"
_NO_IMAGES = re.compile(
    r"do(?:es)?(?: not|n't) support (?:any )?(?:images?|vision|multi-?modal)"
    rf"(?: (?:inputs?|content|understanding))?{_MODEL_END}"
    r"|no endpoints found that support image"
    rf"|\bimages? (?:inputs? |content )?(?:is|are) not supported{_MODEL_END}"
    r"|\bimage_url\W{0,2} is (?:only supported by certain models|not supported (?:by|for) (?:this|the) model)"
    r"|unknown variant \W?(?:image_url|input_image|image)\b"
    r"|is not a multi-?modal model|\bat most 0 image",
    re.IGNORECASE,
)
"""Says that a model takes no images, and not that one image or its place is wrong. In order: Ollama, LM
Studio and Volcengine; OpenRouter; llama.cpp and xAI; OpenAI; DeepSeek; vLLM. Sources are
https://github.com/ollama/ollama/issues/17301, https://github.com/anomalyco/opencode/issues/47994,
https://github.com/nexu-io/nexu/issues/733, https://github.com/zou-group/textgrad/issues/210 and
https://github.com/rikkahub/rikkahub/issues/1433."""


def rejected_by(status: int, error: bytes, request: Body, sent: Collection[str]) -> frozenset[str]:
    """The field paths (`field_paths.edits_without`) and beta values that the error refuses.

    `error` is the decoded body of the answer, `request` the body that was sent, `sent` the values of its
    `anthropic-beta`. Only fields of the request are named, and no essential ones. If a value of effort is
    refused, all values that are missing in a list of supported ones are named too (`reasoning_effort=xhigh`).
    """
    if status not in STATUSES:
        return frozenset()
    report = read_error(error)
    text = report.text
    listed = {beta for found in _BETAS.finditer(text) for beta in _parts(found[1])}
    fields = {name for path in _paths(text) for name in _names(path, request)}
    stand = {name for name in fields if not is_essential(name) and edits_without(request, {name})}
    return frozenset(stand | (listed & set(sent)) | set(_efforts(f"{report.param}: {text}", request)))


def refuses_images(status: int, error: bytes) -> bool:
    """Whether an error says that the model takes no images at all."""
    return status in _IMAGE_STATUSES and _NO_IMAGES.search(read_error(error).text) is not None


def _efforts(text: str, request: Body) -> Iterator[str]:
    """Values of effort that are not supported: those missing in the error's list of supported values if the
    value sent is one of them; without such a list the value sent, if the error repeats it."""
    if not _IS_OF_EFFORT.search(text):
        return
    mandatory = _MANDATORY.search(text) is not None
    if mandatory and _value(request, "thinking.type") == "disabled":
        yield "thinking.type=disabled"
    for field in _EFFORT_FIELDS:
        sent = _value(request, field)
        taken = {word for found in _TAKEN.finditer(text) for word in _parts(found[1].lower())} & {*EFFORTS}
        if sent == "none" and mandatory:
            yield f"{field}=none"
        elif sent and taken and sent not in taken:
            yield from (f"{field}={word}" for word in (*EFFORTS, sent) if word not in taken)
        elif sent and not taken and _NOT_TAKEN.search(text) and re.search(rf"\b{re.escape(sent)}\b", text):
            yield f"{field}={sent}"


def _value(request: Body, field: str) -> str | None:
    above, _, name = field.rpartition(".")
    place = request.inner(above) if above else request
    return place.get(name, str) if place else None


def _paths(text: str) -> Iterator[list[str]]:
    """The paths that the error may mean, in parts."""
    for found in _FIELD.finditer(text):
        above, path = (["", *filter(None, found.groups())])[-2:]
        yield _parts_of(path)
        if above:
            yield _parts_of(f"{above}.{path}")
    if "extra_forbidden" in text:
        yield from (_parts_of(found[1]) for found in _LOCATION.finditer(text))
    for found in _VALUE.finditer(text):
        path, value = _parts_of(found[1]), found["tag"] or found["variant"]
        if path[-1:] in (["role"], ["type"]):  # serde names the key, pydantic the object that has it
            yield [*path[:-1], f"{path[-1]}={value}"]
        else:
            yield [*path, f"{found['key'] or 'type'}={value}"]
    yield from (name.split(".") for sentence, name in _SENTENCES if sentence.search(text))


def _parts_of(path: str) -> list[str]:
    """The parts of a path without indices, and without the name of the body itself."""
    parts = [part for part in _parts(path) if not part.isdigit()]
    return parts[1:] if parts[:1] in (["body"], ["request"]) else parts


def _parts(path: str) -> list[str]:
    return re.findall(r"[\w-]+", path)


def _names(path: list[str], request: Body) -> Iterator[str]:
    """The field itself, or the field of a beta that the path means. A bare key that is not at the top level
    of the body may mean any field of that name."""
    *above, last = path or [""]
    known = [name for name in FIELDS if name.rpartition(".")[2] == last and _leads(above, name)]
    yield from known if known and (above or last not in request) else [".".join(path)]


def _leads(above: list[str], name: str) -> bool:
    """Whether the path has all parts of the name in order; there may be types between them."""
    rest = iter(above)
    return not above or all(part in rest for part in name.split(".")[:-1])
