"""Encrypted reasoning is carried by the client, and goes back only to the account and model that made it."""

import pytest

from signalbox.anthropic.issued import ThinkingBlock, kept_by, named_issuer
from signalbox.openai.ids import payload_of
from signalbox.responses.reasoning import reasoning_owner

BLOB = "gAAAAABmade-up_encrypted.reasoning=="
OWNER = reasoning_owner("openai", account="key-1", model="gpt-5.6-sol", key=b"state")


def test_the_owner_gets_back_what_it_gave():
    assert OWNER.encrypted_content(OWNER.signature(BLOB)) == BLOB


@pytest.mark.parametrize(
    "other",
    [
        reasoning_owner("azure", account="key-1", model="gpt-5.6-sol", key=b"state"),
        reasoning_owner("openai", account="key-2", model="gpt-5.6-sol", key=b"state"),
        reasoning_owner("openai", account="key-1", model="gpt-5.6-luna", key=b"state"),
        reasoning_owner("openai", account="key-1", model="gpt-5.6-sol", key=b"another state"),
    ],
    ids=["provider", "key", "model", "state folder"],
)
def test_another_owner_gets_nothing(other):
    assert other.encrypted_content(OWNER.signature(BLOB)) == ""


@pytest.mark.parametrize("signature", ["", "EuYBCkQYAiJA", "signalbox.openai.0011223344556677.e30", BLOB])
def test_other_signatures_carry_nothing(signature):
    assert OWNER.encrypted_content(signature) == ""


def test_the_signature_names_its_provider_and_not_its_account():
    signature = OWNER.signature(BLOB)
    assert named_issuer(signature) == "openai"
    assert "key-1" not in signature
    assert payload_of(signature, "openai") == {}, "chat completions of the same provider read nothing in it"


@pytest.mark.parametrize(
    "block", [{"signature": OWNER.signature(BLOB)}, {"data": OWNER.signature(BLOB)}], ids=str
)
def test_a_block_is_kept_for_its_provider_alone(block):
    """Also where the state folder does not know it, as on another machine."""
    thinking = ThinkingBlock("redacted_thinking" if "data" in block else "thinking", **block)
    keeps = {
        name: kept_by(name, lambda _: None, takes_unknown=name == "anthropic")
        for name in ("anthropic", "openai")
    }
    assert (keeps["openai"](thinking), keeps["anthropic"](thinking)) == (True, False)
