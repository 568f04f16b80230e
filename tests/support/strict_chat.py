"""A provider of chat completions that checks a conversation: its order, and that what goes back is its own.

An answer function for `tests.upstream.Upstream`. It keeps nothing between requests: reasoning, ids and
signatures of its own are told by what they hold.
"""

import json
from collections.abc import Iterator
from typing import Any

from signalbox.config.rules import ChatDialect
from signalbox.openai.dialects import DIALECTS, matches_any
from tests.support import chat
from tests.support.answers import Answer
from tests.support.chat_validator import Chat, check_order, check_types, plain
from tests.support.fake_provider import Received
from tests.support.strict_providers import ROUNDS

_PLACEHOLDERS = (None, "", " ")
_SKIPPED = "skip_thought_signature_validator"


class ChatProvider:
    """Thinks, calls tools, then answers with text or with nothing but what it thought; refuses with 400 what
    such providers refuse.

    Its ids are counted anew in every answer. With a model of Gemini's only the first call of an answer has
    a signature, and each first call of the history must have one, its own where it made the call.
    """

    def __init__(self, name: str, dialect: ChatDialect) -> None:
        self.name = name
        self.dialect = DIALECTS[dialect]

    def __call__(self, received: Received) -> Answer:
        asked = received.json
        try:
            check_order(asked, self.dialect)
            check_types(plain(asked), strict=False)
            self._check_own(asked)
        except (AssertionError, ValueError) as refused:
            return chat.error(400, f"{self.name}: {refused}", type="invalid_request_error")
        return self._answer(asked)

    def _check_own(self, asked: Chat) -> None:
        """Raises AssertionError."""
        signs = matches_any(asked["model"], self.dialect.signed_calls)
        for message in asked["messages"]:
            thought = message.get("reasoning_content")
            assert thought in _PLACEHOLDERS or thought.startswith(f"{self.name} thinks"), (
                f"not mine: {thought}"
            )
            for n, call in enumerate(message.get("tool_calls", [])):
                path = json.loads(call["function"]["arguments"])["path"]
                mine = path.startswith(f"/fake/{self.name}/")
                if self.dialect.replay == "calls":
                    assert thought, f"reasoning_content is missing in the message with {path}"
                    assert thought != " " or not mine, f"the reasoning with {path} is missing"
                if signs:
                    signature = call.get("extra_content", {}).get("google", {}).get("thought_signature")
                    expected = [_signature(path)] if mine else [_SKIPPED]
                    assert signature in (expected if n == 0 else [None]), f"{path} is signed {signature}"

    def _answer(self, asked: Chat) -> Answer:
        number = sum(message["role"] == "assistant" for message in asked["messages"])
        thinks = asked.get("thinking", {}).get("type") == "enabled"
        thought = {"reasoning_content": f"{self.name} thinks, {number}."} if thinks else {}
        signs = matches_any(asked["model"], self.dialect.signed_calls)
        if _rounds(asked["messages"]) < ROUNDS:
            calls = [self._call(number, n, signs) for n in range(1 + number % 2)]
            said: dict[str, Any] = {"content": None, "tool_calls": calls}
        elif thought and number % 2:
            said = {"content": ""}
        else:
            said = {"content": f"{self.name} says, {number}."}
        finish = "tool_calls" if "tool_calls" in said else "stop"
        if not asked.get("stream"):
            return chat.completion(finish=finish, **thought, **said)
        deltas = _deltas(thought, said)
        return chat.stream(
            [*map(chat.chunk, deltas), chat.chunk({}, finish), chat.chunk(None, usage=chat.USAGE), chat.DONE]
        )

    def _call(self, number: int, n: int, signs: bool) -> Chat:
        path = f"/fake/{self.name}/{number}_{n}"
        call = chat.call("Read", json.dumps({"path": path}), f"functions.Read:{n}", n)
        extra = {"extra_content": {"google": {"thought_signature": _signature(path)}}}
        return {**call, **(extra if signs and n == 0 else {})}


def _signature(path: str) -> str:
    return f"signature+of={path}"


def _deltas(thought: Chat, said: Chat) -> Iterator[Chat]:
    yield {"role": "assistant", "content": ""}
    if thought:
        yield thought
    yield {name: value for name, value in said.items() if value is not None}


def _rounds(messages: list[Chat]) -> int:
    """Assistant messages since the user last spoke; media of results follow them as the user's."""
    told = ["Question" in str(message.get("content")) and message["role"] == "user" for message in messages]
    last = max(n for n, asks in enumerate(told) if asks)
    return sum(message["role"] == "assistant" for message in messages[last:])
