"""A streamed, failed-over, translated request as a person sees it in mitmweb, in a real browser.

`SCREENSHOTS=docs just test tests/slow/test_mitmweb_browser.py` also writes the pictures of the documentation.
"""

import json
import os
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.slow.test_secrets_shown import everything_shown
from tests.support import browser, chat
from tests.support.answers import error_json, message_sse
from tests.support.fake_provider import Upstream
from tests.support.mitmweb import TOKEN, Web

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240), browser.needs_browser]

LOGIN = "sk-ant-oat01-fake-login-of-nobody"
ZAI, LOCAL = "zai-key-for-tests-0001", "local-key-for-tests-01"
SECRETS = (LOGIN, ZAI, LOCAL)
COLUMNS = ("icon", "path", "comment", "status", "time")

INSTRUCTIONS = "You are Claude Code, Anthropic's official CLI for Claude. You help with software engineering."
WIDTH, HEIGHT = 1440, 820
HISTORY = "Add a test for the case in which the queue is full, and make it pass."


@pytest.fixture
def local() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream


@pytest.fixture
def web(tmp_path: Path, upstream: Upstream, second: Upstream, local: Upstream) -> Iterator[Web]:
    rules = f"""
providers:
  anthropic: {{url: "{upstream.url}", auth: client}}
  zai: {{url: "{second.url}", key: "{ZAI}", prices: {{"glm-*": {{input: 0.6, output: 2.2}}}}}}
  plan: {{url: "{local.url}", key: plan-key-for-tests, budget: {{tokens: 1, per: day, at: 0}}}}
  local:
    url: "{local.url}/v1"
    api: openai
    key: "{LOCAL}"
    prices: {{"*": {{input: 0.2, output: 0.8, cache_read: 0.02}}}}
rules:
  - {{match: "*haiku*", to: zai/glm-4.5-air}}
  - {{match: "*fable*", to: [plan/kimi-k2, zai/glm-4.7]}}
  - {{name: coding, match: {{model: "*sonnet*", stream: true}}, to: [zai/glm-4.7, local/qwen3-coder]}}
  - {{match: "*", to: anthropic}}
"""
    columns = [part for column in COLUMNS for part in ("--set", f"web_columns={column}")]
    saved = ("--set", f"save_stream_file={tmp_path / 'saved.flows'}")
    with Web(tmp_path, upstream.url, rules=rules, options=(*columns, *saved)) as router:
        yield router


def ask(web: Web, model: str, prompt: str) -> None:
    tool = {"type": "object", "properties": {"file_path": {}, "limit": {}}, "required": ["file_path"]}
    image = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo" * 2000}
    asked = [{"type": "image", "source": image}, {"type": "text", "text": prompt}]
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": 32_000,
        "stream": True,
        "thinking": {"type": "adaptive"},
        "system": [
            {"type": "text", "text": INSTRUCTIONS, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
        ],
        "tools": [{"name": "Read", "description": "Reads a file.", "input_schema": tool}],
        "messages": [
            {"role": "user", "content": HISTORY},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "The queue first.", "signature": "c2lnbmF0dXJl"},
                    {
                        "type": "tool_use",
                        "id": "toolu_01",
                        "name": "Read",
                        "input": {"file_path": "queue.py"},
                    },
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_01", "content": "class Queue:\n    ..."},
                    *asked,
                ],
            },
        ],
    }
    headers = {
        "Authorization": f"Bearer {LOGIN}",
        "X-Claude-Code-Session-Id": "7d1f0f6e-2f4b-4c53-9a53-2f6b1f3a9d10",
        "Anthropic-Beta": "context-1m-2025-08-07",
    }
    with closing(HTTPConnection("127.0.0.1", web.ports[0], timeout=10)) as connection:
        connection.request("POST", "/v1/messages?beta=true", json.dumps(body), headers)
        connection.getresponse().read()


def script(upstream: Upstream, second: Upstream, local: Upstream) -> None:
    """What the providers answer, one after the other."""
    upstream.answer(
        message_sse("claude-opus-4-5", ["The test waits for a slot that never comes."]),
        error_json(400, "invalid_request_error", "messages: text content blocks must be non-empty"),
    )
    second.answer(
        message_sse("glm-4.5-air", ["Fix the queue test"]),
        message_sse("glm-4.7", ["It compiles again."]),
        error_json(529, "overloaded_error", f"Overloaded, key {ZAI}"),
        message_sse("glm-5", ["The queue is bounded now: ", "put raises Full when there is no slot left."]),
    )
    text = "I added `test_full_queue_refuses`: it fills the queue, and the next put raises Full."
    arguments = json.dumps({"file_path": "tests/test_queue.py", "limit": 40})
    usage = {
        "prompt_tokens": 18_412,
        "completion_tokens": 391,
        "prompt_tokens_details": {"cached_tokens": 17_920},
    }
    said = [
        chat.chunk(
            {"role": "assistant", "reasoning_content": "A full queue has to refuse, so put must raise. "}
        ),
        chat.chunk({"reasoning_content": "One test that fills it is enough."}),
        *(chat.chunk({"content": f"{word} "}) for word in text.split()),
        chat.chunk({"tool_calls": [chat.call("Read", arguments)]}),
        chat.chunk({}, "tool_calls"),
        chat.chunk(usage=usage),
    ]
    local.answer(chat.stream([*said, chat.DONE]))


def ask_all(web: Web) -> None:
    ask(web, "claude-haiku-4-5", "Name this conversation.")
    ask(web, "claude-opus-4-5", "Why does the test hang?")
    ask(web, "claude-fable-5", "Does it compile?")
    ask(web, "claude-opus-4-5", "")
    ask(web, "claude-sonnet-4-5", "The suite is red, see the screenshot. Why?")
    web.finished(6)
    web.command("view.flows.remove", "~u health")


def picture(page: Page, name: str) -> None:
    """Keep what the page shows, where the documentation's pictures are asked for."""
    if folder := os.environ.get("SCREENSHOTS"):
        expect(page.get_by_text("connected", exact=True)).to_have_css("opacity", "0")  # it fades away
        page.screenshot(path=Path(folder) / f"{name}.png")


def shown(page: Page, name: str) -> str:
    """What the content view of this name shows."""
    heading = page.get_by_text(name, exact=True)
    heading.wait_for()
    pane = page.locator(".contentview").first
    expect(pane).to_contain_text("odel: ")
    return pane.inner_text()


def test_request_and_answer_are_seen_with_changes_comment_and_markers(web, tmp_path, upstream, second, local):
    script(upstream, second, local)
    ask_all(web)
    flow = next(one for one in web.flows() if one["comment"].endswith("zai:529 local:200"))
    seen = []
    with web.events() as told, browser.page(tmp_path / "profile", width=WIDTH, height=HEIGHT) as page:
        page.goto(f"http://127.0.0.1:{web.web}/?token={TOKEN}#/flows")
        rows = page.locator(".flow-table tbody tr:has(td)")
        expect(rows).to_have_count(6)
        seen.append(page.content())
        listed = [row.inner_text() for row in rows.all()]
        for marker, comment in (
            ("🔀", "rule=#2 attempts=zai:200"),
            ("🔴", "400 invalid_request_error: messages: text content blocks must be non-empty"),
            ("❌", "↻ zai 529 → local: overloaded_error"),
            ("🔁", "rule=coding attempts=zai:529 local:200"),
        ):
            assert [row for row in listed if marker in row and comment in row], (marker, comment, listed)
        rows.filter(has_text="🔁").click()
        request = shown(page, "Chat request")
        assert request.index("model claude-sonnet-4-5 → qwen3-coder") < request.index("Model: qwen3-coder")
        for line in (
            "1 thinking block dropped",
            "key swapped",
            "rule coding: model *sonnet*, stream true",
            "attempt 1 failed: zai/glm-4.7: 529, overloaded_error: Overloaded, key ***",
            "attempt 2 at local",
            "Read(file_path, limit?)",
        ):
            assert line in request, request
        seen.append(page.content())
        picture(page, "mitmweb-request")
        page.get_by_text("Response", exact=True).first.click()
        answer = shown(page, "Messages answer")
        for line in (
            "stop reason: tool_use",
            "usage: input 492, cache read 17,920, output 391",
            "cost: $0.0008",
            "A full queue has to refuse",
            "I added `test_full_queue_refuses`",
            "file_path: tests/test_queue.py",
        ):
            assert line in answer, answer
        seen.append(page.content())
        picture(page, "mitmweb-answer")
        page.get_by_text("Comment", exact=True).last.click()
        expect(page.locator("body")).to_contain_text("rule=coding attempts=zai:529 local:200")
        seen.append(page.content())

        web.command("signalbox.replay", f"@{flow['id']}", "zai/glm-5")
        rows.filter(has_text="rule=replay").click()
        page.get_by_text("Response", exact=True).first.click()
        expect(page.locator(".contentview").first).to_contain_text("first line")
        replayed = shown(page, "Messages answer")
        assert "The queue is bounded now" in replayed
        seen.append(page.content())
        picture(page, "mitmweb-replay")
    shown_elsewhere = everything_shown(web, tmp_path)
    web.stop()
    texts = [*seen, *told, *(text.decode(errors="replace") for text in shown_elsewhere.values())]
    texts.append((tmp_path / "saved.flows").read_bytes().decode(errors="replace"))
    assert not [(secret, text) for secret in SECRETS for text in texts if secret in text]
    assert web.records()[-1]["rule"] == "replay"
