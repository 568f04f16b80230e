"""The ids that a client gets for tool calls."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalbox.translate.callids import CallIds
from signalbox.translate.ids import unpack

LEGAL = re.compile(r"[a-zA-Z0-9_-]+")


@settings(deadline=None)
@given(st.lists(st.text() | st.sampled_from(["call_0", "call_9f8e7d6c"])), st.sampled_from(["", "c2ln+/="]))
def test_ids_are_legal_unique_and_lead_back(owns, signature):
    ids = CallIds("Seed", "fake")
    given = [ids.given(own, "Read", {"google": signature} if signature else {}) for own in owns]
    assert len(set(given)) == len(given)
    for own, id in zip(owns, given, strict=True):
        assert LEGAL.fullmatch(id)
        back, extra = unpack(id)
        assert extra.pop("by", "fake") == "fake"
        assert extra == ({"google": signature} if signature else {})
        assert back == own or (not own and back.startswith("toolu_Seed"))


@pytest.mark.parametrize(
    "own",
    ["call_aB3dE5fG7h", "Xy9zK2mQ4", "call_00_Kq8vR2", "call_0123456789abcdef01_readToolCall_0", "toolu_01A"],
)
def test_ids_that_no_other_answer_has_stay_as_they_are(own):
    assert CallIds("Seed", "fake").given(own, "Read") == own


@pytest.mark.parametrize(
    "own",
    [
        "call_0",
        "functions.Bash:0",
        "function-call-12",
        "0",
        "tool",
        "tool_0_mcp__context7",
        "functions.mcp__v2__x:0",
    ],
)
def test_ids_that_another_answer_may_have_become_its_own(own):
    assert CallIds("One", "fake").given(own, "mcp__context7") != CallIds("Two", "fake").given(
        own, "mcp__context7"
    )
