"""Any Messages body as a request of the Responses API."""

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.json_edit import Body
from signalbox.responses.dialects import DIALECTS
from signalbox.responses.reasoning import reasoning_owner
from signalbox.responses.request import ResponsesRequest, to_responses
from signalbox.routing.translator import UntranslatableError
from tests.support.chat_bodies import ASSISTANT, BODIES, MESSAGES, SYSTEM, USER
from tests.support.responses_validator import check_request, check_types

OWNER = reasoning_owner("provider", account="key-fake", model="gpt-5.6-sol", key=b"state")
OWN = st.builds(
    lambda blob: {"type": "thinking", "thinking": "hm", "signature": OWNER.signature(f"gAAAA{blob}")},
    st.integers(0, 9),
)


def sent_for(body: dict[str, Any], dialect: str) -> ResponsesRequest:
    raw = json.dumps(body).encode()
    return to_responses(
        Body.parse(raw), model="gpt-5.6-sol", dialect=DIALECTS[dialect], owner=OWNER, session="session-fake"
    )


@given(BODIES, st.sampled_from(sorted(DIALECTS)))
def test_every_body_becomes_a_request_that_the_provider_takes_or_is_refused(body, dialect):
    try:
        sent = sent_for(body, dialect)
    except UntranslatableError:
        return
    asked = json.loads(sent.body)
    check_request(asked, DIALECTS[dialect])
    assert sent.body == sent_for(body, dialect).body


@given(BODIES)
def test_openais_types_take_every_request(body):
    try:
        asked = json.loads(sent_for(body, "openai").body)
    except UntranslatableError:
        return
    check_types(asked)


@st.composite
def with_reasoning(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Messages, some of the assistant's with reasoning of the very model that is asked."""
    messages = draw(MESSAGES)
    for message in messages:
        if message["role"] == "assistant" and isinstance(message.get("content"), list):
            for _ in range(draw(st.integers(0, 2))):
                place = draw(st.integers(0, len(message["content"])))
                message["content"].insert(place, draw(OWN))
    return messages


@given(with_reasoning(), st.lists(USER | SYSTEM | ASSISTANT, min_size=1, max_size=3))
def test_a_turn_begins_with_the_bytes_of_the_turn_before(before, after):
    """Up to an assistant message whose calls had no results yet, which were supplied."""
    before = [*before, {"role": "user", "content": "and now"}]
    first, second = (
        msgspec.json.decode(sent_for({"messages": messages}, "openai").body, type=dict[str, msgspec.Raw])
        for messages in (before, [*before, {"role": "assistant", "content": "So."}, *after])
    )
    assert bytes(second["input"]).startswith(bytes(first["input"])[:-1])


@given(with_reasoning())
def test_reasoning_goes_back_only_before_what_the_model_said_next(messages):
    asked = json.loads(sent_for({"messages": messages}, "openai").body)
    check_request(asked, DIALECTS["openai"])
    other = reasoning_owner("provider", account="key-other", model="gpt-5.6-sol", key=b"state")
    sent = to_responses(
        Body.parse(json.dumps({"messages": messages}).encode()),
        model="gpt-5.6-sol",
        dialect=DIALECTS["openai"],
        owner=other,
        session=None,
    )
    assert "encrypted_content" not in {key for item in json.loads(sent.body)["input"] for key in item}
