"""The client of a scenario: it asks as Claude Code does, and notes what it sees."""

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

import httpx

from signalbox.scenarios.format import Ask
from signalbox.scenarios.results import Seen

LOGIN = "sk-ant-oat01-fake-login-of-the-caller"
SESSION = "signalbox-test"
PATH = "/v1/messages?beta=true"
LONGEST = 3600.0
"""Seconds of a scenario's time after which a client gives up."""


def new_client() -> httpx.AsyncClient:
    """Each request has a connection of its own."""
    return httpx.AsyncClient(
        timeout=LONGEST, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)
    )


async def ask(
    client: httpx.AsyncClient, port: int, wanted: Ask, model: str, secrets: Mapping[str, str]
) -> Seen:
    """`secrets` are those of the rules' clients."""
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": 32000,
        "stream": wanted.stream,
        "messages": [{"role": "user", "content": "Does it work?"}],
    }
    if wanted.thinking:
        body["thinking"] = {"type": "adaptive"}
    headers = {
        "authorization": f"Bearer {LOGIN}",
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "claude-code-20250219,oauth-2025-04-20",
        "x-claude-code-session-id": SESSION,
        "user-agent": "signalbox-test",
        **wanted.headers,
    }
    if secrets:
        headers["x-signalbox-client"] = secrets[wanted.client or next(iter(secrets))]
    began, seen = time.monotonic(), Seen()
    try:
        async with (
            asyncio.timeout(LONGEST),
            client.stream("POST", f"http://127.0.0.1:{port}{PATH}", json=body, headers=headers) as answer,
        ):
            seen.status, seen.headers = answer.status_code, dict(answer.headers)
            seen.head_after = time.monotonic() - began
            await _read(answer, seen, began)
    except httpx.HTTPError as error:
        seen.is_cut = seen.status == 200
        seen.error = "the stream broke off" if seen.is_cut else f"no answer: {type(error).__name__}"
    except TimeoutError:
        seen.error = f"no end of an answer within {LONGEST:g} s"
    seen.ended_after = time.monotonic() - began
    return seen


async def _read(answer: httpx.Response, seen: Seen, began: float) -> None:
    if not answer.headers.get("content-type", "").startswith("text/event-stream"):
        _take_whole(await answer.aread(), seen)
        if seen.text:
            seen.text_after = time.monotonic() - began
        return
    is_over = False
    async for line in answer.aiter_lines():
        if not line.startswith("data:"):
            continue
        event = json.loads(line[5:])
        if event["type"] == "ping":
            seen.pings += 1
        elif event["type"] == "error":
            seen.error = _told(event)
        elif event["type"] == "message_stop":
            is_over = True
        elif words := event.get("delta", {}).get("text", ""):
            seen.text_after = seen.text_after or time.monotonic() - began
            seen.text += words
    if not is_over and not seen.error:
        seen.error = "the stream ended before the answer did"


def _take_whole(body: bytes, seen: Seen) -> None:
    try:
        content = json.loads(body)
    except ValueError:
        seen.error = "an answer that is no JSON"
        return
    if seen.status != 200 or not isinstance(content, dict) or content.get("type") != "message":
        seen.error = _told(content)
        return
    seen.text = "".join(block.get("text", "") for block in content["content"])


def _told(content: Any) -> str:
    error = content.get("error") if isinstance(content, dict) else None
    if not isinstance(error, dict):
        return "an answer that is no message"
    return f"{error.get('type', 'error')}: {error.get('message', '')}"
