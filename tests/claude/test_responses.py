"""Claude Code with a provider of the Responses API: tools, thinking, searches, subagents, `--continue`."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import responses
from tests.support.answers import Answer
from tests.support.claude_code import Claude, Said
from tests.support.fake_provider import Received, Upstream
from tests.support.router_process import RouterFiles

MODEL = "gpt-5.6-sol"
WORD = "a-word-from-bash"
FOUND = "https://a.example/one"
TASK = "Find out what the word is"

type Item = dict[str, Any]


def rules(home: Upstream, up: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  openai: {{url: "{up.url}/v1", api: responses, dialect: openai, key: key-for-tests-0001}}
rules:
  - {{match: "*", to: openai/{MODEL}}}
"""


@pytest.fixture
def router(start_router: Callable[..., RouterFiles], upstream: Upstream, second: Upstream) -> RouterFiles:
    return start_router(upstream.url, rules=rules(upstream, second))


def outputs(received: Received) -> list[str]:
    """What tools gave so far."""
    items = received.json["input"]
    return [json.dumps(item["output"]) for item in items if item.get("type") == "function_call_output"]


def asked(received: Received) -> str:
    """The texts of the user's and the developer's messages."""
    return json.dumps([item["content"] for item in received.json["input"] if "content" in item])


def tools(received: Received) -> list[str]:
    return [tool.get("name", tool["type"]) for tool in received.json.get("tools", [])]


def thought(received: Received, blob: str) -> Item:
    """Reasoning, with a summary where one is asked for."""
    is_seen = "summary" in received.json.get("reasoning", {})
    return responses.reasoning(*(["I should look."] if is_seen else []), blob=blob)


def said(*items: Item) -> Answer:
    return responses.stream(responses.item_stream(*items))


def calling(name: str, last: str, **arguments: Any) -> Callable[[Received], Answer]:
    """A model that thinks, calls one tool, and then says `last`."""

    def answer(received: Received) -> Answer:
        if "Bash" not in tools(received):  # a title
            return said(responses.message("Something else."))
        if outputs(received):
            return said(thought(received, "gAAAsecond"), responses.message(last))
        call = responses.function_call(name, json.dumps(arguments), call_id="call_aB3xY9")
        return said(thought(received, "gAAAfirst"), responses.message("I look."), call)

    return answer


def main_requests(up: Upstream) -> Iterator[Received]:
    return (one for one in up.requests if "Bash" in tools(one))


def transcript(claude: Claude) -> str:
    return "".join(one.read_text() for one in (claude.home / ".claude" / "projects").rglob("*.jsonl"))


def ok(run: Said, text: str) -> None:
    assert (run.exit_code, run.text) == (0, text), run


def test_tool_loop_gives_the_reasoning_back_before_what_followed_it(claude, router, second):
    second.answer(calling("Bash", "That was it.", command=f"echo {WORD}", description="for the test"))
    ok(claude.ask("Run it", "--allowedTools", "Bash", base_url=router.url), "That was it.")
    first, again = list(main_requests(second))[:2]
    assert first.json["reasoning"]["effort"]
    items = again.json["input"]
    kinds = [item.get("type", item.get("role")) for item in items]
    at = kinds.index("reasoning")
    assert kinds[at : at + 4] == ["reasoning", "message", "function_call", "function_call_output"]
    assert items[at] == {"type": "reasoning", "summary": [], "encrypted_content": "gAAAfirst"}
    assert items[at + 2]["call_id"] == items[at + 3]["call_id"] == "call_aB3xY9"
    assert WORD in outputs(again)[0]


def test_continued_conversation_begins_with_the_bytes_of_the_one_before(claude, router, second):
    second.answer(calling("Bash", "That was it.", command=f"echo {WORD}", description="for the test"))
    ok(claude.ask("Run it", "--allowedTools", "Bash", base_url=router.url), "That was it.")
    before = [*main_requests(second)][-1].json["input"]
    ok(claude.ask("And now?", "--continue", "--allowedTools", "Bash", base_url=router.url), "That was it.")
    after = [*main_requests(second)][-1].json["input"]
    assert after[: len(before)] == before
    assert {"type": "reasoning", "summary": [], "encrypted_content": "gAAAsecond"} in after
    assert "And now?" in json.dumps(after[len(before) :])


def test_thinking_is_shown_where_claude_code_shows_it(claude, router, second):
    """With `stream-json` on both sides, as in a terminal, it asks for summaries of the thinking."""
    second.answer(calling("Bash", "That was it.", command=f"echo {WORD}", description="for the test"))
    prompt = {"type": "user", "message": {"role": "user", "content": "Run it"}}
    told = claude.stream([prompt], "--allowedTools", "Bash", base_url=router.url)
    blocks = [block for one in told if one["type"] == "assistant" for block in one["message"]["content"]]
    thoughts = [block["thinking"] for block in blocks if block["type"] == "thinking"]
    assert thoughts == ["I should look.", "I should look."], told
    assert told[-1]["result"] == "That was it."


def test_web_search_is_the_providers_and_is_counted(claude, router, second):
    main = calling("WebSearch", "Foo is bar.", query="foo bar")

    def answer(received: Received) -> Answer:
        if tools(received) != ["web_search"]:
            return main(received)
        search = responses.web_search("foo bar", FOUND)
        page = responses.web_search("", type="open_page")
        return said(search, page, responses.message("Foo is bar, they say.", (FOUND, "One")))

    second.answer(answer)
    ok(claude.ask("Look it up", "--allowedTools", "WebSearch", base_url=router.url), "Foo is bar.")
    (result,) = outputs([*main_requests(second)][-1])
    links = json.dumps(json.dumps([{"title": "One", "url": FOUND}], separators=(",", ":")))
    assert f"Links: {links[1:-1]}" in result, result
    assert "Foo is bar, they say." in result
    assert '"searchCount":1' in transcript(claude)


def test_subagent_works_and_reports(claude, router, second):
    asks = {"description": "the word", "prompt": TASK, "run_in_background": False}
    main = calling("Agent", "The agent found it.", **asks)
    agent = calling("Bash", f"It is {WORD}.", command=f"echo {WORD}", description="for the test")

    def answer(received: Received) -> Answer:
        return agent(received) if TASK in asked(received) else main(received)

    second.answer(answer)
    ok(claude.ask("Ask an agent", "--allowedTools", "Agent,Bash", base_url=router.url), "The agent found it.")
    results = [text for one in second.requests for text in outputs(one)]
    assert any(f"It is {WORD}." in text for text in results), results
