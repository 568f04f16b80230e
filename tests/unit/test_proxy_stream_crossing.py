"""A conversation changes providers at any turn, and none of them is sent what it would refuse."""

import json
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from tests.support.conversation import SESSION, Conversation, history
from tests.support.playbook import Playbook, Provider, played
from tests.support.played_wire import request
from tests.support.strict_chat import ChatProvider
from tests.support.strict_providers import (
    CarelessProvider,
    DefaultThinker,
    LaxProvider,
    StrictAnthropic,
    UnsignedProvider,
    uncached,
)
from tests.support.strict_responses import ResponsesProvider

PROVIDERS = ("anthropic", "zai", "kimi", "deepseek")
DIALECTS = {"moonshot": "kimi", "google": "gemini"}
"""Of the providers that speak chat completions."""
MODELS = {
    "anthropic": "claude-opus-4-6",
    "zai": "glm-5",
    "moonshot": "kimi-k2.6",
    "google": "gemini-3.5-flash",
}
RESPONDERS = {"gpt-5.6-sol": "openai", "gpt-6-sol": "openai"}
"""Models of a provider that speaks Responses; what one of them thought the other does not take."""
RULES = "\n".join(
    [
        "providers:",
        "  anthropic: {url: http://anthropic.invalid, auth: client}",
        *(f"  {name}: {{url: http://{name}.invalid, key: {name}-key}}" for name in PROVIDERS[1:]),
        *(
            f"  {name}: {{url: http://{name}.invalid, key: {name}-key, api: openai, dialect: {dialect}}}"
            for name, dialect in DIALECTS.items()
        ),
        "  openai: {url: http://openai.invalid, key: openai-key, api: responses, dialect: openai}",
        "  both: {url: http://both.invalid, key: both-key, claude: true, dialect: openai,",
        "    api: {'claude-*': anthropic, '*': responses}}",
        "rules:",
        "  - {match: both-claude, to: both/claude-opus-5}",
        "  - {match: both-gpt, to: both/gpt-6-sol}",
        *(f"  - {{match: '{model}', to: {name}}}" for model, name in RESPONDERS.items()),
        *(f"  - {{match: '{model}', to: {name}}}" for name, model in MODELS.items()),
        *(f"  - {{match: '{name}-*', to: {name}}}" for name in (*PROVIDERS, *DIALECTS)),
    ]
)


KINDS = [
    pytest.param("adaptive", True, id="adaptive-stream"),
    pytest.param("enabled", False, id="enabled-whole"),
    pytest.param("adaptive", False, id="adaptive-whole", marks=pytest.mark.slow),
    pytest.param("enabled", True, id="enabled-stream", marks=pytest.mark.slow),
]
"""Of thinking, and of answers."""


@pytest.fixture
def play(tmp_path) -> Iterator[Playbook]:
    """With a router of its own, which knows of no conversation yet."""
    with played(tmp_path, RULES) as router:
        client = router.connect()
        client.session = SESSION
        yield client


@pytest.fixture
def upstreams(play: Playbook) -> dict[str, Provider]:
    return {name: play.router.provider(name) for name in (*PROVIDERS, *DIALECTS, "openai", "both")}


def sender(play: Playbook) -> Callable[[bytes, dict[str, str]], tuple[int, bytes]]:
    def send(body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        play.hears_anew()
        play.client_sends(request(body, "/v1/messages?beta=true", **headers))
        return play.got.status, play.got.body

    return send


@pytest.mark.parametrize(("thinking", "stream"), KINDS)
def test_thirty_turns_switch_provider_at_every_turn_without_one_error(play, upstreams, thinking, stream):
    modes = ("adaptive", "enabled")
    upstreams["anthropic"].answer(StrictAnthropic("anthropic", modes=modes, bound=True, redacts=True))
    upstreams["zai"].answer(LaxProvider("zai"))
    upstreams["kimi"].answer(LaxProvider("kimi", rejects=("context_management",)))
    upstreams["deepseek"].answer(UnsignedProvider("deepseek"))
    conversation = Conversation(sender(play), thinking=thinking, stream=stream)
    for turn in range(30):
        conversation.turn(f"{PROVIDERS[(turn * 3 + turn // 4) % 4]}-model")
    assert all(upstreams[name].requests for name in PROVIDERS)
    attempts = [record["attempts"] for record in play.records(30)]
    assert {*attempts} == {f"{name}:200" for name in PROVIDERS} | {"kimi:400 kimi:200"}
    for name in PROVIDERS:
        one = upstreams[name]
        assert any(SESSION.encode() in each.body for each in one.requests) is (name == "anthropic")


@pytest.mark.slow
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_what_anthropic_refuses_of_others_answers_is_made_valid_for_forty_turns(play, upstreams, stream):
    """And the same each time: its thinking is bound to every block before it."""
    upstreams["anthropic"].answer(StrictAnthropic(bound=True))
    upstreams["kimi"].answer(CarelessProvider("kimi"))
    conversation = Conversation(sender(play), stream=stream)
    for turn in range(40):
        conversation.turn("kimi-model" if turn % 5 < 2 else "anthropic-model")
    assert {record["attempts"] for record in play.records(40)} == {"kimi:200", "anthropic:200"}
    earlier, later = (one.json["messages"] for one in upstreams["anthropic"].requests[-2:])
    assert uncached(later[: len(earlier)]) == uncached(earlier)


WANTED = "The `content[].thinking` in the thinking mode must be passed back to the API."


@pytest.mark.parametrize("thinking", ["adaptive", "enabled", None])
def test_thinking_that_a_provider_wants_back_has_placeholders(play, upstreams, thinking):
    upstreams["anthropic"].answer(StrictAnthropic())
    upstreams["deepseek"].answer(DefaultThinker("deepseek", WANTED))
    conversation = Conversation(sender(play), thinking=thinking)
    for model in ("anthropic", "anthropic", "deepseek", "deepseek", "anthropic", "deepseek"):
        conversation.turn(f"{model}-model")
    attempts = [record["attempts"] for record in play.records(6)]
    assert attempts[2] == "deepseek:400 deepseek:200"
    assert set(attempts[3:]) == {"deepseek:200", "anthropic:200"}
    assert [one.json.get("thinking", {}).get("type") for one in upstreams["deepseek"].requests] == [
        None if thinking == "enabled" else thinking,
        *[thinking] * 3,
    ]


def test_a_provider_that_takes_no_placeholders_is_told_not_to_think_where_it_says_so(play, upstreams):
    """Each kind of refusal is repaired once."""
    play.session = None  # in which a repair would be remembered
    missing = "Expected `thinking` or `redacted_thinking`. To avoid this requirement, disable `thinking`."
    for number, (words, again, statuses) in enumerate(
        [
            (WANTED, missing, "deepseek:400 deepseek:400 deepseek:200"),
            (missing, "", "deepseek:400 deepseek:200"),
            (WANTED, WANTED, "deepseek:400 deepseek:400"),
        ],
        1,
    ):
        upstreams["deepseek"].answer(DefaultThinker("deepseek", words, again=again))
        body = json.loads(history("deepseek-x", "Zm9yZWlnbg"))
        sender(play)(json.dumps(body | {"thinking": {"type": "adaptive"}}).encode(), {})
        assert play.records(number)[-1]["attempts"] == statuses
        last = upstreams["deepseek"].requests[-1].json
        assert last["thinking"] == {"type": "adaptive" if again == WANTED else "disabled"}


@pytest.mark.parametrize("thinking", ["adaptive", "enabled"])
def test_thinking_bound_to_another_conversation_is_repaired_by_one_more_try(play, upstreams, thinking):
    """As after a client has changed what was said before: also within a running tool loop."""
    upstreams["anthropic"].answer(StrictAnthropic(bound=True))
    conversation = Conversation(sender(play), thinking=thinking)
    conversation.turn("anthropic-model")
    conversation.history[0]["content"][-1]["text"] += " (edited)"
    for _ in range(3):
        conversation.turn("anthropic-model")
    attempts = [record["attempts"] for record in play.records(4)]
    assert attempts == ["anthropic:200", "anthropic:400 anthropic:200", "anthropic:200", "anthropic:200"]


@pytest.mark.slow
@pytest.mark.parametrize(("thinking", "stream"), KINDS)
def test_thirty_turns_between_messages_and_chat_completions_without_one_error(
    play, upstreams, thinking, stream
):
    """Each follows each. In manual mode a tool loop that goes on after a call without thinking, which is no
    fault of the history, is refused by Anthropic and repaired; nothing else is refused."""
    upstreams["anthropic"].answer(StrictAnthropic(bound=True, redacts=True))
    upstreams["zai"].answer(LaxProvider("zai"))
    for name, dialect in DIALECTS.items():
        upstreams[name].answer(ChatProvider(name, dialect))
    conversation = Conversation(sender(play), thinking=thinking, stream=stream)
    names = list(MODELS)
    for turn in range(30):
        conversation.turn(MODELS[names[(turn * (1 + turn // 10) + turn // 15) % 4]])
    attempts = {record["attempts"] for record in play.records(30)}
    repaired = {"anthropic:400 anthropic:200"} if thinking == "enabled" else set()
    assert attempts == {f"{name}:200" for name in MODELS} | repaired


@pytest.mark.slow
@pytest.mark.parametrize(("thinking", "stream"), KINDS)
def test_thirty_turns_between_four_protocols_and_two_models_of_one_without_one_error(
    play, upstreams, thinking, stream
):
    """Messages with and without bound thinking, Responses, and chat completions: each follows each."""
    upstreams["anthropic"].answer(StrictAnthropic(bound=True, redacts=True))
    upstreams["zai"].answer(LaxProvider("zai"))
    upstreams["moonshot"].answer(ChatProvider("moonshot", "kimi"))
    upstreams["openai"].answer(ResponsesProvider("openai"))
    conversation = Conversation(sender(play), thinking=thinking, stream=stream)
    models = [*RESPONDERS, MODELS["anthropic"], MODELS["moonshot"], MODELS["zai"]]
    for turn in range(30):
        conversation.turn(models[(turn * (1 + turn // 10) + turn // 15) % 5])
    attempts = {record["attempts"] for record in play.records(30)}
    repaired = {"anthropic:400 anthropic:200"} if thinking == "enabled" else set()
    assert attempts - repaired == {f"{name}:200" for name in ("anthropic", "zai", "moonshot", "openai")}
    for model in RESPONDERS:
        asked = [one.json for one in upstreams["openai"].requests if one.json["model"] == model]
        kinds = {item["type"] for one in asked for item in one["input"]}
        assert kinds == {"reasoning", "function_call", "function_call_output", "message"}
        for earlier, later in pairwise(asked):
            assert later["input"][: len(earlier["input"])] == earlier["input"]


@pytest.mark.slow
def test_models_of_one_provider_that_speak_two_protocols_get_their_own_thinking_only(play, upstreams):
    """As at GitHub Copilot, which serves Claude and OpenAI's models."""
    claude, gpt = StrictAnthropic("both", bound=True), ResponsesProvider("both")
    upstreams["both"].answer(lambda asked: (gpt if asked.path == "/responses" else claude)(asked))
    conversation = Conversation(sender(play))
    for turn in range(12):
        conversation.turn("both-gpt" if turn % 3 else "both-claude")
    assert {record["attempts"] for record in play.records(12)} == {"both:200"}


def test_a_conversation_goes_on_where_the_state_folder_was_lost(tmp_path):
    """Nothing tells the second router who issued a block but the block itself."""
    turns = ["moonshot", "google", "moonshot", "anthropic", "moonshot", "anthropic", "google", "zai"]
    conversation = Conversation(lambda body, headers: send(body, headers))
    for folder, names in (("first", turns[:3]), ("second", turns[3:])):
        (tmp_path / folder).mkdir()
        with played(tmp_path / folder, RULES) as router:
            router.provider("anthropic").answer(StrictAnthropic())
            router.provider("zai").answer(LaxProvider("zai"))
            for name, dialect in DIALECTS.items():
                router.provider(name).answer(ChatProvider(name, dialect))
            play = router.connect()
            send = sender(play)
            for name in names:
                conversation.turn(MODELS[name])
                assert play.attempts == f"{name}:200"
