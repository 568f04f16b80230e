"""Anthropic, as far as the limits of a plan go."""

import threading
import time
from typing import Any, Protocol

from tests.support.answers import Answer, error_json, json_answer, message_json, message_sse
from tests.support.fake_provider import Received
from tests.support.played_wire import Asked

COUNT_TOKENS = "/v1/messages/count_tokens"
HOUR = 3600


class Scripted(Protocol):
    """A fake provider, or one of a playbook."""

    requests: list[Any]

    def answer(self, *script: Any) -> None: ...


class Plan:
    """Every answer tells what was set last for the login or key that asks."""

    def __init__(self, upstream: Scripted) -> None:
        self.upstream = upstream
        self._lock = threading.Lock()
        self._of: dict[str, dict[str, Any]] = {}
        upstream.answer(self._answer)

    def stands(self, of: str, *, refuses: bool = False, resets_in: float = HOUR, **told: Any) -> None:
        """`w5h=0.91` or `w5h="rejected"`; what is not named is not told."""
        reset = {"anthropic-ratelimit-unified-status": "rejected"} if refuses else {}
        for name, value in told.items():
            part = "status" if isinstance(value, str) else "utilization"
            prefix = f"anthropic-ratelimit-unified-{name.removeprefix('w')}"
            reset |= {f"{prefix}-{part}": str(value), f"{prefix}-reset": str(int(time.time() + resets_in))}
        claim = {"anthropic-ratelimit-unified-representative-claim": "five_hour"}
        with self._lock:
            self._of[of] = {"headers": reset | (claim if told else {}), "refuses": refuses}

    def _answer(self, request: Received | Asked) -> Answer:
        credential = request.header("authorization") or request.header("x-api-key") or ""
        with self._lock:
            plan = self._of.get(credential.removeprefix("Bearer "), {"headers": {}, "refuses": False})
        headers = tuple(plan["headers"].items())
        if request.path.startswith(COUNT_TOKENS):
            answer = json_answer({"input_tokens": 8})
        elif plan["refuses"]:
            answer = error_json(429, "rate_limit_error", "limit reached")
        elif request.path.startswith("/v1/messages"):
            asked = request.json
            answer = message_sse(asked["model"]) if asked.get("stream") else message_json(asked["model"])
        else:
            answer = json_answer({"data": []})
        return Answer(answer.status, (*answer.headers, *headers), answer.chunks, answer.framing)

    def probes(self) -> list[Any]:
        return [request for request in self.upstream.requests if request.path == COUNT_TOKENS]
