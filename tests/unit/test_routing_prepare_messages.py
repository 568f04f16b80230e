"""What one target is sent that speaks the Messages API itself."""

import json
import re
from fnmatch import translate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.issued import ThinkingBlock
from signalbox.anthropic.json_edit import Body
from signalbox.config.fields import Glob, Secret, Url
from signalbox.config.rules import BodyEdit, Provider, Target
from signalbox.routing.facts import Facts
from signalbox.routing.outgoing import Incoming, Outgoing, ProviderConstraints, thinking_filter
from signalbox.routing.plan import Candidate
from signalbox.routing.prepare import prepare_messages

KEY = "key-of-the-provider"
ZAI = {"url": Url("https", "api.example.com", 443, "/api/anthropic"), "auth": "key", "keys": (Secret(KEY),)}
GLM = Glob("glm-*", re.compile(translate("glm-*")))
HOME = {"url": Url("https", "api.anthropic.com", 443), "auth": "client", "beta": "forward"}
RAW = (
    b'{ "model" : "claude-sonnet-4-5","max_tokens":64000, "n": 1.0e2,'
    b' "messages":[{"role":"user","content":"\\u00e9"}]}'
)


def send(
    provider: dict[str, Any],
    raw: bytes = RAW,
    model: str | None = None,
    path: str = "/v1/messages?beta=true",
    headers: tuple[tuple[str, str], ...] = (
        ("Host", "127.0.0.1"),
        ("Authorization", "Bearer sk-ant-oat-fake"),
    ),
    target: Target | None = None,
    issuer: str | None = None,
    refused: bool = False,
    rejected: frozenset[str] = frozenset(),
    lone: bool = True,
    wire: bytes | None = None,
) -> Outgoing:
    body = Body.parse(raw)
    facts = Facts(path=path.partition("?")[0], port=1, headers={}, body=body)
    candidate = Candidate(Provider(name="p", **provider), target or Target("p"), model or facts.asked)
    incoming = Incoming(path, headers, raw if wire is None else wire, body)
    key = candidate.provider.key
    constraints = ProviderConstraints(lambda _: issuer, rejected, refused)
    return prepare_messages(
        candidate, facts, incoming, key=key, constraints=constraints, is_only_candidate=lone
    )


def header(outgoing: Outgoing, name: str) -> str | None:
    return next((value for key, value in outgoing.headers if key.lower() == name), None)


def test_an_unchanged_request_to_the_callers_own_login_is_the_bytes_that_came():
    wire = b"compressed bytes stand for the body"
    headers = (
        ("Host", "127.0.0.1:8082"),
        ("X-Odd", " 1"),
        ("content-encoding", "gzip"),
        ("Content-length", "35"),
        ("Authorization", "x"),
    )
    outgoing = send(HOME, headers=headers, wire=wire)
    assert outgoing.body is wire
    assert outgoing.headers == (("Host", "api.anthropic.com"), *headers[1:])
    assert outgoing.path == "/v1/messages?beta=true"


def test_a_request_that_came_without_a_length_leaves_with_one():
    assert header(send(HOME), "content-length") == str(len(RAW))
    assert header(send(HOME, headers=(("Transfer-Encoding", "chunked"),)), "content-length") is None


def test_another_model_changes_only_the_models_bytes_and_is_echoed():
    outgoing = send(ZAI, model="glm-4.7")
    assert outgoing.body == RAW.replace(b'"claude-sonnet-4-5"', b'"glm-4.7"')
    assert outgoing.translator.response_model == "claude-sonnet-4-5"
    assert header(outgoing, "content-length") == str(len(outgoing.body))


def test_the_url_keeps_the_providers_prefix_and_the_clients_query():
    outgoing = send(ZAI)
    assert outgoing.path == "/api/anthropic/v1/messages?beta=true"
    assert header(outgoing, "host") == "api.example.com"


def test_path_and_query_of_the_provider_replace_and_extend():
    outgoing = send(ZAI | {"path": "/deployments/x/messages", "query": {"api-version": "2026 1"}})
    assert outgoing.path == "/api/anthropic/deployments/x/messages?beta=true&api-version=2026+1"
    counted = send(ZAI | {"path": "/deployments/x/messages"}, path="/v1/messages/count_tokens")
    assert counted.path == "/api/anthropic/v1/messages/count_tokens"


def test_the_providers_key_replaces_the_callers_credentials():
    outgoing = send(ZAI)
    assert header(outgoing, "x-api-key") == KEY
    assert header(outgoing, "authorization") is None


def test_headers_are_set_once_and_an_empty_value_removes():
    extra = {"user-agent": "signalbox", "X-Title": "t", "accept": ""}
    headers = (("User-Agent", "claude-cli"), ("Accept", "*/*"), ("user-agent", "again"))
    outgoing = send(
        ZAI | {"headers": extra}, headers=headers, target=Target("p", headers={"X-Title": "mine"})
    )
    assert [value for key, value in outgoing.headers if key.lower() == "user-agent"] == ["signalbox"]
    assert header(outgoing, "x-title") == "mine"
    assert header(outgoing, "accept") is None


def test_the_targets_body_edits_come_after_the_providers():
    provider = ZAI | {"body": BodyEdit(set={"temperature": 1, "a": [1]}, drop=("n",))}
    outgoing = send(provider, target=Target("p", body=BodyEdit(set={"n": 2}, drop=("a",))))
    sent = json.loads(outgoing.body)
    assert sent["temperature"] == 1
    assert sent["n"] == 2
    assert "a" not in sent


@pytest.mark.parametrize(("bound", "sent"), [(8192, 8192), (100_000, 64000)])
def test_max_tokens_is_an_upper_bound_for_the_model_as_sent(bound, sent):
    outgoing = send(ZAI | {"max_tokens": ((GLM, bound),)}, model="glm-4.7")
    assert json.loads(outgoing.body)["max_tokens"] == sent


BETAS = "claude-code-20250219,oauth-2025-04-20,context-1m-2025-08-07"


@pytest.mark.parametrize(
    ("provider", "beta", "left"),
    [
        (HOME, "forward", BETAS),
        (ZAI, "forward", BETAS),
        (ZAI, "learn", "claude-code-20250219"),
        (ZAI, "drop", None),
        (ZAI, ("context-1m-2025-08-07", "unseen"), "context-1m-2025-08-07"),
    ],
)
def test_betas_go_as_the_provider_says(provider, beta, left):
    outgoing = send(provider | {"beta": beta}, headers=(("Anthropic-Beta", BETAS),))
    assert header(outgoing, "anthropic-beta") == left


PAIRED = (
    b'{"model":"m","context_management":{"edits":[]},"output_config":{"effort":"high"},'
    b'"tools":[{"name":"t","defer_loading":true}],"messages":[]}'
)
PAIRS = (("anthropic-beta", "context-management-2025-06-27,effort-2025-11-24,advanced-tool-use-2025-11-20"),)


def test_a_field_that_a_provider_rejects_goes_with_its_beta():
    outgoing = send(
        ZAI, PAIRED, headers=PAIRS, rejected=frozenset({"context_management", "tools.defer_loading"})
    )
    assert header(outgoing, "anthropic-beta") == "effort-2025-11-24"
    sent = json.loads(outgoing.body)
    assert "context_management" not in sent
    assert sent["tools"] == [{"name": "t"}]
    assert sent["output_config"] == {"effort": "high"}


def test_the_fields_of_a_beta_that_stays_home_stay_with_it():
    outgoing = send(ZAI | {"beta": ("effort-2025-11-24",)}, PAIRED, headers=PAIRS)
    assert header(outgoing, "anthropic-beta") == "effort-2025-11-24"
    assert set(json.loads(outgoing.body)) == {"model", "output_config", "tools", "messages"}


def test_what_belongs_to_a_beta_that_goes_along_is_not_touched():
    assert send(ZAI | {"beta": "forward"}, PAIRED, headers=PAIRS).body == PAIRED
    assert send(ZAI, PAIRED, headers=PAIRS).body == PAIRED


def test_a_model_with_1m_takes_its_beta_along_when_it_leaves_anthropic():
    raw = b'{"model":"sonnet[1m]"}'
    outgoing = send(ZAI | {"beta": "forward"}, raw, model="glm", headers=(("anthropic-beta", BETAS),))
    assert header(outgoing, "anthropic-beta") == "claude-code-20250219,oauth-2025-04-20"


@pytest.mark.parametrize(
    ("provider", "model", "lone", "expected"),
    [
        (HOME, None, True, "gzip"),
        (HOME, None, False, "identity"),
        (HOME, "other", True, "identity"),
        (ZAI, None, True, "identity"),
    ],
)
def test_a_compressed_answer_is_asked_for_only_where_nothing_in_it_changes(provider, model, lone, expected):
    outgoing = send(provider, model=model, lone=lone, headers=(("Accept-Encoding", "gzip"),))
    assert header(outgoing, "accept-encoding") == expected


def test_a_compressed_body_goes_to_others_as_it_reads():
    headers = (("Content-Encoding", "gzip"), ("Transfer-Encoding", "chunked"))
    outgoing = send(ZAI, headers=headers, wire=b"gzipped")
    assert outgoing.body == RAW
    assert header(outgoing, "content-encoding") is None
    assert header(outgoing, "transfer-encoding") is None
    assert header(outgoing, "content-length") == str(len(RAW))


THINKING = json.dumps(
    {
        "model": "m",
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: v=1"},
            {"type": "text", "text": "Be brief."},
        ],
        "messages": [
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "t", "signature": "s"},
                    {"type": "text", "text": "ho"},
                ],
            },
        ],
    }
).encode()


@pytest.mark.parametrize(
    ("mode", "issuer", "stays"),
    [
        ("own", "p", True),
        ("own", "another", False),
        ("own", None, False),
        ("keep", "another", True),
        ("strip", "p", False),
    ],
)
def test_thinking_goes_to_its_issuer_unless_the_provider_says_otherwise(mode, issuer, stays):
    outgoing = send(ZAI | {"thinking": mode}, THINKING, issuer=issuer)
    assert (b'"thinking"' in outgoing.body) is stays
    assert ("1 thinking block dropped" in outgoing.changes) is not stays


def test_signed_thinking_of_unknown_issue_goes_to_anthropic():
    assert send(HOME, THINKING).body == THINKING
    assert b'"thinking"' not in send(HOME, THINKING, issuer="zai").body


@pytest.mark.parametrize("mode", ["own", "keep", "strip"])
def test_thinking_that_was_refused_does_not_go_again(mode):
    assert b'"thinking"' not in send(HOME | {"thinking": mode}, THINKING, issuer="p", refused=True).body


@pytest.mark.parametrize("mode", ["own", "keep"])
def test_thinking_that_was_refused_in_an_earlier_turn_stays_out(mode):
    provider = Provider(name="p", **(ZAI | {"thinking": mode}))
    block = ThinkingBlock("thinking", "hm", "c2ln")
    digest = block.digest(b"key")
    assert digest is not None
    for refused in (frozenset[bytes](), frozenset({digest})):
        constraints = ProviderConstraints(lambda _: "p", refused=refused, key=b"key")
        keeps = thinking_filter(Candidate(provider, Target("p"), "m"), constraints)
        assert keeps(block) is not bool(refused)


def test_the_billing_block_goes_to_anthropic_alone():
    assert b"billing" not in send(ZAI, THINKING).body
    assert send(HOME, THINKING).body == THINKING


def test_ids_of_session_and_account_go_to_anthropic_alone():
    raw = b'{"model":"m","messages":[],"metadata":{"user_id":"{\\"session_id\\":\\"s1\\"}"}}'
    outgoing = send(ZAI, raw)
    assert b"s1" not in outgoing.body
    assert json.loads(outgoing.body)["metadata"]["user_id"].startswith("user_")
    assert "metadata.user_id replaced" in outgoing.notes
    assert send(HOME, raw).body == raw


def test_a_provider_may_be_told_another_user():
    raw = b'{"model":"m","metadata":{"user_id":"s1"}}'
    body = BodyEdit(set={"metadata": {"user_id": "team"}}, drop=())
    assert json.loads(send(ZAI | {"body": body}, raw).body)["metadata"] == {"user_id": "team"}


def test_an_estimate_stands_by_only_for_others():
    assert not send(HOME).estimates
    assert send(ZAI).estimates


def test_what_was_changed_is_noted_without_values():
    notes = send(ZAI | {"headers": {"X-Title": "t"}}, model="glm-4.7").changes
    assert "model claude-sonnet-4-5 → glm-4.7" in notes
    assert "key swapped" in notes
    assert "header X-Title set" in notes
    assert "header authorization dropped" in notes
    assert not any(KEY in note or "sk-ant" in note for note in notes)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


untouched = st.text().filter(lambda name: name not in ("metadata", "thinking", "system", "messages"))


@given(st.dictionaries(untouched, json_values), st.sampled_from([None, 1, "\t"]))
def test_any_body_without_a_touched_field_comes_out_identical(fields, indent):
    raw = json.dumps(fields | {"model": "m"}, indent=indent).encode()
    assert send(ZAI, raw).body == raw


@given(st.dictionaries(st.text(), json_values), st.text(min_size=1))
def test_only_the_models_bytes_change(fields, model):
    raw = json.dumps({"a": 1} | fields | {"model": "asked-by-the-client"}).encode()
    sent = send(HOME, raw, model=model).body
    assert json.loads(sent) == json.loads(raw) | {"model": model}
    before, _, after = raw.rpartition(b'"asked-by-the-client"')
    assert sent.startswith(before)
    assert sent.endswith(after)


@pytest.mark.parametrize("provider", ["p", "other"])
def test_encrypted_reasoning_of_another_protocol_goes_though_all_thinking_is_kept(provider):
    signed = [f"signalbox.{provider}.responses-0011223344556677.gAAAA-fake", "of-glm"]
    content = [{"type": "thinking", "thinking": "hm", "signature": signature} for signature in signed]
    messages = [{"role": "assistant", "content": content}, {"role": "user", "content": "c"}]
    raw = json.dumps({"model": "glm-5", "messages": messages}).encode()
    sent = json.loads(send(ZAI | {"thinking": "keep"}, raw).body)
    assert sent["messages"][0]["content"] == content[1:]


SEARCHED = (
    b'{"model":"m","n": 1.0e2,"messages":[{"role":"assistant","content":['
    b'{"type":"server_tool_use","id":"srvtoolu_%b","name":"web_search","input":{"query":"a"}},'
    b'{"type":"web_search_tool_result","tool_use_id":"srvtoolu_%b","content":[{"type":"web_search_result",'
    b'"title":"A","url":"https://a.example","encrypted_content":"%b"}]}]}]}'
)


def test_a_search_made_of_another_protocol_goes_to_every_provider_as_text():
    raw = SEARCHED % (b"sb_1", b"sb_1", b"")
    for provider in (ZAI, ZAI | {"claude": True}, HOME):
        outgoing = send(provider, raw)
        assert json.loads(outgoing.body)["messages"][0]["content"] == [
            {"type": "text", "text": "A https://a.example"}
        ]
        assert b'"n": 1.0e2' in outgoing.body
    assert "2 search blocks sent as text" in send(ZAI, raw).notes


@pytest.mark.parametrize("encrypted", [b"", b"EqgfCioIARgBIiQ3"])
def test_a_search_of_an_anthropic_format_provider_goes_to_others_of_its_kind_as_it_came(encrypted):
    raw = SEARCHED % (b"01A", b"01A", encrypted)
    assert send(ZAI, raw).body == raw
