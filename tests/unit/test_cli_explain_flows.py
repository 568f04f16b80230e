"""`signalbox explain --flow`: requests in files of flows, also in files of plain mitmproxy."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mitmproxy import http
from mitmproxy.addons.savehar import SaveHar
from mitmproxy.io import FlowWriter
from mitmproxy.test import tflow

from signalbox.cli.explain import explain_command
from signalbox.inspect.annotations import METADATA
from signalbox.inspect.recorded import REQUEST
from tests.support.answers import Answer, compressed, message_json, message_sse, thinking_block

RULES = """
providers:
  anthropic: {url: "https://api.anthropic.com", auth: client}
  zai: {url: "https://api.z.ai/api/anthropic", key: zai-key-for-tests, prices: {"*": {input: 1, output: 10}}}
  local: {url: "http://127.0.0.1:4000/v1", api: openai}
rules:
  - {match: "*haiku*", to: zai/glm-4.5-air}
  - {name: rest, match: ["*sonnet*", "*opus*"], to: [zai/glm-4.7, anthropic]}
"""
OTHER = """
providers:
  anthropic: {url: "https://api.anthropic.com", auth: client}
  local: {url: "http://127.0.0.1:4000/v1", api: openai}
rules:
  - {match: "*haiku*", to: local/qwen3}
  - {match: "*opus*", to: {reject: 429}}
  - {match: "*sonnet*", to: anthropic}
"""
USAGE = {"input_tokens": 100, "output_tokens": 10}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the rules in force and others."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "other.yaml").write_text(OTHER)
    return tmp_path


def flow(
    model: str, answer: Answer | None = None, path: str = "/v1/messages?beta=true", **more: object
) -> http.HTTPFlow:
    """As plain mitmproxy records it."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}], **more}).encode()
    headers = {"authorization": "Bearer sk-ant-oat01-fake-login-of-nobody"}
    request = http.Request.make("POST", f"https://api.anthropic.com{path}", body, headers)
    answer = answer or message_sse(model, usage=USAGE)
    response = http.Response.make(answer.status, b"", dict(answer.headers))
    response.raw_content = answer.body
    return tflow.tflow(req=request, resp=response)


def saved(folder: Path, flows: Iterable[http.HTTPFlow]) -> Path:
    file = folder / "yesterday.flows"
    with file.open("wb") as out:
        writer = FlowWriter(out)
        for one in flows:
            writer.add(one)
    return file


def explain(file: Path, *arguments: str) -> Result:
    given = ["--flow", str(file), "--state", str(file.parent / "state"), *arguments]
    return CliRunner().invoke(explain_command, given)


def test_each_request_is_a_paragraph(folder):
    file = saved(folder, [flow("claude-haiku-4-5"), flow("claude-sonnet-4-5")])
    result = explain(file)
    assert result.exit_code == 0, result.output
    first, second = result.stdout.strip().split("\n\n")
    assert (
        " claude-haiku-4-5 /v1/messages 81 bytes\nrules.yaml:7 #1 matches claude-haiku-4-5\n1. zai: POST "
        in first
    )
    assert "   changed: model claude-haiku-4-5 → glm-4.5-air\n" in first
    assert "rules.yaml:8 rest matches claude-sonnet-4-5" in second
    assert "2. anthropic: POST https://api.anthropic.com/v1/messages?beta=true" in second


def test_json_has_what_the_contract_names(folder):
    result = explain(saved(folder, [flow("claude-haiku-4-5"), flow("claude-fable-1")]), "--json")
    first, second = json.loads(result.stdout)
    assert first == {
        "asked": "claude-haiku-4-5",
        "rule": "#1",
        "target": {"provider": "zai", "model": "glm-4.5-air"},
        "skipped": [],
        "changes": ["model claude-haiku-4-5 → glm-4.5-air", "key swapped", "header authorization dropped"],
    }
    assert (second["rule"], second["target"]) == ("none", {"provider": "upstream", "model": "claude-fable-1"})


def test_skipped_targets_have_a_reason(folder):
    rules = folder / "rules.yaml"
    rules.write_text(RULES.replace("key: zai-key-for-tests", 'key: "${ZAI_API_KEY}"'))
    (said,) = json.loads(explain(saved(folder, [flow("claude-sonnet-4-5")]), "--json").stdout)
    assert said["target"] == {"provider": "anthropic", "model": "claude-sonnet-4-5"}
    assert said["skipped"] == [
        {"provider": "zai", "model": "glm-4.7", "reason": "no-key", "detail": "ZAI_API_KEY is not set"}
    ]


def test_thinking_of_nobody_known_is_dropped_for_others(folder):
    history = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": [thinking_block()]}]
    file = saved(folder, [flow("claude-haiku-4-5", messages=[*history, history[0]])])
    (said,) = json.loads(explain(file, "--json").stdout)
    assert "1 thinking block dropped" in said["changes"]


def test_only_the_two_messages_paths_count_and_the_last_attempt_of_a_request(folder):
    flows = [
        flow("claude-haiku-4-5", path=path) for path in ("/v1/models", "/v1/messages/count_tokens", "/x")
    ]
    failed = flow("claude-haiku-4-5")
    failed.metadata[METADATA] = {"rule": "#1", "attempt": 1, "attempts": 2}
    assert len(json.loads(explain(saved(folder, [*flows, failed]), "--json").stdout)) == 1


def test_flow_of_the_router_is_explained_by_its_clients_request(folder):
    routed = flow("glm-4.7")
    body = json.dumps({"model": "claude-haiku-4-5", "messages": []}).encode()
    kept = {
        "path": "/v1/messages",
        "headers": [],
        "body": body,
        "length": len(body),
        "port": 8082,
        "client": None,
    }
    routed.metadata[REQUEST] = kept
    routed.request.path = "/v1/chat/completions"
    routed.comment = "[haiku|zai] 1→2 3ms"
    routed.metadata[METADATA] = {"rule": "#1", "attempt": 1, "attempts": 1}
    file = saved(folder, [routed])
    assert json.loads(explain(file, "--json").stdout)[0]["asked"] == "claude-haiku-4-5"
    assert "recorded: [haiku|zai] 1→2 3ms\n" in explain(file).stdout
    routed.metadata[REQUEST] = kept | {"body": None, "length": 5_000_000}
    result = explain(saved(folder, [routed]), "--json")
    assert (json.loads(result.stdout), result.exit_code) == ([], 0)
    assert result.stderr == "1 left out: its body of 5,000,000 bytes was too long to be kept\n"


def traffic() -> list[http.HTTPFlow]:
    packed = compressed(message_sse("claude-opus-4-5", usage=USAGE), "gzip")
    whole = message_json("claude-sonnet-4-5", usage=USAGE)
    failed = replace(whole, status=529, chunks=(b'{"type":"error","error":{"type":"overloaded_error"}}',))
    return [
        *(flow("claude-haiku-4-5") for _ in range(3)),
        flow("claude-opus-4-5", packed),
        flow("claude-sonnet-4-5", whole),
        flow("claude-sonnet-4-5", failed),
    ]


def test_other_rules_are_compared_by_requests_tokens_and_cost(folder):
    result = explain(saved(folder, traffic()), "--rules", "other.yaml")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines() if "→" in line or "refused" in line]
    assert rows == [
        ["anthropic", "0", "2", "100→10", "$0.0004"],
        ["local", "0", "3", "300→30", "?"],
        ["refused", "0", "1", "0→0", "$0.0000"],
        ["zai", "6", "500→50", "$0.0010", "0"],
        ["all", "6", "500→50", "$0.0010", "6", "400→40", "$0.0004"],
    ]
    assert "Of 3 requests the price is not known" in result.stdout


@pytest.mark.parametrize("kind", ["flows", "har"])
def test_comparison_as_json_is_the_same_for_har_files(folder, kind):
    file = saved(folder, traffic())
    if kind == "har":
        file = folder / "yesterday.har"
        file.write_text(json.dumps(SaveHar().make_har(traffic())))
    told = json.loads(explain(file, "--rules", "other.yaml", "--json").stdout)
    assert told["before"]["zai"] == {
        "requests": 6,
        "input_tokens": 500,
        "output_tokens": 50,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cost": 0.001,
        "unpriced": 0,
    }
    assert told["after"]["local"]["cost"] is None
    assert told["after"]["local"]["unpriced"] == 3
    assert told["after"]["refused"]["requests"] == 1


def test_wrong_input_is_one_line(folder):
    (folder / "broken").write_bytes(b"no flows at all")
    for arguments, code in (((), 2), (("m", "--flow", "broken"), 2), (("--flow", "missing"), 2)):
        assert CliRunner().invoke(explain_command, arguments).exit_code == code
    result = explain(folder / "broken")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert explain(saved(folder, traffic()), "--rules", "missing.yaml").exit_code == 1


def test_model_is_explained_as_json_too(folder):
    told = CliRunner().invoke(explain_command, ["claude-haiku-4-5", "--json", "--state", str(folder)])
    assert json.loads(told.stdout)["target"] == {"provider": "zai", "model": "glm-4.5-air"}
