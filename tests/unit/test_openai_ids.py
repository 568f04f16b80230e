"""Ids of tool calls and signatures of thinking: what they carry, and how they come back."""

import re
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.issued import named_issuer
from signalbox.openai.dialects import DIALECTS
from signalbox.openai.ids import AnswerIds, RequestIds, pack, payload_of, sign, unpack

_LEGAL = re.compile(r"[a-zA-Z0-9_-]+")
_JSON = st.dictionaries(st.text().filter(lambda key: key != "id"), st.none() | st.booleans() | st.text())
_IDS = st.text() | st.from_regex(r"[a-zA-Z0-9_-]*(__sb_)?[a-zA-Z0-9_-]*", fullmatch=True)


@given(_IDS, _JSON)
def test_a_packed_id_is_unpacked(id, extra):
    packed = pack(id, extra)
    assert _LEGAL.fullmatch(packed)
    assert unpack(packed) == (id, extra)


def test_a_legal_id_with_nothing_to_carry_stays():
    assert pack("call_0fypS1hVX", {}) == "call_0fypS1hVX"
    assert unpack("toolu_01ABC") == ("toolu_01ABC", {})


def test_a_packed_id_begins_with_the_readable_id():
    assert pack("functions.Bash:0", {}).startswith("functions_Bash_0__sb_")


def test_a_client_may_be_shown_another_id():
    packed = pack("toolu_seed_0", {"id": "call_0", "google": "c2ln"})
    assert packed.startswith("toolu_seed_0__sb_")
    assert unpack(packed) == ("call_0", {"google": "c2ln"})


@pytest.mark.parametrize("id", ["", "__sb_", "x__sb_", "x__sb_W10", "x__sb_!", "x__sb_e", "x__sb_bnVsbA"])
def test_an_id_that_was_not_packed_stays(id):
    assert unpack(id) == (id, {})


def test_an_id_that_is_no_text_is_not_taken():
    assert unpack(pack("x", {"id": 1})) == ("x", {})


@given(st.text())
def test_nothing_raises(id):
    unpack(id)
    unpack(f"x__sb_{id}")


@given(st.lists(_IDS), st.sampled_from(list(DIALECTS.values())))
def test_ids_of_a_request_are_legal_unique_and_the_same_again(own, dialect):
    ids = RequestIds(dialect.call_id, dialect.new_id)
    sent = [ids.sent(id) for id in own]
    assert all(re.fullmatch(dialect.call_id, id) for id in sent)
    assert len(set(sent)) == len(sent)
    again = RequestIds(dialect.call_id, dialect.new_id)
    assert [again.sent(id) for id in own] == sent


def test_a_legal_id_is_sent_as_it_is():
    ids = RequestIds(DIALECTS["openai"].call_id, DIALECTS["openai"].new_id)
    assert ids.sent("functions.Bash:0") == "functions.Bash:0"
    assert ids.sent("functions.Bash:0") != "functions.Bash:0"


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
def test_an_id_used_again_and_again_is_replaced_in_linear_time(dialect):
    ids, start = RequestIds(DIALECTS[dialect].call_id, DIALECTS[dialect].new_id), process_time()
    assert len({ids.sent("call_0") for _ in range(5000)}) == 5000
    assert process_time() - start < 1


LEGAL = re.compile(r"[a-zA-Z0-9_-]+")


@given(st.lists(st.text() | st.sampled_from(["call_0", "call_9f8e7d6c"])), st.sampled_from(["", "c2ln+/="]))
def test_ids_are_legal_unique_and_lead_back(owns, signature):
    ids = AnswerIds("Seed", "fake")
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
    assert AnswerIds("Seed", "fake").given(own, "Read") == own


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
    assert AnswerIds("One", "fake").given(own, "mcp__context7") != AnswerIds("Two", "fake").given(
        own, "mcp__context7"
    )


_PAYLOAD = {
    "key": "reasoning",
    "reasoning_details": [{"type": "reasoning.text", "text": "Grüße", "index": 0}],
}


def test_a_signature_names_its_provider_and_a_hash_of_the_text():
    first, second = sign("open-router", "a", _PAYLOAD), sign("open-router", "b", _PAYLOAD)
    assert first.startswith("signalbox.open-router.ca978112ca1bbdca.")
    assert first.count(".") == 3
    assert first != second


def test_the_payload_comes_back():
    assert payload_of(sign("kimi", "text", _PAYLOAD), "kimi") == _PAYLOAD
    assert payload_of(sign("kimi", "", {}), "kimi") == {}
    assert named_issuer(sign("kimi", "text", {})) == "kimi"


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "EqQBCkYIARgC",
        "signalbox",
        "signalbox.x.y",
        sign("x", "y", _PAYLOAD) + ".z",
        sign("y", "z", _PAYLOAD),
    ],
)
def test_those_of_others_have_none(signature):
    assert payload_of(signature, "x") == {}


@given(st.text())
def test_a_signature_of_any_form_raises_nothing(text):
    payload_of(text, "x")
    payload_of(f"signalbox.x.y.{text}", "x")
    sign("x", text, {})
