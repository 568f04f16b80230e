"""GitHub Copilot, as strictly as it is said to be (reference/clouds.md, 6)."""

import json
import re
from collections.abc import Callable

from tests.support.answers import Answer, json_answer
from tests.support.fake_provider import Received

MODELS = (
    (r"claude-(?:opus|sonnet|haiku)-\d\.\d", ("/v1/messages", "/chat/completions")),
    (r"gpt-5\.4", ("/chat/completions", "/responses")),
    (r"gpt-(?:5\.[3-9]|6).*", ("/responses",)),
    (r"gemini-.*|kimi-.*|gpt-5-mini", ("/chat/completions",)),
)
"""Models, and the paths at which each is served."""


class Copilot:
    """Checks what is asked of any model, and lets one of `answers`, by path, answer."""

    def __init__(self, **answers: Callable[[Received], Answer]) -> None:
        self.answers = answers
        self.initiators: list[str | None] = []

    def __call__(self, received: Received) -> Answer:
        scheme, _, token = (received.header("authorization") or "").partition(" ")
        if scheme != "Bearer" or not token.startswith(("gho_", "github_pat_", "ghu_")):
            return error(401, "unauthorized", "bad token")
        if received.header("x-api-key"):
            return error(400, "bad_request", "two credentials")
        path, model = received.path.partition("?")[0], received.json["model"]
        paths = next((paths for name, paths in MODELS if re.fullmatch(name, model)), ())
        if not paths:
            return error(400, "model_not_supported", "The requested model is not supported.")
        if path not in paths:
            said = f"model {model} is not accessible via {path}"
            return error(400, "unsupported_api_for_model", said)
        if received.header("openai-intent") != "conversation-edits" or not received.header("user-agent"):
            return error(400, "bad_request", "missing required header")
        if (b"image" in received.body) != (received.header("copilot-vision-request") == "true"):
            return error(
                400, "bad_request", "missing required Copilot-Vision-Request header for vision requests"
            )
        if any("eager_input_streaming" in tool for tool in received.json.get("tools", [])):
            said = "tools.0.custom.eager_input_streaming: Extra inputs are not permitted"
            return error(400, "invalid_request_body", said)
        self.initiators.append(received.header("x-initiator"))
        return self.answers[path.rpartition("/")[2]](received)


def error(status: int, code: str, message: str) -> Answer:
    return json_answer(json.loads(json.dumps({"error": {"code": code, "message": message}})), status)
