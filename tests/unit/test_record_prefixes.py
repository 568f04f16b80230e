"""Digests of what a request asks its provider to cache, and the causes of misses."""

import json
from typing import Any

import pytest
from msgspec.structs import replace as struct_replace

from signalbox.record.prefixes import (
    LONG_LIFE,
    MESSAGES,
    SHORT_LIFE,
    SYSTEM,
    TOOLS,
    Cacheable,
    CacheTurn,
    Growth,
    Miss,
    PrefixReader,
    conversation_of,
    growth,
    miss,
    turn_of,
    unpacked,
)
from tests.unit.test_record_ledger import ENTRY, attempt, entry

MARK = {"cache_control": {"type": "ephemeral"}}
BILLING = {"type": "text", "text": "x-anthropic-billing-header: cc_version=1.2.3;"}
READER = PrefixReader(b"a key of the tests")


def text(words: str, **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **fields}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


def body(**fields: Any) -> dict[str, Any]:
    request = {
        "model": "claude-sonnet-4-6",
        "tools": [{"name": "Read", "input_schema": {}}, {"name": "Bash", "input_schema": {}}],
        "system": [text("You are a test."), text("Be short.")],
        "messages": [user(text("Hello")), {"role": "assistant", "content": "Hi."}, user(text("More"))],
    }
    return {**request, **fields}


def blocks(request: dict[str, Any], *, spaced: bool = False) -> list[bytes]:
    separators = (", ", ": ") if spaced else (",", ":")
    return [one.digest for one in READER.read(json.dumps(request, separators=separators).encode()).blocks]


def test_blocks_come_in_the_order_in_which_they_are_cached() -> None:
    prefix = READER.read(json.dumps(body()).encode())
    assert [block.place for block in prefix.blocks] == [
        TOOLS, TOOLS, SYSTEM, SYSTEM, MESSAGES, MESSAGES + 1, MESSAGES + 2,
    ]  # fmt: skip
    assert len({block.digest for block in prefix.blocks}) == 7
    assert all(len(block.digest) == 8 for block in prefix.blocks)
    assert unpacked(prefix.packed) == prefix.blocks


@pytest.mark.parametrize("spaced", [False, True], ids=["compact", "spaced"])
@pytest.mark.parametrize(
    "changed",
    [
        body(system=[text("You are a test."), text("Be short.", **MARK)]),
        body(system=[{**MARK, **text("You are a test.")}, text("Be short.")]),
        body(tools=[{"name": "Read", "input_schema": {}}, {"name": "Bash", **MARK, "input_schema": {}}]),
        body(messages=[*body()["messages"][:2], user(text("More", cache_control=None))]),
        body(system=[BILLING, *body()["system"]]),
        body(system=[*body()["system"], BILLING]),
        body(system=[text(f"{BILLING['text']}\n\nYou are a test."), body()["system"][1]]),
        body(messages=[{"role": "user", "content": "Hello"}, *body()["messages"][1:]]),
        body(
            messages=[
                user(text("Hello")), {"role": "assistant", "content": [text("Hi.")]}, user(text("More")),
            ]
        ),
        body(model="another", max_tokens=7, metadata={"user_id": "x"}),
    ],
    ids=[
        "marked", "mark first", "tool marked", "null mark",
        "billing", "billing last", "billing line", "text", "list", "other fields",
    ],
)  # fmt: skip
def test_what_clients_change_from_turn_to_turn_is_no_part_of_a_block(
    changed: dict[str, Any], spaced: bool
) -> None:
    assert blocks(changed, spaced=spaced) == blocks(body(), spaced=spaced)


@pytest.mark.parametrize(
    ("changed", "first"),
    [
        (body(tools=body()["tools"][::-1]), 0),
        (body(system=[text("You are a test!"), text("Be short.")]), 2),
        (body(messages=[user(text("Hello", citations=[])), *body()["messages"][1:]]), 4),
        (body(messages=[{**body()["messages"][0], "role": "assistant"}, *body()["messages"][1:]]), 4),
        (body(messages=[*body()["messages"][:2], user(text("More."))]), 6),
    ],
    ids=["order of tools", "a letter", "another field", "role", "last message"],
)
def test_any_other_change_is_seen_where_it_is(changed: dict[str, Any], first: int) -> None:
    now, before = blocks(changed), blocks(body())
    assert [one != other for one, other in zip(now, before, strict=True)].index(True) == first


def test_digests_depend_on_the_key() -> None:
    data = json.dumps(body()).encode()
    others = {block.digest for block in PrefixReader(b"another key").read(data).blocks}
    assert others.isdisjoint(block.digest for block in READER.read(data).blocks)


def test_a_mark_in_a_text_is_text() -> None:
    quoted = json.dumps({"cache_control": {"type": "ephemeral"}})
    assert blocks(body(system=f"one {quoted} two")) != blocks(body(system="one {} two"))


@pytest.mark.parametrize(("ttl", "life"), [(None, SHORT_LIFE), ("5m", SHORT_LIFE), ("1h", LONG_LIFE)])
def test_marks_say_how_long_a_cache_lives(ttl: str | None, life: int) -> None:
    mark = {"type": "ephemeral", **({"ttl": ttl} if ttl else {})}
    request = body(system=[text("You are a test.", cache_control=mark)])
    assert READER.read(json.dumps(request).encode()).life == life


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"messages": 3}', b'{"messages": [3]}', b"\xff"])
def test_a_body_that_cannot_be_read_has_no_blocks(data: bytes) -> None:
    assert READER.read(data).blocks == ()


def test_few_messages_are_remembered_and_the_digests_stay() -> None:
    reader = PrefixReader(READER.key, most=2)
    data = json.dumps(body()).encode()
    assert reader.read(data) == reader.read(data) == READER.read(data)


def test_a_message_of_another_protocol_is_one_block() -> None:
    chat = {"messages": [{"role": "system", "content": "You"}, user(text("a"), text("b"))], "tools": [{}]}
    prefix = READER.read(json.dumps(chat).encode(), "other")
    assert [block.place for block in prefix.blocks] == [TOOLS, MESSAGES, MESSAGES + 1]


# causes


def turn(
    request: dict[str, Any] | None = None, sent: dict[str, Any] | None = None, **fields: Any
) -> CacheTurn:
    def read(asked: dict[str, Any]) -> bytes:
        return READER.read(json.dumps(asked).encode()).packed

    made = CacheTurn(
        provider="anthropic", model="claude-sonnet-4-6", key=None, asked=read(request or body()),
        sent=read(sent) if sent else b"", life=SHORT_LIFE, at=0, read=0, written=80_000, fresh=5,
    )  # fmt: skip
    return made._replace(**fields)


LONGER = body(messages=[*body()["messages"], {"role": "assistant", "content": "Yes."}, user(text("Go on"))])
REWORDED = body(messages=[user(text("Hello")), {"role": "assistant", "content": "Hi!"}, user(text("More"))])


@pytest.mark.parametrize(
    ("now", "cause"),
    [
        (turn(LONGER, model="claude-opus-4-6", provider="zai", key=2), "model"),
        (turn(LONGER, provider="zai", key=2), "provider"),
        (turn({**LONGER, "tools": []}, key=2), "key"),
        (turn({**LONGER, "tools": [*body()["tools"], {"name": "New"}], "system": "Other."}), "tools"),
        (turn({**REWORDED, "system": "Other."}), "system"),
        (turn(REWORDED), "message 1"),
        (turn(body(messages=body()["messages"][:2])), "message 2"),
        (turn(LONGER, sent=REWORDED), "router"),
        (turn(LONGER, at=SHORT_LIFE * 1000 + 1), "expired"),
        (turn(LONGER, at=SHORT_LIFE * 1000), "unknown"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_first_cause_that_holds_is_named(now: CacheTurn, cause: str) -> None:
    assert miss(turn(), now) == Miss(cause, 80_000)


def test_nothing_was_missed_where_all_that_was_left_was_read() -> None:
    assert miss(turn(), turn(LONGER, model="other", read=80_000, written=0)) is None


def test_the_same_edit_of_the_router_in_both_requests_is_no_cause() -> None:
    edited = {**LONGER, "system": "Edited."}
    before = turn(sent={**body(), "system": "Edited."})
    assert miss(before, turn(LONGER, sent=edited)) == Miss("unknown", 80_000)


def test_no_more_is_missed_than_the_request_holds() -> None:
    small = turn(LONGER, model="small", read=0, written=0, fresh=500)
    assert miss(turn(), small) == Miss("model", 500)


def test_an_hour_counts_where_a_mark_asked_for_it() -> None:
    late = turn(LONGER, at=SHORT_LIFE * 1000 + 1)
    assert miss(turn(life=LONG_LIFE), late) == Miss("unknown", 80_000)


def test_a_turn_is_what_the_provider_that_answered_did() -> None:
    prefix = READER.read(json.dumps(body()).encode())
    failed = attempt(provider="first", kind="overload")
    made = entry(failed, attempt(provider="second"), blocks=prefix.packed, session="s")
    found = turn_of(made)
    assert found is not None
    assert (found.provider, found.asked, found.left) == ("second", prefix.packed, 4300)
    assert turn_of(struct_replace(made, status="error")) is None
    assert turn_of(entry(failed, blocks=prefix.packed, session="s")) is None
    assert conversation_of(ENTRY) is None


def test_growth_counts_the_blocks_that_were_added() -> None:
    before = READER.read(json.dumps(body()).encode()).blocks
    now = READER.read(json.dumps({**LONGER, "tools": [*body()["tools"], {"name": "New"}]}).encode()).blocks
    assert growth(before, now) == Growth(tools=1, system=0, messages=2)
    assert growth(now, now) == Growth(0, 0, 0)


@pytest.mark.parametrize(
    ("changes", "is_noted"),
    [
        ({}, False),
        ({"model": "glm-4.7", "metadata": {"user_id": "hashed"}, "max_tokens": 9}, False),
        ({"system": "shorter"}, True),
        ({"tools": []}, True),
        ({"messages": [user(text("changed"))]}, True),
    ],
)
def test_digests_of_what_went_upstream_are_noted_where_something_cached_was_changed(changes, is_noted):
    asked = body(model="claude-sonnet-4-6", system="be short", tools=[{"name": "Read"}])
    sent = json.dumps(asked | changes).encode()
    one = Cacheable(READER.key, json.dumps(asked).encode(), sent, "messages", price=lambda usage: None)
    noted = one.noted_in(ENTRY, READER)
    assert noted.blocks
    assert noted.sent_blocks == (READER.read(sent).packed if is_noted else b"")
