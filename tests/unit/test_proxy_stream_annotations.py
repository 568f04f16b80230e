"""What the router notes in flows: metadata, comment and marker."""

from mitmproxy import http
from mitmproxy.contentviews import Metadata

from signalbox.inspect import views
from tests.support import chat
from tests.support.answers import error_json, json_answer, message_json, message_sse
from tests.support.playbook import Playbook

KEY = "zai-key-for-tests-0001"
RULES = f"""
providers:
  anthropic: {{url: "http://home.invalid", auth: client}}
  zai: &zai
    url: "http://zai.invalid"
    key: "{KEY}"
    prices: {{"glm-*": {{input: 1, output: 2}}}}
  busy: *zai
  chatty: {{url: "http://zai.invalid", key: "{KEY}", api: openai, path: /custom/endpoint}}
  lean: {{url: "http://zai.invalid", key: "{KEY}", budget: {{tokens: 1, per: day, at: 0}}}}
rules:
  - {{match: "*haiku*", to: anthropic}}
  - {{name: coding, match: {{model: "*sonnet*", stream: true}}, to: [zai/glm-4.7, anthropic]}}
  - {{match: "chatty", to: chatty/glm-4.7}}
  - {{name: failing, match: "failing-*", to: [busy/glm-4.7, anthropic]}}
  - {{name: lean, match: "lean", to: [lean/glm-4.7, anthropic]}}
"""


def flow_of(play: Playbook, model: str) -> http.HTTPFlow:
    play.ask(model, stream=True)
    flow = play.flows[-1]
    assert isinstance(flow, http.HTTPFlow)
    return flow


def test_metadata_tell_what_was_changed_and_used(play, zai):
    zai.answer(message_sse("glm-4.7"))
    flow = flow_of(play, "claude-sonnet-4-5")
    noted = flow.metadata["signalbox"]
    assert noted["changes"][0] == "model claude-sonnet-4-5 → glm-4.7"
    assert "key swapped" in noted["changes"]
    expected = {
        "rule": "coding",
        "reason": "rule:coding",
        "provider": "zai",
        "api": "anthropic",
        "model": "glm-4.7",
        "asked_model": "claude-sonnet-4-5",
        "attempt": 1,
        "attempts": 1,
        "session": play.session,
        "client": "",
        "conditions": ["model *sonnet*", "stream true"],
        "skipped": [],
    }
    assert {name: noted[name] for name in expected} == expected
    assert noted["output_tokens"] > 0
    assert isinstance(noted["cost"], float)
    assert flow.comment.endswith("rule=coding attempts=zai:200")
    assert flow.marked == ""


def test_a_request_in_another_api_is_shown_as_such_whatever_its_path(play, zai):
    zai.answer(chat.stream([chat.chunk({"content": "fine"}, "stop"), chat.DONE]))
    flow = flow_of(play, "chatty")
    assert (flow.request.path, flow.metadata["signalbox"]["api"]) == ("/custom/endpoint", "openai")
    metadata = Metadata(flow=flow, http_message=flow.request)
    chosen = max(views.VIEWS, key=lambda view: view.render_priority(flow.request.content or b"", metadata))
    assert chosen.name == "Chat request"


def test_answer_after_a_failover_is_marked(play, zai, home):
    zai.answer(error_json(529, "overloaded_error"))
    flow = flow_of(play, "failing-1")
    noted = flow.metadata["signalbox"]
    assert (noted["provider"], noted["attempt"], noted["attempts"]) == ("anthropic", 2, 2)
    assert flow.marked == ":repeat:"
    assert flow.comment.endswith("↻ 2 attempts rule=failing attempts=busy:529 anthropic:200")


def test_error_that_reached_the_client_is_marked(play, zai, home):
    zai.answer(error_json(529, "overloaded_error"))
    home.answer(error_json(500, "api_error", "it broke"))
    flow = flow_of(play, "failing-2")
    assert flow.marked == ":red_circle:"
    assert "500 api_error: it broke" in flow.comment


def test_request_that_a_spent_budget_redirects_is_marked(play, home):
    flow = flow_of(play, "lean")
    assert flow.metadata["signalbox"]["reason"] == "budget"
    assert flow.metadata["signalbox"]["skipped"][0].startswith("lean/glm-4.7: budget, ")
    assert flow.marked == ":twisted_rightwards_arrows:"


def test_request_that_no_rule_matches_has_metadata_too(play, played_router):
    played_router.provider("upstream").answer(message_json("claude-opus-4-5"))
    noted = flow_of(play, "claude-opus-4-5").metadata["signalbox"]
    assert (noted["rule"], noted["reason"], noted["changes"]) == ("none", "no-rule", [])
    assert noted["asked_model"] == noted["model"] == "claude-opus-4-5"


def test_to_count_tokens_has_no_price(play, zai):
    zai.answer(json_answer({"input_tokens": 77}))
    body = b'{"model": "claude-sonnet-4-5", "stream": true, "messages": []}'
    assert play.fetch("POST /v1/messages/count_tokens", body).status == 200
    flow = play.flows[-1]
    assert (flow.metadata["signalbox"]["input_tokens"], flow.metadata["signalbox"]["cost"]) == (77, None)
    assert "$" not in flow.comment
