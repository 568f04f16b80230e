"""Ids of tool calls that carry what the provider needs back."""

import re
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.translate.dialects import DIALECTS
from signalbox.translate.ids import Ids, pack, unpack

_LEGAL = re.compile(r"[a-zA-Z0-9_-]+")
_JSON = st.dictionaries(st.text().filter(lambda key: key != "id"), st.none() | st.booleans() | st.text())
_IDS = st.text() | st.from_regex(r"[a-zA-Z0-9_-]*(__sb_)?[a-zA-Z0-9_-]*", fullmatch=True)


@given(_IDS, _JSON)
def test_what_is_packed_comes_back(id, extra):
    packed = pack(id, extra)
    assert _LEGAL.fullmatch(packed)
    assert unpack(packed) == (id, extra)


def test_a_legal_id_with_nothing_to_carry_stays():
    assert pack("call_0fypS1hVX", {}) == "call_0fypS1hVX"
    assert unpack("toolu_01ABC") == ("toolu_01ABC", {})


def test_an_id_stays_readable_before_what_it_carries():
    assert pack("functions.Bash:0", {}).startswith("functions_Bash_0__sb_")


def test_a_client_may_be_shown_another_id():
    packed = pack("toolu_seed_0", {"id": "call_0", "google": "c2ln"})
    assert packed.startswith("toolu_seed_0__sb_")
    assert unpack(packed) == ("call_0", {"google": "c2ln"})


@pytest.mark.parametrize("id", ["", "__sb_", "x__sb_", "x__sb_W10", "x__sb_!", "x__sb_e", "x__sb_bnVsbA"])
def test_what_was_not_packed_stays(id):
    assert unpack(id) == (id, {})


def test_an_id_that_is_no_text_is_not_taken():
    assert unpack(pack("x", {"id": 1})) == ("x", {})


@given(st.text())
def test_nothing_raises(id):
    unpack(id)
    unpack(f"x__sb_{id}")


@given(st.lists(_IDS), st.sampled_from(list(DIALECTS.values())))
def test_ids_of_a_request_are_legal_unique_and_the_same_again(own, dialect):
    ids = Ids(dialect.call_id, dialect.new_id)
    sent = [ids.sent(id) for id in own]
    assert all(re.fullmatch(dialect.call_id, id) for id in sent)
    assert len(set(sent)) == len(sent)
    again = Ids(dialect.call_id, dialect.new_id)
    assert [again.sent(id) for id in own] == sent


def test_a_legal_id_is_sent_as_it_is():
    ids = Ids(DIALECTS["openai"].call_id, DIALECTS["openai"].new_id)
    assert ids.sent("functions.Bash:0") == "functions.Bash:0"
    assert ids.sent("functions.Bash:0") != "functions.Bash:0"


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
def test_an_id_used_again_and_again_is_replaced_in_linear_time(dialect):
    ids, start = Ids(DIALECTS[dialect].call_id, DIALECTS[dialect].new_id), process_time()
    assert len({ids.sent("call_0") for _ in range(5000)}) == 5000
    assert process_time() - start < 1
