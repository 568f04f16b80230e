"""Codex's backend for ChatGPT plans, as strictly as it is said to be (reference/openai-responses.md, 9)."""

import time
from dataclasses import replace

from tests.support.answers import Answer, json_answer
from tests.support.fake_provider import Received
from tests.support.strict_responses import ResponsesProvider

REJECTED = (
    "max_output_tokens",
    "metadata",
    "previous_response_id",
    "prompt_cache_retention",
    "safety_identifier",
    "stream_options",
    "temperature",
    "top_p",
    "truncation",
    "user",
)


class Codex(ResponsesProvider):
    """Takes this token of this account, and reports the windows of its plan, in percent. The week is the
    primary one."""

    def __init__(self, token: str, account: str) -> None:
        super().__init__("codex", "codex")
        self.token, self.account = token, account
        self.hours, self.week = 10, 20

    def __call__(self, received: Received) -> Answer:
        answer = self._refusal(received) or super().__call__(received)
        return replace(answer, headers=(*answer.headers, *self.windows()))

    def _refusal(self, received: Received) -> Answer | None:
        body = received.json
        if received.header("authorization") != f"Bearer {self.token}":
            return json_answer({"error": {"code": "token_expired", "message": "expired"}}, 401)
        if received.header("chatgpt-account-id") != self.account:
            return json_answer({"detail": "account"}, 403)
        agent, originator = received.header("user-agent") or "", received.header("originator")
        if (
            not agent.startswith("signalbox/")
            or originator != "signalbox"
            or not received.header("session-id")
        ):
            return json_answer({"detail": "who are you?"}, 403)
        if found := next((name for name in REJECTED if name in body), None):
            return json_answer({"detail": f"Unsupported parameter: {found}"}, 400)
        if body.get("store") is not False or body.get("stream") is not True:
            return json_answer({"detail": "Store must be set to false, stream to true"}, 400)
        if "instructions" not in body or not isinstance(body["input"], list):
            return json_answer({"detail": "Instructions are required"}, 400)
        if self.week >= 100:
            error = {"type": "usage_limit_reached", "plan_type": "plus", "resets_at": int(time.time()) + 3600}
            return json_answer({"error": error}, 429)
        return None

    def windows(self) -> list[tuple[str, str]]:
        """The headers of every answer."""
        now = int(time.time())
        return [
            ("x-codex-primary-used-percent", str(self.week)),
            ("x-codex-primary-window-minutes", "10080"),
            ("x-codex-primary-reset-at", str(now + 86400)),
            ("x-codex-secondary-used-percent", str(self.hours)),
            ("x-codex-secondary-window-minutes", "299"),
            ("x-codex-secondary-reset-after-seconds", "3600"),
        ]
