"""Signatures of thinking blocks that are made here."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.messages.issued import named_issuer
from signalbox.translate.signature import payload_of, sign

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
def test_nothing_raises(text):
    payload_of(text, "x")
    payload_of(f"signalbox.x.y.{text}", "x")
    sign("x", text, {})
