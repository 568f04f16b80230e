"""What works with the providers of the examples: docs/providers.md says it, and the examples are asked.

Each provider is asked alone, by the rules of its example, and answered in its protocol: a stream of thinking
and a call, then what follows the call, a search, and a count.
"""

import base64
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from signalbox.config.load import load
from signalbox.config.rules import Api, Provider, Rules
from tests.support import chat, strict_responses
from tests.support.answers import Answer, event, json_answer, sse
from tests.support.playbook import Playbook, played
from tests.support.played_wire import Asked, Got, user
from tests.support.router_process import ROOT
from tests.unit.test_examples import EXAMPLES, SECRETS

pytestmark = pytest.mark.slow

DOC = ROOT / "docs" / "providers.md"
SETUPS = {
    "classes", "failover", "ports", "ports-one-key", "projects", "quota-litellm", "reasoning", "subscription",
    "team", "tiers",
}  # fmt: skip
"""Examples of rules, whose providers have an example of their own."""
OWN_SEARCH = {"claude-aws", "google", "vertex"}
"""Providers of the Messages API that are known to have Anthropic's own search (clouds.md, 1)."""

PICTURE = base64.b64encode(b"a picture for tests").decode()
SEALED = "c2VhbGVkIHRob3VnaHQgb2YgbXkgb3duLCBmb3IgdGVzdHM"
THOUGHT = "a thought of my own, for tests"
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}}
TOOL = {"name": "Read", "description": "Reads a file.", "input_schema": {"type": "object"}}
SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
ASKED = {"tools": [TOOL], "thinking": {"type": "adaptive"}, "max_tokens": 32000}
PROTOCOLS: dict[Api, str] = {
    "anthropic": "Messages",
    "vertex": "Messages",
    "openai": "chat completions",
    "responses": "Responses",
}


class Row(NamedTuple):
    """A row of the table in the documentation."""

    example: str
    provider: str
    protocol: str
    streams: str
    tools: str
    thinking: str
    images: str
    searches: str
    tokens: str


def rows() -> list[Row]:
    """Those of the documentation."""
    table = DOC.read_text().partition("## What works")[2].partition("\n## ")[0]
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "|" in line
    ]
    return [Row(re.sub(r"\[(.+)\.yaml\].*", r"\1", row[0]), *row[1:]) for row in cells[2:]]


def whole(name: str) -> str:
    """An example without TLS."""
    return EXAMPLES[name].read_text().replace("https://", "http://")


def targets(rules: Rules) -> dict[tuple[str, str], tuple[Provider, str]]:
    """By provider and protocol, a provider of the rules with a model that they ask it for."""
    found: dict[tuple[str, str], tuple[Provider, str]] = {}
    for target in (target for rule in rules.rules for equals in rule.choices for target in equals):
        provider = rules.providers[target.provider]
        model = target.model or next((to for _, to in provider.rename), "claude-opus-5")
        if provider.auth != "client":
            found.setdefault((provider.name, PROTOCOLS[provider.api_for(model)]), (provider, model))
    return found


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every key, login and program that the examples need."""
    for folder, file, text in (
        (".config/litellm", "key", "litellm-key-for-tests\n"),
        (".claude", ".credentials.json", '{"claudeAiOauth": {"accessToken": "sk-ant-fake"}}'),
        (".codex", "auth.json", '{"tokens": {"access_token": "codex-token-for-tests"}}'),
        ("bin", "gcloud", "#!/bin/sh\necho ya29.google-token-for-tests\n"),
        ("bin", "gh", "#!/bin/sh\necho gho_token-for-tests\n"),
    ):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / file).write_text(text)
        (tmp_path / folder / file).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    for name, value in {"HOME": str(tmp_path), **SECRETS}.items():
        monkeypatch.setenv(name, value)


@contextmanager
def asking(row: Row, folder: Path) -> Iterator[tuple[Playbook, list[Asked]]]:
    """A client whose requests all go to this provider of the example, and what the provider is asked."""
    file = folder / "rules.yaml"
    text = whole(row.example)
    file.write_text(text)
    provider, model = targets(load(file, os.environ))[row.provider, row.protocol]
    rules = f'rules:\n  - {{match: "*", to: "{provider.name}/{model}"}}\n'
    with played(folder, re.sub(r"^rules:\n(?:[ #].*\n|\n)*", rules, text, flags=re.MULTILINE)) as router:
        fake = router.provider(provider.url.host)
        fake.answer(lambda asked: answer(provider.api_for(model), asked))
        yield router.connect(), fake.requests


def answer(api: Api, asked: Asked) -> Answer:
    """Thinking and a call, or the count."""
    if "count" in asked.path or "input_tokens" in asked.path:
        return json_answer({"input_tokens": 42, "object": "response.input_tokens"})
    model = asked.json.get("model", "m")
    match api:
        case "openai":
            said: dict[str, Any] = {"reasoning_content": THOUGHT}
            if "reasoning" in asked.json:
                details = [{"type": "reasoning.text", "text": THOUGHT, "index": 0, "format": "unknown"}]
                said = {"reasoning": THOUGHT, "reasoning_details": details}
            deltas = [said, {"tool_calls": [chat.call("Read", "{}")]}]
            chunks = [
                *map(chat.chunk, deltas),
                chat.chunk({}, "tool_calls"),
                chat.chunk(None, usage=chat.USAGE),
            ]
            return chat.stream([*chunks, chat.DONE])
        case "responses":
            call = {
                "type": "function_call",
                "id": "fc_fake",
                "call_id": "call_fake",
                "name": "Read",
                "arguments": "{}",
            }
            output = [strict_responses.reasoning(THOUGHT, f"gAAAA{SEALED}"), call]
            return chat.stream([*strict_responses.events(model, output)])
    return sse(*messages_events(model))


def messages_events(model: str) -> Iterator[bytes]:
    usage = {"input_tokens": 100, "output_tokens": 20}
    start = {"id": "msg_fake", "type": "message", "role": "assistant", "model": model, "content": []}
    yield event("message_start", message=start | {"usage": usage})
    thinking = {"type": "thinking", "thinking": "", "signature": ""}
    yield event("content_block_start", index=0, content_block=thinking)
    yield event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": THOUGHT})
    yield event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": SEALED})
    yield event("content_block_stop", index=0)
    call = {"type": "tool_use", "id": "toolu_fake", "name": "Read", "input": {}}
    yield event("content_block_start", index=1, content_block=call)
    yield event("content_block_stop", index=1)
    yield event("message_delta", delta={"stop_reason": "tool_use", "stop_sequence": None}, usage=usage)
    yield event("message_stop")


def blocks_of(got: Got) -> list[dict[str, Any]]:
    """The content that the events of an answer add up to."""
    blocks: list[dict[str, Any]] = []
    for line in got.body.decode().splitlines():
        told = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
        if told.get("type") == "content_block_start":
            blocks.append(told["content_block"])
        elif told.get("type") == "content_block_delta":
            for name, value in told["delta"].items():
                if name in ("thinking", "signature", "text"):
                    blocks[-1][name] = blocks[-1].get(name, "") + value
    return blocks


def works(row: Row, folder: Path) -> Row:
    """The row as it turns out."""
    question = {"role": "user", "content": [IMAGE, {"type": "text", "text": "Look."}]}
    with asking(row, folder) as (play, asked):
        got = play.ask("claude-opus-5", stream=True, messages=[question], **ASKED)
        blocks = blocks_of(got)
        calls = [block for block in blocks if block["type"] == "tool_use"]
        has_image = PICTURE in asked[0].body.decode()
        results = [{"type": "tool_result", "tool_use_id": call["id"], "content": "ok"} for call in calls]
        history = [question, {"role": "assistant", "content": blocks}, {"role": "user", "content": results}]
        play.ask("claude-opus-5", stream=True, messages=history, **ASKED)
        again = asked[-1].body.decode()
        before = len(asked)
        play.ask("claude-opus-5", stream=True, messages=[user("Find.")], tools=[SEARCH])
        searched = asked[before:]
        counted = play.ask("claude-opus-5", path="/v1/messages/count_tokens", messages=[user("Hi.")])
        counts = asked[before + len(searched) :]
    has_tool = row.protocol != "Messages" or row.provider in OWN_SEARCH
    return Row(
        row.example,
        row.provider,
        row.protocol,
        streams=yes(got.state == "ended" and b"event: message_stop" in got.body),
        tools=yes(len(calls) == 1 and calls[0]["name"] == "Read" and len(results) == 1),
        thinking=yes(SEALED in again or THOUGHT in again),
        images=yes(has_image),
        searches="no" if not searched else "its own" if has_tool else "as asked",
        tokens="counted" if counts else "estimated" if counted.status == 200 else "no",
    )


def yes(holds: bool) -> str:
    return "yes" if holds else "no"


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.example} {row.provider} {row.protocol}")
def test_what_the_documentation_says_works_does(row, tmp_path):
    (tmp_path / "router").mkdir()
    assert works(row, tmp_path / "router") == row


def test_every_provider_of_every_example_has_a_row(tmp_path):
    expected = set()
    for name in EXAMPLES.keys() - SETUPS:
        (tmp_path / "rules.yaml").write_text(whole(name))
        rules = load(tmp_path / "rules.yaml", os.environ)
        expected |= {(name, *key) for key in targets(rules)}
    assert {(row.example, row.provider, row.protocol) for row in rows()} == expected
