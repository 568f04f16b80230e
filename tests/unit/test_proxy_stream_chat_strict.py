"""Providers of chat completions that refuse what strict ones refuse answer Claude Code's requests."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import chat
from tests.support.answers import Answer
from tests.support.conversation import read_stream
from tests.support.playbook import Playbook
from tests.support.played_wire import Asked, Got

DIALECTS = ("openai", "deepseek", "glm", "generic", "openrouter", "lmstudio", "kimi", "gemini")
UNREADABLE = re.compile(r"\\[pP]\{|\(\?[=!<]|\[\^?[^\]]*(?<!\\)\[")
ANCHORED_ONLY = ("generic", "lmstudio")


RULES = "\n".join(
    [
        "failover: {on: []}",
        "providers:",
        *(
            f"  {name}: {{url: 'http://up.invalid/{name}', api: openai, dialect: {name}, key: {name}-key}}"
            for name in DIALECTS
        ),
        "rules:",
        *(f"  - {{match: '{name}-*', to: {name}}}" for name in DIALECTS),
        "  - {match: 'chain-*', to: [glm, generic], failover: {on: [500]}}",
    ]
)

SAVED = r'^(?!__.*__$)[^\p{Cc}\p{Cf}"\\./[\]]{1,200}$'


def _tool(name: str, **properties: Any) -> dict[str, Any]:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": properties,
    }
    return {
        "name": name,
        "description": f"{name}.",
        "input_schema": {**schema, "additionalProperties": False},
    }


TEXT = {"type": "string"}
TOOLS = [
    _tool("Read", file_path=TEXT, offset={"type": "integer", "minimum": 0}, limit={"type": "integer"}),
    _tool("Save", field={**TEXT, "description": "The field.", "pattern": SAVED}),
    _tool("Send", to={**TEXT, "allOf": [{"pattern": r"^[^\n\r]*$"}, {"pattern": r"^[\s\S]{0,300}$"}]}),
    _tool("Script", script={**TEXT, "maxLength": 524288}, run={**TEXT, "pattern": "^wf_[a-z0-9-]{6,}$"}),
    _tool(
        "Pick", mode={"enum": ["", "fast"]}, url={**TEXT, "format": "uri"}, word={**TEXT, "pattern": r"\S"}
    ),
    _tool(
        "mcp__crm__list",
        ids={"type": "array"},
        rows={"type": ["array", "null"]},
        pair={"items": [TEXT, TEXT]},
    ),
    _tool(
        "mcp__crm__update",
        task={
            "type": "object",
            "properties": {"id": TEXT, "name": TEXT},
            "anyOf": [{"required": ["id"]}, {"required": ["name"]}],
        },
    ),
    *(_tool(f"mcp__more__tool_{n}", n={"type": "integer", "exclusiveMinimum": 0}) for n in range(20)),
]


class Strict:
    """Refuses with 400 what strict providers refuse, then has one file read and repeats what was in it."""

    def __init__(
        self, *, mandatory: bool = False, efforts: tuple[str, ...] = ("low", "medium", "high")
    ) -> None:
        self.mandatory = mandatory
        self.efforts = efforts

    def __call__(self, received: Asked) -> Answer:
        asked, dialect = received.json, received.path.split("/")[1]
        for tool in asked.get("tools", []):
            function = tool["function"]
            if fault := next(_faults(function["parameters"], dialect), ""):
                return chat.error(400, f"Invalid schema for function '{function['name']}': {fault}")
        effort = asked.get("reasoning_effort") or asked.get("reasoning", {}).get("effort")
        if self.mandatory and (effort == "none" or asked.get("thinking", {}).get("type") == "disabled"):
            return chat.error(400, "Reasoning is mandatory for this endpoint and cannot be disabled.")
        if effort is not None and effort not in self.efforts:
            listed = ", ".join(f"'{word}'" for word in self.efforts)
            return chat.error(
                400, f"Unsupported value: '{effort}' for reasoning effort. Supported values are: {listed}."
            )
        results = [message["content"] for message in asked["messages"] if message["role"] == "tool"]
        if results or not asked.get("tools"):
            return chat.stream(chat.text_stream("It says ", *results))
        call = chat.call("Read", '{"file_path": "/fake/notes"}', "call_fake_0")
        return chat.stream(
            [
                chat.chunk({"tool_calls": [call]}),
                chat.chunk({}, "tool_calls"),
                chat.chunk(None, usage=chat.USAGE),
                chat.DONE,
            ]
        )


def _faults(schema: Any, dialect: str) -> Iterator[str]:
    """What is wrong with a schema, anywhere in it."""
    if isinstance(schema, list):
        for one in schema:
            yield from _faults(one, dialect)
    if not isinstance(schema, dict):
        return
    pattern, kind = schema.get("pattern", ""), schema.get("type")
    if isinstance(pattern, str) and UNREADABLE.search(pattern):
        yield f"'{pattern}' is not a 'regex'."
    if dialect in ANCHORED_ONLY and not re.fullmatch(r"(\^[^\\]*\$)?", str(pattern)):
        yield "Pattern must start with '^' and end with '$'"
    if dialect in ANCHORED_ONLY and isinstance(schema.get("maxLength"), int) and schema["maxLength"] >= 2000:
        yield "number of repetitions exceeds sane defaults"
    if (kind == "array" or (isinstance(kind, list) and "array" in kind)) and not isinstance(
        schema.get("items"), dict
    ):
        yield "array schema missing items."
    if dialect == "kimi" and "type" in schema and "anyOf" in schema:
        yield "when using anyOf, type should be defined in anyOf items instead of the parent schema"
    if dialect == "gemini" and "" in schema.get("enum", []):
        yield "enum[0]: cannot be empty"
    for value in schema.values():
        yield from _faults(value, dialect)


REQUEST = {
    "max_tokens": 32000,
    "system": [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=fake"},
        {"type": "text", "text": "You help with code.", "cache_control": {"type": "ephemeral"}},
    ],
    "metadata": {"user_id": "user_fake"},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "tools": TOOLS,
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "max"},
}


@pytest.fixture
def ask(play: Playbook) -> Callable[..., Got]:
    """As Claude Code does, with many tools."""

    def ask(model: str, messages: list[Any], **more: Any) -> Got:
        return play.ask(model, stream=True, messages=messages, **(REQUEST | more))

    return ask


QUESTION = {"role": "user", "content": "What is in the notes?"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_tool_loop_with_many_tools_goes_through_a_strict_provider(ask, up, dialect):
    up.answer(Strict())
    first = ask(f"{dialect}-gpt-5.2", [QUESTION])
    assert first.status == 200, first.body
    assert b'"name":"Read"' in first.body
    [use] = re.findall(rb'"id":"(\w+)","name":"Read"', first.body)
    call = {"type": "tool_use", "id": use.decode(), "name": "Read", "input": {"file_path": "/fake/notes"}}
    result = {"type": "tool_result", "tool_use_id": use.decode(), "content": "forty-two"}
    turns = [QUESTION, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    second = ask(f"{dialect}-gpt-5.2", turns)
    assert second.status == 200, second.body
    assert b"forty-two" in second.body
    assert second.headers["x-signalbox-attempts"] == f"{dialect}:200"
    tools = {tool["function"]["name"]: tool["function"] for tool in up.requests[-1].json["tools"]}
    assert len(tools) == len(TOOLS)
    assert SAVED in tools["Save"]["parameters"]["properties"]["field"]["description"]


def test_an_effort_that_is_refused_is_repaired_once_and_remembered(ask, up):
    up.answer(Strict())
    assert ask("openai-gpt-5.5-pro", [QUESTION], tools=[]).status == 200
    assert [asked.json.get("reasoning_effort") for asked in up.requests] == ["xhigh", "high"]
    answer = ask("openai-gpt-5.5-pro", [QUESTION], tools=[])
    assert answer.headers["x-signalbox-attempts"] == "openai:200"
    assert up.requests[-1].json["reasoning_effort"] == "high"


def test_reasoning_that_is_mandatory_is_not_switched_off_again(ask, up):
    up.answer(Strict(mandatory=True, efforts=("minimal", "low", "medium", "high")))
    for _ in range(2):
        answer = ask("openrouter-some/thinker", [QUESTION], thinking={"type": "disabled"})
        assert answer.status == 200, answer.body
    efforts = [asked.json["reasoning"]["effort"] for asked in up.requests]
    assert efforts == ["none", "minimal", "minimal"]


def test_a_switch_that_is_refused_is_left_alone(ask, up):
    up.answer(Strict(mandatory=True))
    for _ in range(2):
        assert ask("glm-always-thinking", [QUESTION], thinking={"type": "disabled"}).status == 200
    assert [asked.json.get("thinking") for asked in up.requests] == [{"type": "disabled"}, None, None]


def test_an_effort_that_is_taken_from_no_list_is_lowered_step_by_step(ask, up):
    def answer(received: Asked) -> Answer:
        effort = received.json.get("reasoning_effort")
        if effort in ("xhigh", "high"):
            return chat.error(400, f"Invalid value for reasoning_effort: {effort}")
        return chat.stream(chat.text_stream())

    up.answer(answer)
    assert ask("generic-gpt-5.2-plain", [QUESTION]).status == 200
    assert [asked.json["reasoning_effort"] for asked in up.requests] == ["xhigh", "high", "medium"]


def test_each_provider_of_a_chain_is_repaired_for_itself(ask, up):
    """What one has refused and was mended says nothing of the next one, which is mended too."""

    def answer(received: Asked) -> Answer:
        if "stream_options" in received.json:
            return chat.error(400, "Unknown parameter: 'stream_options'.")
        return chat.error(500, "down") if received.path.startswith("/glm") else usual

    usual = chat.stream(chat.text_stream())
    up.answer(answer)
    answered = ask("chain-x", [QUESTION])
    assert answered.headers["x-signalbox-attempts"] == "glm:400 glm:500 generic:400 generic:200"


def test_a_field_that_is_refused_is_repaired_once_and_remembered(ask, up):
    def answer(received: Asked) -> Answer:
        if "stream_options" in received.json:
            return chat.error(400, "Unknown parameter: 'stream_options'.")
        return chat.stream(chat.text_stream())

    up.answer(answer)
    for _ in range(2):
        assert ask("generic-old", [QUESTION]).status == 200
    assert ["stream_options" in asked.json for asked in up.requests] == [True, False, False]


def test_reasoning_that_a_provider_wants_back_is_put_there(ask, up):
    """A model that wants its reasoning back, behind a gateway whose dialect does not say so."""

    def answer(received: Asked) -> Answer:
        said = [message for message in received.json["messages"] if message["role"] == "assistant"]
        if not all(message.get("reasoning_content") for message in said):
            return chat.error(
                400, "The `reasoning_content` in the thinking mode must be passed back to the API."
            )
        return chat.stream(chat.text_stream())

    up.answer(answer)
    turns = [QUESTION, {"role": "assistant", "content": "Forty-two."}, QUESTION]
    for _ in range(2):
        assert ask("generic-deepseek", turns).status == 200
    assert len(up.requests) == 3


def test_a_refusal_that_names_nothing_that_can_change_reaches_the_client(ask, up):
    up.answer(chat.error(400, "Invalid image in the request."))
    answer = ask("generic-picky", [QUESTION])
    assert (answer.status, answer.headers["x-signalbox-attempts"]) == (400, "generic:400")
    assert len(up.requests) == 1


def test_encrypted_reasoning_that_is_refused_is_left_out_from_then_on(ask, up):
    """As OpenRouter passes on OpenAI's refusal of what another key's account got."""
    details = [
        {"type": "reasoning.encrypted", "data": "gAAAAold", "format": "openai-responses-v1", "index": 0}
    ]

    def answer(received: Asked) -> Answer:
        if "gAAAAold" in str(received.json):
            return chat.error(400, "The encrypted content gAAA could not be verified.")
        return chat.stream(chat.text_stream())

    up.answer(chat.completion("b", reasoning="hm", reasoning_details=details), answer)
    first = ask("openrouter-openai/gpt-5.2", [QUESTION])
    blocks = read_stream(first.body)
    assert blocks[0]["type"] == "thinking"
    turns = [QUESTION, {"role": "assistant", "content": blocks}, QUESTION]
    for _ in range(2):
        assert ask("openrouter-openai/gpt-5.2", turns).status == 200
    assert ["gAAAAold" in str(asked.json) for asked in up.requests] == [False, True, False, False]


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}


@pytest.mark.parametrize(
    ("model", "refusal"),
    [
        ("generic-blind", chat.error(400, "This model does not support image input")),
        ("openrouter-some/blind", chat.error(404, "No endpoints found that support image input", code=404)),
    ],
)
def test_an_image_that_a_model_does_not_take_is_replaced_by_text_from_then_on(ask, up, model, refusal):
    """Also in the result of a tool: it would come again in every turn."""
    shows = lambda asked: "image_url" in str(asked.json)  # noqa: E731
    up.answer(lambda asked: refusal if shows(asked) else chat.stream(chat.text_stream()))
    turns = [{"role": "user", "content": [IMAGE, {"type": "text", "text": "What is it?"}]}]
    answers = [ask(model, turns).headers["x-signalbox-attempts"]]
    call = {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {}}
    turns += [
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [IMAGE]}]},
    ]
    answers.append(ask(model, turns).headers["x-signalbox-attempts"])
    name, status = model.split("-")[0], refusal.status
    assert answers == [f"{name}:{status} {name}:200", f"{name}:200"]
    assert str(up.requests[-1].json).count("[image omitted]") == 2
