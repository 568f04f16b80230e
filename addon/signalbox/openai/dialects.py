"""The differences between providers of chat completions: one row each, and no code.

A new provider is a new row here and its golden files. Sources: openai-chat.md 1, 3 and 6, translation.md 1
to 4, providers.md.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Literal

import msgspec

from signalbox.config.rules import ChatDialect
from signalbox.openai import schemas

type ModelGlobs = tuple[str, ...]
"""Globs for models as sent, in lower case."""

ALL: ModelGlobs = ("*",)
REASONERS: ModelGlobs = ("o[1-9]*", "*/o[1-9]*", "*gpt-[5-9]*", "*codex*")
"""Models of OpenAI that refuse `max_tokens`, sampling and `stop` at any provider."""


class Efforts(msgspec.Struct, frozen=True):
    """The values of effort that some models take, lowest first; `none` switches thinking off."""

    models: ModelGlobs
    words: tuple[str, ...]


class Prefill(msgspec.Struct, frozen=True, kw_only=True):
    """How a provider is asked to continue a last assistant message. Without any of these it gets the message
    as it is, and may answer it instead (translation.md, 2)."""

    mark: str = ""
    """A field to set in that message."""
    fields: Mapping[str, object] = {}
    """Fields to add to the request."""
    path: str = ""
    """The only path that continues messages, on the provider's own host; replaces the path of the URL."""


_OPENAI_EFFORTS = (
    Efforts(("*gpt-*-chat*",), ()),
    Efforts(("*gpt-5.[2-9]*", "*gpt-[6-9]*"), ("none", "low", "medium", "high", "xhigh")),
    Efforts(("*gpt-5.1*",), ("none", "low", "medium", "high")),
    Efforts(("*gpt-5*",), ("minimal", "low", "medium", "high")),
    Efforts((*REASONERS, "*gpt-oss*"), ("low", "medium", "high")),
)
_TOOLS_WITHOUT_EFFORT: ModelGlobs = ("*gpt-5.[4-9]*", "*gpt-[6-9]*")
OPENAI_OUTPUT = (
    ("gpt-4o*", 16384),
    ("gpt-4.1*", 32768),
    ("gpt-4*", 4096),
    ("gpt-3*", 4096),
    ("o[1-9]*", 100_000),
    ("gpt-*", 128_000),
)
_ALWAYS_THINKING: ModelGlobs = (
    "*/o[1-9]*", "*/gpt-5", "*/gpt-5:*", "*/gpt-5-*", "*gpt-oss*", "*deepseek-r1*", "*gemini-2.5-pro*",
    "*gemini-3*-pro*", "*minimax-m2*",
)  # fmt: skip
"""Models whose thinking OpenRouter does not switch off (https://github.com/CIRISAI/CIRISAgent/pull/769)."""


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """How one kind of provider spells requests and answers. The defaults should work with every server."""

    name: ChatDialect
    hosts: tuple[str, ...] = ()
    """Ends of host names (`api.openai.com`, `.openai.azure.com`), or a host with its usual port."""

    limits_output: bool = True
    """Whether it takes a limit for the output."""
    completion_tokens: ModelGlobs = REASONERS
    """Models that take `max_completion_tokens` instead of `max_tokens`."""
    most_tokens: tuple[tuple[str, int], ...] = ()
    """Largest output limits by model; the first glob that matches wins."""
    fixed_sampling: ModelGlobs = REASONERS
    """Models that refuse `temperature` and `top_p`."""
    top_k: bool = False
    stops: int = 4
    """How many stop sequences it takes."""
    no_stops: ModelGlobs = REASONERS
    usage_option: bool = True
    """Whether it takes `stream_options`, which it needs to report the usage of a stream."""
    tool_stream: ModelGlobs = ()
    """Models that stream the arguments of calls only with `tool_stream`
    (https://docs.bigmodel.cn/cn/guide/capabilities/stream-tool)."""
    cache_key: bool = False
    """Whether it takes `prompt_cache_key`."""
    json_schema: bool = False
    """Whether it takes `response_format` of type `json_schema`; else the schema goes into the prompt."""
    always: Mapping[str, object] = {}
    """Fields of every request."""
    session_header: str = ""
    """The header for the id of the conversation."""

    system_anywhere: bool = False
    """Whether system messages are allowed between others."""
    cache_control: ModelGlobs = ()
    own: ModelGlobs = ()
    """Models made by this provider, which others serve too."""
    images: ModelGlobs = ALL
    """Models that take images. Decides for the models in `own` at any provider."""
    image_urls: bool = True
    """Whether an image may be a URL."""
    pdf: Literal["file", "image_url", ""] = ""
    """The type of part in which it takes a PDF."""
    empty_content: bool = True
    """Whether an assistant message with calls and no text has `content: null`, or no `content`."""
    bridged: ModelGlobs = (
        "*mistral*",
        "*ministral*",
        "*devstral*",
        "*codestral*",
        "*magistral*",
        "*mixtral*",
    )
    """Models that refuse a user message directly after results
    (https://github.com/mistralai/mistral-common/issues/169)."""
    prefill: Prefill = Prefill()

    tool_name: str = r"[a-zA-Z0-9_-]{1,64}"
    forced: str = "required"
    """Its `tool_choice` for a required call; empty if it has none."""
    named: bool = True
    """Whether `tool_choice` may name a tool
    (LM Studio: https://github.com/lmstudio-ai/lmstudio-bug-tracker/issues/670)."""
    forced_in_thought: bool = True
    """Whether a call can be required with thinking switched on."""
    no_tool: bool = True
    """Whether it takes `tool_choice: none`."""
    parallel: bool = False
    """Whether it takes `parallel_tool_calls`."""
    web_search: str = ""
    """The type of its own web search among the tools; empty if it has none."""
    rules: schemas.SchemaRules = schemas.PLAIN
    call_id: str = r"[!-~]{1,40}"
    """A pattern for the ids it takes, with their greatest length (openai-chat.md, 1)."""
    new_id: str = "call_{:.24}"
    """A format string that makes such an id of the hex digits of a hash."""
    signed_calls: ModelGlobs = ()
    """Models that require `extra_content.google.thought_signature` at the first call of each step, also if
    another provider made the call. A signature that a provider gave is sent back to it for any model."""

    replay: Literal["never", "known", "kept", "calls", "every", "details"] = "known"
    """Which thinking is sent back. never: none. known: thinking whose field is known. kept: all. calls: all,
    and `placeholder` in messages with calls that have none. every: all, and `placeholder` in each message
    that has none. details: OpenRouter's `reasoning_details`."""
    reasoning: str = "reasoning_content"
    """The field for thinking that came in an unknown field."""
    placeholder: str = ""
    """Replaces thinking that is required and missing."""
    switch: str = ""
    """The `thinking.type` that switches thinking on; empty if it has no such field."""
    switched: ModelGlobs = ALL
    """Models that take the switch."""
    unstoppable: ModelGlobs = ()
    """Models whose thinking cannot be switched off."""
    efforts: tuple[Efforts, ...] = _OPENAI_EFFORTS
    """The first row that matches the model counts; if none matches, no effort is sent."""
    effort_field: Literal["reasoning_effort", "reasoning"] = "reasoning_effort"
    """`reasoning` is an object with `effort`. With a switch the effort is a field of `thinking`."""
    tools_without_effort: ModelGlobs = ()
    """Models that take tools only with effort `none`."""


DIALECTS: dict[str, Dialect] = {
    row.name: row
    for row in (
        Dialect(name="generic", rules=schemas.GRAMMAR),
        Dialect(
            name="openai",
            hosts=("api.openai.com",),
            completion_tokens=ALL,
            most_tokens=OPENAI_OUTPUT,
            cache_key=True,
            json_schema=True,
            system_anywhere=True,
            pdf="file",
            parallel=True,
            replay="never",
            tools_without_effort=_TOOLS_WITHOUT_EFFORT,
        ),
        Dialect(
            name="azure",
            hosts=(".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com"),
            completion_tokens=ALL,
            most_tokens=OPENAI_OUTPUT,
            json_schema=True,
            system_anywhere=True,
            parallel=True,
            replay="never",
            tools_without_effort=_TOOLS_WITHOUT_EFFORT,
        ),
        Dialect(
            name="openrouter",
            hosts=("openrouter.ai",),
            completion_tokens=(),
            fixed_sampling=(),
            top_k=True,
            no_stops=(),
            json_schema=True,
            cache_control=("*anthropic/*", "google/gemini*", "minimax/*", "z-ai/*"),
            pdf="file",
            parallel=True,
            replay="details",
            efforts=(
                Efforts(_ALWAYS_THINKING, ("minimal", "low", "medium", "high", "xhigh")),
                Efforts(("*anthropic/*",), ("none", "minimal", "low", "medium", "high", "xhigh", "max")),
                Efforts(ALL, ("none", "minimal", "low", "medium", "high", "xhigh")),
            ),
            effort_field="reasoning",
            web_search="openrouter:web_search",
        ),
        Dialect(
            name="gemini",
            hosts=("generativelanguage.googleapis.com",),
            most_tokens=(("*", 65536),),
            json_schema=True,
            pdf="image_url",
            tool_name=r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}",
            rules=schemas.GEMINI,
            signed_calls=("*gemini-[3-9]*", "*gemini-*latest*"),
            replay="never",
            efforts=(
                Efforts(("*gemini-2.5-flash*",), ("none", "low", "medium", "high")),
                Efforts(("*gemini-[3-9]*flash*",), ("minimal", "low", "medium", "high")),
                Efforts(("*gemini-2.5*", "*gemini-[3-9]*"), ("low", "medium", "high")),
            ),
        ),
        Dialect(
            name="kimi",
            hosts=("api.moonshot.ai", "api.moonshot.cn", "api.kimi.com"),
            completion_tokens=ALL,
            fixed_sampling=ALL,
            cache_key=True,
            system_anywhere=True,
            own=("*kimi-*",),
            images=(
                "*kimi-k[3-9]*", "k[3-9]*", "*kimi-k2.[5-9]*", "*kimi-for-coding*", "*kimi-latest*",
                "*kimi-vl*", "*vision*",
            ),
            image_urls=False,
            empty_content=False,
            prefill=Prefill(mark="partial"),
            forced="",
            rules=schemas.KIMI,
            call_id=r"[!-~]{1,64}",
            replay="calls",
            placeholder=" ",
            switch="enabled",
            switched=("*k[3-9]*", "*k2.[5-9]*", "kimi-for-coding*"),
            unstoppable=("*k[3-9]*", "*k2.7*"),
            efforts=(Efforts(("*k[3-9]*",), ("low", "high", "max")),),
        ),
        Dialect(
            name="glm",
            hosts=("api.z.ai", "open.bigmodel.cn"),
            most_tokens=(("glm-4.5*", 32_000), ("*", 128_000)),
            stops=1,
            tool_stream=("glm-4.[6-9]*", "glm-[5-9]*"),
            own=("*glm-[4-9]*",),
            images=("*glm-*v", "*glm-*v[-:]*", "*glm-5.3-flash*"),
            replay="kept",
            switch="enabled",
            efforts=(),
        ),
        Dialect(
            name="minimax",
            hosts=("api.minimax.io", "api.minimaxi.com"),
            completion_tokens=ALL,
            most_tokens=(("*", 128_000),),
            always={"reasoning_split": True},
            own=("*minimax-m[2-9]*",),
            images=("*minimax-m[3-9]*",),
            forced="",
            no_tool=False,
            replay="kept",
            switch="adaptive",
            efforts=(),
        ),
        Dialect(
            name="deepseek",
            hosts=("api.deepseek.com",),
            most_tokens=(("*", 393_000),),
            stops=16,
            system_anywhere=True,
            own=("*deepseek-*",),
            images=("*vision*", "*-vl*", "*-ocr*"),
            prefill=Prefill(mark="prefix", path="/beta"),
            forced_in_thought=False,
            replay="every",
            placeholder=" ",
            switch="enabled",
            efforts=(),
        ),
        Dialect(
            name="mistral",
            hosts=("api.mistral.ai", "codestral.mistral.ai"),
            usage_option=False,
            json_schema=True,
            bridged=ALL,
            prefill=Prefill(mark="prefix"),
            forced="any",
            named=False,
            parallel=True,
            rules=schemas.MISTRAL,
            call_id=r"[a-zA-Z0-9]{9}",
            new_id="{:.9}",
            replay="never",
            efforts=(),
        ),
        Dialect(
            name="ollama",
            hosts=("localhost:11434", "127.0.0.1:11434", "ollama.com"),
            completion_tokens=(),
            json_schema=True,
            image_urls=False,
            forced="",
            no_tool=False,
            rules=schemas.GRAMMAR,
            replay="kept",
            reasoning="reasoning",
            efforts=(Efforts(("*gpt-oss*",), ("low", "medium", "high")), Efforts(ALL, ("none",))),
        ),
        Dialect(
            name="vllm",
            hosts=("localhost:8000", "127.0.0.1:8000"),
            top_k=True,
            json_schema=True,
            prefill=Prefill(fields={"continue_final_message": True, "add_generation_prompt": False}),
            parallel=True,
            rules=schemas.VLLM,
            replay="kept",
            reasoning="reasoning",
            efforts=(Efforts(ALL, ("low", "medium", "high")),),
        ),
        Dialect(
            name="lmstudio",
            hosts=("localhost:1234", "127.0.0.1:1234"),
            completion_tokens=(),
            top_k=True,
            json_schema=True,
            named=False,
            rules=schemas.GRAMMAR,
            efforts=(),
        ),
        Dialect(
            name="composer",
            hosts=("api-for-cursor.standardagents.ai", "localhost:8787", "127.0.0.1:8787"),
            limits_output=False,
            stops=0,
            session_header="x-session-affinity",
            json_schema=True,
            call_id=r"[!-~]{1,256}",
            replay="never",
            efforts=(),
        ),
        Dialect(
            name="copilot",  # clouds.md, 6; what it refuses besides is learned
            hosts=("githubcopilot.com",),
            json_schema=True,
            image_urls=False,
            parallel=True,
        ),
    )
}  # fmt: skip


@lru_cache(4096)
def matches_any(model: str, globs: ModelGlobs) -> bool:
    return any(fnmatchcase(model.lower(), glob) for glob in globs)


def sees(model: str, otherwise: ModelGlobs = ALL) -> bool:
    """Whether a model takes images; `otherwise` decides where no row is its maker's, and where it is empty,
    as after a refusal. A model that takes none would refuse all later requests of a conversation that holds
    an image (translation.md, 2)."""
    made = (row.images for row in DIALECTS.values() if matches_any(model, row.own))
    return bool(otherwise) and matches_any(model, next(made, otherwise))


def dialect_of(name: str | None, host: str, port: int) -> Dialect:
    """The row named by a provider's `dialect`, else that of its URL's host, else `generic`."""
    if name in DIALECTS:
        return DIALECTS[name]
    return next(
        (row for row in DIALECTS.values() if any(is_at(host, port, end) for end in row.hosts)),
        DIALECTS["generic"],
    )


def is_at(host: str, port: int, end: str) -> bool:
    """Whether a host is one of those that a row's `hosts` means by `end`."""
    where = (host.lower(), f"{host.lower()}:{port}")
    return any(w == end or w.endswith(end if end[0] == "." else f".{end}") for w in where)
