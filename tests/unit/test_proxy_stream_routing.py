"""Who gets what by the rules: host, path, key, model and body of a request, and nothing of the caller's."""

import gzip
import json

import pytest

from tests.support.answers import Answer, json_answer, message_json, message_sse, thinking_block
from tests.support.playbook import Playbook, PlayedRouter, Provider, played
from tests.support.played_wire import Asked, Got, user
from tests.unit.test_routing_credentials import HARMLESS_HEADERS, SECRET_HEADERS

LOGIN = "Bearer sk-ant-oat01-fake-login-of-nobody"
KEY = "zai-key-for-tests-0001"
COUNT = "/v1/messages/count_tokens?beta=true"
RULES = f"""
providers:
  anthropic: {{url: "http://home.invalid", auth: client}}
  zai: {{url: "http://zai.invalid/api/anthropic", key: "{KEY}"}}
  up: {{url: "http://up.invalid", key: up-key-for-tests-0001, headers: {{Helicone-Auth: "Bearer named-by-the-user"}}}}
  nokey: {{url: "http://zai.invalid", key: "${{UNSET_KEY_FOR_TESTS}}"}}
  reader: {{url: "http://zai.invalid", key: "{KEY}", count_tokens: estimate}}
  silent: {{url: "http://zai.invalid", key: "{KEY}", count_tokens: reject}}
rules:
  - {{match: "*haiku*", to: zai/glm-4.5-air}}
  - {{name: coding, match: "*sonnet*", to: [nokey/x, zai/glm-4.7]}}
  - {{match: "up*", to: up}}
  - {{match: "count-here", to: reader}}
  - {{match: "count-never", to: silent}}
  - {{match: "nobody", to: nokey}}
  - {{match: "never", to: [nokey, {{reject: 418, message: "not today"}}]}}
  - {{match: "leaky", to: {{provider: zai, headers: {{X-Note: "sk-ant-api03-fake-of-someone"}}}}}}
  - {{match: {{class: [compaction, auxiliary]}}, to: zai/glm-4.5-flash}}
  - {{match: {{project: "*/shop"}}, to: up/of-the-shop}}
  - {{match: {{model: "*opus*", header: {{host: "127.0.0.2:*"}}}}, to: up/of-work}}
  - {{match: "*opus*", to: anthropic}}
"""  # noqa: E501  as rules are written


@pytest.fixture
def upstream(played_router) -> Provider:
    """Of the listener: where no rule matches."""
    return played_router.provider("upstream")


def post(play: Playbook, body: bytes, path: str = "/v1/messages", *lines: str, **headers: str) -> Got:
    """Ask as Claude Code with a login does."""
    return play.fetch(f"POST {path}", body, *lines, **({"Authorization": LOGIN} | headers))


def of(model: str) -> bytes:
    return json.dumps({"model": model, "max_tokens": 64, "messages": [user("hi")]}).encode()


def test_rules_see_the_host_that_the_client_asked_for(play, up, home):
    post(play, of("claude-opus-4-5"), Host="127.0.0.2:8082")
    (sent,) = up.requests
    assert (sent.json["model"], sent.header("host")) == ("of-work", "up.invalid")
    post(play, of("claude-opus-4-5"), Host="localhost:8082")
    assert home.requests[0].header("host") == "home.invalid"


def test_a_tier_goes_to_its_provider_with_that_providers_host_key_and_model(play, zai):
    got = post(play, of("claude-haiku-4-5"), "/v1/messages?beta=true")
    (sent,) = zai.requests
    assert sent.path == "/api/anthropic/v1/messages?beta=true"
    assert sent.header("host") == "zai.invalid"
    assert (sent.header("x-api-key"), sent.header("authorization")) == (KEY, None)
    assert sent.json["model"] == "glm-4.5-air"
    assert (got.status, json.loads(got.body)["model"]) == (200, "claude-haiku-4-5")
    told = {
        name.removeprefix("x-signalbox-"): value for name, value in got.headers.items() if "signalbox" in name
    }
    assert told == {"provider": "zai", "model": "glm-4.5-air", "rule": "#1", "attempts": "zai:200"}


def test_another_tier_goes_on_the_callers_own_login_byte_for_byte(play, home):
    raw = b'{ "model":"claude-opus-4-5", "x": 1.0e1, "messages": [ ] }'
    got = post(play, raw, **{"anthropic-beta": "oauth-2025-04-20", "Cookie": "a=b"})
    (sent,) = home.requests
    assert sent.body == raw
    assert sent.header("authorization") == LOGIN
    assert sent.header("anthropic-beta") == "oauth-2025-04-20"
    assert sent.header("cookie") == "a=b"
    assert got.body == message_json("claude-opus-4-5").body
    assert got.headers["x-signalbox-provider"] == "anthropic"


def test_a_target_without_a_key_is_passed_over_and_the_log_says_why(play, zai, caplog):
    got = post(play, of("claude-sonnet-4-5"))
    assert zai.requests[0].json["model"] == "glm-4.7"
    assert got.headers["x-signalbox-rule"] == "coding"
    assert "dispatch: zai reason=no-key model=claude-sonnet-4-5 rewrite=glm-4.7" in caplog.text


def test_where_no_rule_matches_the_request_goes_to_the_reverse_upstream_as_it_came(play, upstream, caplog):
    got = post(play, of("some-other-model"), X_Claude_Code_Session_Id="s")
    (sent,) = upstream.requests
    assert sent.json["model"] == "some-other-model"
    assert sent.header("x-claude-code-session-id") == "s"
    assert got.headers["x-signalbox-rule"] == "none"
    assert "reason=no-rule model=some-other-model" in caplog.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"messages":[]}',
        b'{"model":7}',
        b'{"model":"claude-haiku-4-5","model":"claude-opus-4-5"}',
        b'{"model":"claude-haiku-4-5","a":"\xff"}',
        b'{"model":"claude-haiku-4-5","a":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b"\x00\x01\x02",
    ],
    ids=["empty", "cut", "a list", "no model", "a number", "model twice", "not UTF-8", "nested", "binary"],
)
def test_a_body_that_names_no_model_goes_to_the_reverse_upstream_as_it_came(play, upstream, body):
    upstream.answer(message_json())
    assert post(play, body).status == 200
    assert [sent.body for sent in upstream.requests] == [body]


def test_a_compressed_body_is_understood(play, home, zai):
    raw = json.dumps({"model": "claude-haiku-4-5", "messages": []}).encode()
    post(play, gzip.compress(raw), Content_Encoding="gzip")
    (sent,) = zai.requests
    assert sent.json == {"model": "glm-4.5-air", "messages": []}
    assert sent.header("content-encoding") is None
    same = gzip.compress(b'{"model":"claude-opus-4-5"}')
    home.answer(message_json())
    post(play, same, Content_Encoding="gzip")
    assert (home.requests[0].body, home.requests[0].header("content-encoding")) == (same, "gzip")


def test_a_body_of_an_unknown_coding_goes_to_the_reverse_upstream_as_it_came(play, upstream):
    upstream.answer(message_json())
    post(play, b"???", Content_Encoding="rot13")
    assert upstream.requests[0].body == b"???"


def test_nobody_available_is_said_with_the_cause_and_without_asking_to_retry(play):
    got = post(play, of("nobody"))
    assert (got.status, got.headers["x-should-retry"]) == (503, "false")
    assert got.error["type"] == "api_error"
    assert "UNSET_KEY_FOR_TESTS is not set" in got.error["message"]


def test_a_rule_may_end_in_a_refusal(play):
    got = post(play, of("never"))
    assert got.status == 418
    assert got.error == {"type": "invalid_request_error", "message": "not today"}


def test_tokens_are_counted_by_the_provider(play, zai):
    assert json.loads(post(play, of("claude-haiku-4-5"), COUNT).body) == {"input_tokens": 42}
    assert zai.requests[0].path == "/api/anthropic/v1/messages/count_tokens?beta=true"


def test_tokens_are_counted_here_or_not_where_the_rules_say_so(play, zai):
    assert 0 < json.loads(post(play, of("count-here"), COUNT).body)["input_tokens"] < 20
    refused = post(play, of("count-never"), COUNT)
    assert (refused.status, "usage" in refused.error["message"]) == (501, True)
    assert zai.requests == []


def test_a_class_of_requests_goes_to_a_model_of_its_own(play, zai):
    post(play, of("claude-opus-4-5"), X_Claude_Code_Request_Class="compaction")
    assert zai.requests[-1].json["model"] == "glm-4.5-flash"


def test_a_project_goes_to_an_account_of_its_own_which_is_not_told_which(play, up):
    post(play, of("claude-opus-4-5"), X_Signalbox_Project="/home/ann/shop")
    (sent,) = up.requests
    assert sent.json["model"] == "of-the-shop"
    assert "shop" not in str(sent.headers)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages", of("claude-haiku-4-5")),
        ("/v1/messages", of("nobodys-model")),
        ("/v1/messages", b"{}"),
        ("/v1/messages/count_tokens", of("claude-opus-4-5")),
        ("/v1/messages/batches", b"{}"),
    ],
    ids=["another provider", "no rule", "no model", "count_tokens", "pipe"],
)
def test_the_project_is_told_to_nobody(play, zai, home, upstream, path, body):
    post(play, body, path, X_Signalbox_Project="/home/ann/work", X_Kept="1")
    (sent,) = [*zai.requests, *home.requests, *upstream.requests]
    assert sent.header("x-kept") == "1"
    assert "x-signalbox-project" not in sent.headers


def test_another_path_is_a_pipe_to_the_reverse_upstream(play, upstream):
    got = post(play, of("claude-haiku-4-5"), "/v1/messages/batches")
    assert upstream.requests[0].json["model"] == "claude-haiku-4-5"
    assert "x-signalbox-provider" not in got.headers


def test_without_rules_everything_is_a_pipe(tmp_path):
    with played(tmp_path, "") as router:
        upstream = router.provider("upstream")
        post(router.connect(), of("claude-haiku-4-5"))
        assert upstream.requests[0].header("authorization") == LOGIN


def test_a_redirect_of_a_provider_does_not_lead_the_client_away(play, zai):
    zai.answer(Answer(307, (("Location", "http://elsewhere.invalid/"),), ()))
    got = post(play, of("claude-haiku-4-5"))
    assert got.status == 307
    assert "elsewhere" not in str(got)


# credentials


@pytest.fixture
def odd_headers() -> list[tuple[str, str]]:
    """One of each name: what is sent twice may be refused."""
    found = {name.lower(): (name, value) for name, value in SECRET_HEADERS if name != "Authorization"}
    return list(found.values())


def test_no_credential_of_the_caller_reaches_another_provider(play, up, odd_headers):
    path = "/v1/messages?beta=true&k=%73k%2Dant-fake"
    lines = [": ".join(header) for header in (*odd_headers, *HARMLESS_HEADERS)]
    assert post(play, of("up-x"), path, *lines).status == 200
    (sent,) = up.requests
    own = {"host", "content-length", "x-api-key", "helicone-auth", "accept-encoding", "anthropic-beta"}
    harmless = {name.lower() for name, _ in HARMLESS_HEADERS}
    assert set(sent.headers) - own <= harmless
    assert set(sent.headers) >= harmless - {"x-note"}
    assert sent.header("x-api-key") == "up-key-for-tests-0001"
    assert sent.header("helicone-auth") == "Bearer named-by-the-user"
    assert sent.path == "/v1/messages?beta=true"


def test_to_anthropic_itself_the_caller_sends_what_it_likes(play, home, odd_headers):
    lines = [": ".join(header) for header in odd_headers]
    assert post(play, of("opus"), "/v1/messages?key=of-the-caller", *lines).status == 200
    (sent,) = home.requests
    assert {name.lower() for name, _ in odd_headers} - set(sent.headers) == {"x-signalbox-client"}
    assert sent.path == "/v1/messages?key=of-the-caller"


def test_a_foreign_anthropic_credential_in_a_providers_headers_is_refused_at_the_last_look(play, zai, caplog):
    got = post(play, of("leaky"))
    assert got.status == 500
    assert "X-Note" in got.error["message"]
    assert zai.requests == []
    assert "fake-of-someone" not in caplog.text


def test_headers_that_stand_twice_keep_their_values(play):
    twice = ["Cookie: a=1", "X-Token: k1", "Cookie: b=2", "X-Token: k2"]
    post(play, of("claude-opus-4-5"), "/v1/messages", *twice)
    sent = play.sent_to(play.connects()).decode().split("\r\n")
    assert [line for line in sent if line in twice] == twice


# thinking

HOME_SIGNATURE, ZAI_SIGNATURE = "aXNzdWVkIGF0IGhvbWU", "aXNzdWVkIGJ5IHphaQ"


def thinking_history(*signatures: str) -> list[dict[str, object]]:
    """A conversation in which an answer with each of these signatures was given, and the next question."""
    messages: list[dict[str, object]] = [user("question")]
    for signature in signatures:
        thinking = {"type": "thinking", "thinking": "hm", "signature": signature}
        messages.append({"role": "assistant", "content": [thinking, {"type": "text", "text": "answer"}]})
        messages.append(user("question"))
    return messages


def asks(play: Playbook, model: str, *signatures: str) -> Asked:
    play.ask(model, stream=True, messages=thinking_history(*signatures))
    return play.asked[-1]


def test_thinking_goes_back_only_to_the_provider_that_issued_it(play, home, zai):
    home.answer(message_sse("m", before=[thinking_block(signature=HOME_SIGNATURE)]))
    zai.answer(message_sse("m", before=[thinking_block(signature=ZAI_SIGNATURE)]))
    asks(play, "claude-opus-4-5")
    asks(play, "claude-haiku-4-5")
    both = (HOME_SIGNATURE, ZAI_SIGNATURE)
    to_zai, to_home = asks(play, "claude-haiku-4-5", *both), asks(play, "claude-opus-4-5", *both)
    assert [signature.encode() in to_zai.body for signature in both] == [False, True]
    assert [signature.encode() in to_home.body for signature in both] == [True, False]


def test_thinking_that_nobody_here_issued_goes_to_anthropic_alone(play, home, zai):
    assert b"dW5zZWVu" in asks(play, "claude-opus-4-5", "dW5zZWVu").body
    assert b"dW5zZWVu" not in asks(play, "claude-haiku-4-5", "dW5zZWVu").body


def scripted(router: PlayedRouter) -> Playbook:
    router.provider("home")
    router.provider("zai").answer(message_sse("m", before=[thinking_block(signature=ZAI_SIGNATURE)]))
    return router.connect()


def test_who_issued_what_is_known_after_a_restart(tmp_path):
    with played(tmp_path, RULES) as router:
        asks(scripted(router), "claude-haiku-4-5")
    with played(tmp_path, RULES) as router:
        play = scripted(router)
        assert ZAI_SIGNATURE.encode() not in asks(play, "claude-opus-4-5", ZAI_SIGNATURE).body
        assert ZAI_SIGNATURE.encode() in asks(play, "claude-haiku-4-5", ZAI_SIGNATURE).body


SESSION = "user_0123_account__session_00000000-0000-4000-8000-000000000000"


def test_a_session_has_one_name_at_all_other_providers_and_keeps_it(tmp_path):
    seen = {}
    for model in ("claude-haiku-4-5", "up-x", "claude-opus-4-5"):
        with played(tmp_path, RULES) as router:
            providers = [router.provider(name) for name in ("home", "zai", "up")]
            router.connect().ask(model, metadata={"user_id": SESSION})
            (sent,) = [sent for provider in providers for sent in provider.requests]
            seen[model] = sent.json["metadata"]["user_id"]
    zai, up, home = seen.values()
    assert home == SESSION
    assert zai == up
    assert zai.startswith("user_")


@pytest.mark.parametrize("path", ["/v1/messages", COUNT])
def test_without_rules_an_answer_on_the_messages_paths_says_who_gave_it(tmp_path, path):
    with played(tmp_path, "rules: []\n") as router:
        router.provider("upstream").answer(json_answer({"a": 1}, headers=(("X-Request-Id", "of-upstream"),)))
        got = post(router.connect(), b"not JSON", path)
    told = ("provider", "rule", "attempts")
    assert [got.headers[f"x-signalbox-{name}"] for name in told] == ["upstream", "none", "upstream:200"]
    assert got.headers["request-id"] == "of-upstream"
    assert "x-signalbox-model" not in got.headers
    assert got.body == b'{"a":1}'
