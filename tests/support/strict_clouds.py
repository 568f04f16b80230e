"""Clouds that serve Claude, as strictly as the real ones are said to be (reference/clouds.md).

Thinking of any of them, and of Anthropic's `StrictAnthropic("claude")`, is valid for all of them.
"""

import json
import re
from collections.abc import Collection
from dataclasses import replace

from tests.support.answers import Answer, error_json, json_answer
from tests.support.fake_provider import Received
from tests.support.request_validator import Asked, Refused
from tests.support.strict_providers import StrictAnthropic

KEY = "claude"
"""The name under which all of them sign."""


class Vertex(StrictAnthropic):
    """Claude on Google's Vertex AI, of one project. `token` is the only one that it takes."""

    PATH = re.compile(
        r"/v1/projects/my-project/locations/global/publishers/anthropic/models"
        r"/([A-Za-z0-9.@-]+):(rawPredict|streamRawPredict)"
    )
    REFUSED = (
        "advanced-tool-use",
        "advisor-tool",
        "fast-mode",
        "files-api",
        "mcp-client",
        "prompt-caching-scope",
        "skills",
    )

    def __init__(self, token: str) -> None:
        super().__init__(KEY)
        self.token = token

    def __call__(self, received: Received) -> Answer:
        found = self.PATH.fullmatch(received.path)
        if found is None:
            return google_error(404, "NOT_FOUND", f"no such path: {received.path}")
        if received.header("authorization") != f"Bearer {self.token}":
            return google_error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        model, body = found[1], received.json
        if received.header("anthropic-version") or not body.pop("anthropic_version", ""):
            return error_json(400, "invalid_request_error", "anthropic_version: Field required")
        if model == "count-tokens":
            if "@" in body["model"]:
                return error_json(
                    400, "invalid_request_error", f"{body['model']} is not supported for token counting"
                )
            return json_answer({"input_tokens": 42})
        if "model" in body:
            return error_json(400, "invalid_request_error", "model: Extra inputs are not permitted")
        if re.search(r"-\d{8}$", model):
            return google_error(404, "NOT_FOUND", f"Publisher model {model} was not found.")
        if (found[2] == "streamRawPredict") != bool(body.get("stream")):
            return error_json(400, "invalid_request_error", "stream: does not fit the path")
        betas = (received.header("anthropic-beta") or "").split(",")
        asked = Asked(body | {"model": model.partition("@")[0]}, frozenset(beta.strip() for beta in betas))
        try:
            self.check(asked)
        except Refused as refused:
            return error_json(400, "invalid_request_error", str(refused))
        return self.answer(asked)

    def check(self, asked: Asked) -> None:
        refuse_betas(
            asked, [beta for beta in asked.betas if beta.startswith((*self.REFUSED, "advanced-tool"))]
        )
        if b'"scope"' in json.dumps(asked.body).encode():
            raise Refused("system.1.cache_control.ephemeral.scope: Extra inputs are not permitted")
        super().check(with_tool_search(asked))


class Bedrock(StrictAnthropic):
    """Amazon Bedrock's Messages endpoint."""

    def __init__(
        self, *, refuses: Collection[str] = ("fast-mode-2026-02-01", "advanced-tool-use-2025-11-20")
    ):
        super().__init__(KEY)
        self.refuses = refuses
        """Values of `anthropic-beta`."""

    def __call__(self, received: Received) -> Answer:
        keys = [name for name in ("x-api-key", "authorization") if received.header(name)]
        if len(keys) != 1:
            return error_json(403, "permission_error", "not authorized")
        return super().__call__(received)

    def check(self, asked: Asked) -> None:
        if not str(asked.body["model"]).startswith("anthropic.claude-"):
            raise Refused(f"The model {asked.body['model']} is not supported")
        refuse_betas(asked, asked.betas.intersection(self.refuses))
        if any("eager_input_streaming" in tool for tool in asked.body.get("tools", [])):
            raise Refused("tools.0.custom.eager_input_streaming: Extra inputs are not permitted")
        super().check(with_tool_search(asked))


class ClaudeOnAws(StrictAnthropic):
    """The Claude Platform on AWS, which is Anthropic's own API with a workspace."""

    def __init__(self) -> None:
        super().__init__(KEY)

    def __call__(self, received: Received) -> Answer:
        if not (received.header("anthropic-workspace-id") or "").startswith("wrkspc_"):
            return error_json(400, "invalid_request_error", "anthropic-workspace-id: Field required")
        return super().__call__(received)


class Foundry(StrictAnthropic):
    """Microsoft Foundry, with these deployments."""

    def __init__(self, *deployments: str) -> None:
        super().__init__(KEY)
        self.deployments = deployments

    def __call__(self, received: Received) -> Answer:
        if not (received.header("x-api-key") or received.header("api-key")):
            return json_answer({"error": {"code": "401", "message": "Access denied"}}, 401)
        if json.loads(received.body)["model"] not in self.deployments:
            said = "The API deployment for this resource does not exist."
            return json_answer({"error": {"code": "DeploymentNotFound", "message": said}}, 404)
        return super().__call__(received)

    def check(self, asked: Asked) -> None:
        refuse_betas(asked, [beta for beta in asked.betas if beta.startswith("advisor-tool")])
        super().check(asked)


def google_error(status: int, name: str, message: str, *, in_array: bool = False) -> Answer:
    error = {"error": {"code": status, "message": message, "status": name}}
    return json_answer([error] if in_array else error, status)


def refuse_betas(asked: Asked, refused: Collection[str]) -> None:
    if refused:
        raise Refused(f"Unexpected value(s) {', '.join(sorted(refused))} for the `anthropic-beta` header")


def with_tool_search(asked: Asked) -> Asked:
    """The clouds' name for advanced tool use allows the same fields."""
    known = {"tool-search-tool-2025-10-19": "advanced-tool-use-2025-11-20"}
    return replace(asked, betas=frozenset(known.get(beta, beta) for beta in asked.betas))
