"""What identifies a thinking block, and how it is read from an answer."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.issued import (
    DIGEST,
    MADE_HERE,
    MOST,
    ThinkingBlock,
    ThinkingDigester,
    kept_by,
    named_issuer,
)
from signalbox.anthropic.json_edit import Body
from signalbox.anthropic.sse import Event

KEY = b"key for tests"
SIGNED = ThinkingBlock("thinking", "Some text.", "signature")


def streamed(*events: dict[str, Any]) -> list[bytes]:
    digester = ThinkingDigester(KEY, [])
    for event in events:
        digester.event(encoded(event))
    return digester.digests


def encoded(event: dict[str, Any]) -> Event:
    return Event("", json.dumps(event, separators=(",", ":")).encode())


def start(**block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": 0, "content_block": block}


def delta(**delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": delta}


STOP = {"type": "content_block_stop", "index": 0}
THINKING = start(type="thinking", thinking="", signature="")


def digests(*blocks: ThinkingBlock) -> list[bytes | None]:
    return [block.digest(KEY) for block in blocks]


@pytest.mark.parametrize(
    "other",
    [
        ThinkingBlock("thinking", "", "signature"),
        ThinkingBlock("thinking", "Other text.", "signature"),
        ThinkingBlock("thinking", None, "signature"),
    ],
)
def test_a_signed_block_is_known_whatever_is_shown_of_its_text(other):
    assert digests(other) == digests(SIGNED)


def test_kinds_values_and_keys_are_distinguished():
    blocks = [
        SIGNED,
        ThinkingBlock("thinking", "signature"),
        ThinkingBlock("redacted_thinking", data="signature"),
        ThinkingBlock("thinking", "Some text."),
    ]
    found = {block.digest(key) for block in blocks for key in (KEY, b"another key")}
    assert len(found) == 8
    assert all(len(digest or b"") == DIGEST for digest in found)


@pytest.mark.parametrize(
    "block",
    [
        ThinkingBlock("thinking", ""),
        ThinkingBlock("thinking", None, ""),
        ThinkingBlock("redacted_thinking", data=""),
    ],
)
def test_a_block_with_nothing_in_it_is_recognized_by_nothing(block):
    assert block.digest(KEY) is None
    assert not block.signed


@pytest.mark.parametrize(
    ("issuer", "to_anthropic", "to_zai"),
    [("anthropic", True, False), ("zai", False, True), ("kimi", False, False), (None, True, False)],
)
def test_own_blocks_stay_and_unknown_ones_with_anthropic(issuer, to_anthropic, to_zai):
    assert kept_by("anthropic", lambda _: issuer, takes_unknown=True)(SIGNED) is to_anthropic
    assert kept_by("zai", lambda _: issuer, takes_unknown=False)(SIGNED) is to_zai


@pytest.mark.parametrize("rest", [".kimi.0123456789abcdef.e30", ".kimi", "."])
def test_a_signature_made_here_is_never_anthropics_also_where_memory_is_lost(rest):
    made_here = ThinkingBlock("thinking", "Some text.", MADE_HERE + rest)
    keeps = {
        name: kept_by(name, lambda _: None, takes_unknown=name == "anthropic")(made_here)
        for name in ("anthropic", "zai", "kimi")
    }
    assert keeps == {"anthropic": False, "zai": False, "kimi": "kimi" in rest}


@pytest.mark.parametrize("signature", ["", "EqQBCkYIARgC", MADE_HERE, f"{MADE_HERE}x.kimi"])
def test_signatures_of_others_name_nobody(signature):
    assert named_issuer(signature) is None


def test_what_is_remembered_comes_before_what_a_signature_names():
    """Another router behind this one may make such signatures too."""
    block = ThinkingBlock("thinking", "Some text.", f"{MADE_HERE}.kimi.0123456789abcdef.e30")
    assert kept_by("remote", lambda _: "remote", takes_unknown=False)(block)
    assert not kept_by("kimi", lambda _: "remote", takes_unknown=False)(block)


@pytest.mark.parametrize(
    ("block", "stays"),
    [
        (SIGNED, True),
        (ThinkingBlock("redacted_thinking", data="c2VhbGVk"), True),
        (ThinkingBlock("thinking", "unsigned"), False),
        (ThinkingBlock("thinking", "Some text.", f"{MADE_HERE}.vertex.0123456789abcdef.e30"), False),
    ],
    ids=["signed", "redacted", "unsigned", "signed here"],
)
def test_signed_blocks_of_a_provider_of_the_same_group_stay(block, stays):
    issuer = lambda _: "vertex"  # noqa: E731
    assert kept_by("anthropic", issuer, takes_unknown=True, kin={"vertex", "bedrock"})(block) is stays
    assert not kept_by("zai", issuer, takes_unknown=False)(block)


def test_unknown_unsigned_blocks_stay_with_nobody():
    assert not kept_by("anthropic", lambda _: None, takes_unknown=True)(ThinkingBlock("thinking", "text"))


@given(st.lists(st.text()), st.lists(st.text(min_size=1), max_size=2))
def test_a_streamed_block_is_the_one_that_comes_back(texts, signatures):
    parts = [delta(type="thinking_delta", thinking=text) for text in texts]
    parts += [delta(type="signature_delta", signature=signature) for signature in signatures]
    back = ThinkingBlock("thinking", "".join(texts), (signatures or [""])[-1])
    assert streamed(THINKING, *parts, STOP) == [digest for digest in digests(back) if digest]


def test_a_block_may_come_whole_with_its_start():
    blocks = [SIGNED, ThinkingBlock("thinking", "text"), ThinkingBlock("redacted_thinking", data="data")]
    events = []
    for block in blocks:
        fields = {"type": block.type, "thinking": block.thinking, "signature": block.signature}
        events += [start(**fields, data=block.data), STOP]
    assert streamed(*events) == digests(*blocks)


@pytest.mark.parametrize(
    "end", [STOP, start(type="text", text=""), {"type": "message_delta"}, {"type": "message_stop"}]
)
def test_a_block_ends_at_the_latest_with_what_follows(end):
    begun = [THINKING, delta(type="thinking_delta", thinking="text")]
    assert streamed(*begun) == []
    assert streamed(*begun, {"type": "ping"}, end, STOP) == digests(ThinkingBlock("thinking", "text"))


def test_a_block_starts_with_none_of_the_text_before_it():
    text = delta(type="thinking_delta", thinking="text")
    assert streamed(THINKING, text, STOP, THINKING, text, STOP) == digests(
        *2 * [ThinkingBlock("thinking", "text")]
    )


def test_events_are_recognized_by_their_name_alone():
    digester = ThinkingDigester(KEY, [])
    digester.event(Event("content_block_start", b'{"content_block":{"type":"redacted_thinking","data":"d"}}'))
    digester.event(Event("content_block_stop", b"{}"))
    assert digester.digests == digests(ThinkingBlock("redacted_thinking", data="d"))


@pytest.mark.parametrize(
    "event",
    [
        start(type="text", text='"thinking"'),
        start(type="tool_use", id="t", name="n", input={"type": "thinking"}),
        delta(type="thinking_delta", thinking="of no block"),
        start(type="thinking", thinking=5, signature="s"),
        start(type="thinking", thinking="", signature=""),
    ],
)
def test_what_is_no_thinking_or_cannot_be_distinguished_is_passed_over(event):
    assert streamed(event, STOP) == []


def test_an_unreadable_event_does_not_end_a_block():
    digester = ThinkingDigester(KEY, [])
    for data in (json.dumps(THINKING).encode(), b"no json \xff", b"{", json.dumps(STOP).encode()):
        digester.event(Event("", data.replace(b'"signature": ""', b'"signature": "s"')))
    assert digester.digests == digests(ThinkingBlock("thinking", "", "s"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([{"type": "text", "text": "x"}, {"type": "thinking", "thinking": "t", "signature": None}], 1),
        ([{"type": "redacted_thinking", "data": "d"}, {"type": "thinking", "signature": "s"}], 2),
        ([{"type": "thinking"}, {"type": "thinking", "signature": 5}, "thinking", 1], 0),
        ("thinking", 0),
        ({"type": "thinking"}, 0),
    ],
)
def test_a_whole_answer_has_its_blocks(content, expected):
    digester = ThinkingDigester(KEY, [])
    digester.message(Body.parse(json.dumps({"content": content}).encode()))
    assert len(digester.digests) == expected


def test_an_answer_without_content_holds_no_block():
    digester = ThinkingDigester(KEY, [])
    digester.message(Body.parse(b'{"thinking":1}'))
    assert digester.digests == []


def test_an_answer_without_end_is_recognized_by_its_first_blocks():
    digester = ThinkingDigester(KEY, [b"of a block"] * (MOST - 1))
    for event in [start(type="redacted_thinking", data="d"), STOP] * 2:
        digester.event(encoded(event))
    assert len(digester.digests) == MOST
