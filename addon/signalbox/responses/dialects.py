"""The differences between providers of the Responses API: one row each, and no code.

A new provider is a new row here and its golden files. Source: openai-responses.md 1 to 4, 7 and 8.
"""

import msgspec
from msgspec.structs import replace

from signalbox.config.rules import ResponsesDialect
from signalbox.openai import schemas
from signalbox.openai.dialects import ALL, OPENAI_OUTPUT, REASONERS, Efforts, ModelGlobs, is_at, matches_any

_OPENAI_EFFORTS = (
    Efforts(("*gpt-*-chat*",), ()),
    Efforts(("*gpt-5-pro*",), ("high",)),
    Efforts(("*gpt-5.5-pro*",), ("medium", "high", "xhigh")),
    Efforts(("*gpt-5.*-pro*", "*gpt-5.*codex*"), ("low", "medium", "high", "xhigh")),
    Efforts(("*gpt-5.1*",), ("none", "low", "medium", "high")),
    Efforts(("*gpt-5.[2-9]*",), ("none", "low", "medium", "high", "xhigh")),
    Efforts(("*gpt-5*",), ("minimal", "low", "medium", "high")),
    Efforts(
        ("*gpt-6-astra*", "*gpt-6-rosalind*", "*gpt-6.1-sol*", "*gpt-6.[2-9]*"),
        ("low", "medium", "high", "xhigh", "max"),
    ),
    Efforts(("*gpt-[6-9]*",), ("none", "low", "medium", "high", "xhigh", "max")),
    Efforts((*REASONERS, "*gpt-oss*", "*daybreak*"), ("low", "medium", "high")),
)
"""openai-responses.md, 7. A wrong one is learned from the refusal."""
_ANY_EFFORTS = (
    *_OPENAI_EFFORTS,
    Efforts(("*gpt-[34]*",), ()),
    Efforts(ALL, ("low", "medium", "high")),
)
"""The same where a model may have any name, and most likely reasons."""

_PHASED: ModelGlobs = ("*gpt-5.[3-9]*", "*gpt-[6-9]*")


def _without_dialect(rules: schemas.SchemaRules) -> schemas.SchemaRules:
    """The same without `$schema`, which no tool keeps (openai-responses.md, 4)."""
    return replace(rules, refused=rules.refused | {"$schema"})


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """How one kind of provider spells requests. The defaults should work with every server."""

    name: ResponsesDialect
    hosts: tuple[str, ...] = ()
    """Ends of host names (`api.openai.com`, `.openai.azure.com`), or a host with its usual port."""

    limits_output: bool = True
    """Whether it takes `max_output_tokens`."""
    most_tokens: tuple[tuple[str, int], ...] = ()
    """Largest output limits by model; the first glob that matches wins."""
    sampling: bool = False
    """Whether it takes `temperature` and `top_p`, for models other than those that reason."""
    always_streams: bool = False
    """Whether it answers streams only; they are put together for clients that ask for a whole message."""
    needs_instructions: bool = False
    """Whether `instructions` must be there."""
    obfuscates: bool = False
    """Whether it pads its events, and takes the option to leave that."""
    cache_key: bool = False
    """Whether it takes `prompt_cache_key`."""
    json_schema: bool = False
    """Whether it takes `text.format`; else the schema goes into the prompt."""

    developer: bool = False
    """Whether messages of the role `developer` are allowed between others."""
    phases: ModelGlobs = ()
    """Models that want `phase` on assistant messages."""
    images: bool = True
    """Whether it takes images, of models that are not known to take none."""
    image_urls: bool = True
    """Whether an image may be a URL."""
    files: bool = False
    """Whether it takes `input_file`, for PDFs."""
    media_in_results: bool = False
    """Whether the output of a call may hold images and files."""

    tool_name: str = r"[a-zA-Z0-9_-]{1,64}"
    forced: bool = True
    """Whether it takes `tool_choice: required` and a named function."""
    parallel: bool = False
    """Whether it takes `parallel_tool_calls`."""
    rules: schemas.SchemaRules = _without_dialect(schemas.PLAIN)
    call_id: str = r"[a-zA-Z0-9_-]{1,64}"
    """A pattern for the ids it takes."""
    new_id: str = "call_{:.24}"
    """A format string that makes such an id of the hex digits of a hash."""
    web_search: bool = False
    """Whether it has a hosted `web_search`."""
    excluded_domains: bool = False
    """Whether that takes domains not to search."""
    most_domains: int | None = None
    user_location: bool = True
    """Whether it takes where the user is."""
    sources: bool = False
    """Whether it gives the sources of a search, if asked to `include` them."""

    efforts: tuple[Efforts, ...] = _OPENAI_EFFORTS
    """The first row that matches the model counts; a model without one is sent no `reasoning`."""
    summary: bool = False
    """Whether it takes `reasoning.summary`."""
    encrypted: ModelGlobs = ()
    """Models that give and take encrypted reasoning."""

    def words(self, model: str) -> tuple[str, ...]:
        """The values of effort that a model takes, lowest first."""
        return next((row.words for row in self.efforts if matches_any(model, row.models)), ())


_AT_OPENAI: ModelGlobs = (*REASONERS, "*daybreak*")

DIALECTS: dict[str, Dialect] = {
    row.name: row
    for row in (
        Dialect(name="generic", rules=_without_dialect(schemas.GRAMMAR)),
        Dialect(
            name="openai",
            hosts=("api.openai.com",),
            most_tokens=OPENAI_OUTPUT,
            sampling=True,
            obfuscates=True,
            cache_key=True,
            json_schema=True,
            developer=True,
            phases=_PHASED,
            files=True,
            media_in_results=True,
            parallel=True,
            web_search=True,
            sources=True,
            summary=True,
            encrypted=_AT_OPENAI,
        ),
        Dialect(
            name="azure",
            hosts=(".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com"),
            most_tokens=OPENAI_OUTPUT,
            sampling=True,
            obfuscates=True,
            cache_key=True,
            json_schema=True,
            developer=True,
            phases=_PHASED,
            files=True,
            media_in_results=True,
            parallel=True,
            web_search=True,
            sources=True,
            efforts=_ANY_EFFORTS,  # `model` is the name of a deployment
            summary=True,
            encrypted=ALL,
        ),
        Dialect(
            name="openrouter",
            hosts=("openrouter.ai",),
            sampling=True,
            cache_key=True,
            json_schema=True,
            developer=True,
            files=True,
            media_in_results=True,
            parallel=True,
            web_search=True,
            efforts=(Efforts(ALL, ("none", "minimal", "low", "medium", "high", "xhigh")),),
            summary=True,
            encrypted=ALL,
        ),
        Dialect(
            name="xai",
            hosts=("api.x.ai",),
            sampling=True,
            cache_key=True,
            json_schema=True,
            developer=True,
            files=True,
            media_in_results=True,
            parallel=True,
            web_search=True,
            excluded_domains=True,
            most_domains=5,
            user_location=False,
            efforts=(
                Efforts(("*grok-3-mini*",), ("low", "high")),
                Efforts(("*grok-4.[3-9]*", "*grok-[5-9]*"), ("low", "medium", "high")),
            ),
            summary=True,
            encrypted=("*grok-3-mini*", "*grok-[4-9]*", "*grok-code*"),
        ),
        Dialect(
            name="codex",
            hosts=("chatgpt.com",),
            limits_output=False,
            always_streams=True,
            needs_instructions=True,
            cache_key=True,
            json_schema=True,
            developer=True,
            phases=_PHASED,
            files=True,
            media_in_results=True,
            parallel=True,
            web_search=True,
            sources=True,
            efforts=_ANY_EFFORTS,
            summary=True,
            encrypted=ALL,
        ),
        Dialect(
            name="copilot",
            hosts=("githubcopilot.com",),
            sampling=True,
            json_schema=True,
            developer=True,
            image_urls=False,
            media_in_results=True,
            parallel=True,
            summary=True,
            encrypted=ALL,
        ),
        Dialect(
            name="vllm",
            hosts=("localhost:8000", "127.0.0.1:8000"),
            sampling=True,
            json_schema=True,
            parallel=True,
            rules=_without_dialect(schemas.VLLM),
            efforts=(Efforts(ALL, ("low", "medium", "high")),),
        ),
        Dialect(
            name="lmstudio",
            hosts=("localhost:1234", "127.0.0.1:1234"),
            sampling=True,
            json_schema=True,
            rules=_without_dialect(schemas.GRAMMAR),
            efforts=(Efforts(("*gpt-oss*",), ("low", "medium", "high")),),
        ),
        Dialect(
            name="ollama",
            hosts=("localhost:11434", "127.0.0.1:11434", "ollama.com"),
            sampling=True,
            json_schema=True,
            image_urls=False,
            forced=False,
            rules=_without_dialect(schemas.GRAMMAR),
            efforts=(Efforts(("*gpt-oss*",), ("low", "medium", "high")),),
        ),
    )
}


def dialect_of(name: str | None, host: str, port: int) -> Dialect:
    """The row named by a provider's `dialect`, else that of its URL's host, else `generic`."""
    if name in DIALECTS:
        return DIALECTS[name]
    return next(
        (row for row in DIALECTS.values() if any(is_at(host, port, end) for end in row.hosts)),
        DIALECTS["generic"],
    )
