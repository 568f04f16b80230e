"""A history made valid for Anthropic itself."""

import json
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.history import Valid, made_valid, with_searches_as_text
from signalbox.anthropic.json_edit import Body
from tests.support.request_validator import Asked, check_blocks, check_roles, check_server_tools, check_tools

FILLED = {"type": "text", "text": "(no content)"}
USER = {"role": "user", "content": "go on"}


def valid(raw: bytes) -> tuple[bytes, Valid]:
    body = Body.parse(raw)
    result = made_valid(body)
    return body.edited(edits=result.edits), result


def messages(*told: dict[str, Any]) -> list[dict[str, Any]]:
    return json.loads(valid(json.dumps({"messages": told}).encode())[0])["messages"]


def answer(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def results(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def call(id: str, **more: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": "Bash", "input": {}, **more}


def result(id: str, content: Any = "done") -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id, "content": content}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def ids(told: list[dict[str, Any]]) -> list[tuple[str, str]]:
    blocks = [block for one in told if isinstance(one["content"], list) for block in one["content"]]
    return [(block["type"], block.get("id") or block.get("tool_use_id")) for block in blocks]


def test_an_id_that_anthropic_does_not_allow_is_replaced_in_the_call_and_in_its_result():
    (_, sent), (_, again) = ids(
        messages(answer(call("functions.Bash:0")), results(result("functions.Bash:0")))
    )
    assert sent == again == "functions_Bash_0_febdadfd"


def test_only_the_bytes_of_the_id_change():
    before = (
        b'{"n":1.0e2, "messages": [ {"role":"assistant","content":[{"type":"tool_use","id" : "a.b",'
        b'"name":"n","input":{"id":"a.b","id2":1.50}}]},{"role":"user","content":[{"tool_use_id":"a.b","type":"tool_result",'
        b'"content":"\\u00e9"}]} ] }'
    )
    after, told = valid(before)
    (_, sent), _ = ids(json.loads(after)["messages"])
    new = f'"{sent}"'.encode()
    assert after == before.replace(b'"id" : "a.b"', b'"id" : ' + new).replace(b'_id":"a.b"', b'_id":' + new)
    assert told.ids == 1


def test_an_id_used_twice_is_another_call_from_the_second_time_on():
    turn = (answer(call("call_0")), results(result("call_0")))
    found = [id for _, id in ids(messages(*turn, *turn, *turn))]
    assert found[0::2] == found[1::2]
    assert found[0] == "call_0"
    assert len(set(found)) == 3


def test_two_calls_of_one_answer_with_one_id_have_their_results_in_order():
    found = ids(messages(answer(call("a"), call("a")), results(result("a"), result("a"))))
    assert found[2][1] == found[0][1]
    assert found[3][1] == found[1][1]
    assert found[0][1] != found[1][1]


def test_a_result_belongs_to_the_latest_call_of_its_id():
    """The first one was never answered."""
    found = ids(messages(answer(call("a")), USER, answer(call("a")), results(result("a"))))
    assert found[1][1] == found[2][1] != found[0][1]


def test_a_new_id_is_not_in_use():
    taken = ids(messages(answer(call("a.b"))))[0][1]
    found = [id for _, id in ids(messages(answer(call(taken)), results(result(taken)), answer(call("a.b"))))]
    assert found[:2] == [taken, taken]
    assert found[2] != taken


@pytest.mark.parametrize("blank", ["", " \n\t", "\u3000"])
def test_blank_text_is_dropped_from_every_message(blank):
    told = messages(results(text(blank), text("a")), answer(text("b"), text(blank)), USER)
    assert [one["content"] for one in told] == [[text("a")], [text("b")], "go on"]


@pytest.mark.parametrize("empty", ["", " ", [], [text("")]])
def test_an_emptied_message_gets_a_placeholder(empty):
    told = messages(USER, {"role": "assistant", "content": empty}, USER)
    assert told[1]["content"] in ("(no content)", [FILLED])


def test_words_put_into_the_mouth_of_the_model_stay():
    assert messages(USER, {"role": "assistant", "content": ""})[1]["content"] == ""


def test_blank_text_is_dropped_from_tool_results():
    told = messages(
        answer(call("a"), call("b")), results(result("a", [text("")]), result("b", [text(""), text("x")]))
    )
    assert [block["content"] for block in told[1]["content"]] == [[FILLED], [text("x")]]
    assert messages(answer(call("a")), results(result("a", "")))[1]["content"] == [result("a", "")]


def test_another_providers_server_tool_is_dropped_and_its_result_becomes_text():
    """https://github.com/decolua/9router/issues/3685"""
    own = {"type": "server_tool_use", "id": "call_50b82aba1b75", "name": "analyze_image", "input": {}}
    found = [result(own["id"], [text("a cat")]), {**result(own["id"]), "type": "web_search_tool_result"}]
    for one, said in zip(found, ["a cat", "done"], strict=True):
        assert messages(USER, answer(own, one), USER)[1]["content"] == [text(said)]
    assert messages(USER, answer(text("hm"), own), USER)[1]["content"] == [text("hm")]
    assert messages(USER, answer(own), USER)[1]["content"] == [FILLED]


def test_unencrypted_search_results_are_not_anthropics():
    use = {"type": "server_tool_use", "id": "srvtoolu_01", "name": "web_search", "input": {"query": "q"}}
    hit = {"type": "web_search_result", "title": "T", "url": "https://example.com", "encrypted_content": ""}
    found = {"type": "web_search_tool_result", "tool_use_id": use["id"], "content": [hit]}
    assert messages(USER, answer(use, found), USER)[1]["content"] == [text("T https://example.com")]
    real = {**found, "content": [hit | {"encrypted_content": "Eq=="}]}
    assert messages(USER, answer(use, real), USER)[1]["content"] == [use, real]


def test_a_text_loses_the_citations_of_unencrypted_search_results():
    use = {"type": "server_tool_use", "id": "srvtoolu_01", "name": "web_search", "input": {"query": "q"}}
    hit = {"type": "web_search_result", "title": "T", "url": "https://example.com", "encrypted_content": ""}
    found = {"type": "web_search_tool_result", "tool_use_id": use["id"], "content": [hit]}
    cited = {"type": "web_search_result_location", "url": hit["url"], "cited_text": "", "encrypted_index": ""}
    own = cited | {"encrypted_index": "ZW5j"}
    texts = [text("a") | {"citations": [cited]}, text("b") | {"citations": [own]}, text("c")]
    (told,) = messages(answer(use, found, *texts))
    assert told["content"] == [
        text("T https://example.com"),
        text("a") | {"citations": None},
        text("b") | {"citations": [own]},
        text("c"),
    ]


PAGE = {"type": "web_search_result", "title": "A", "url": "https://a.example/", "encrypted_content": ""}
CITED = {"type": "web_search_result_location", "url": "https://a.example/", "encrypted_index": ""}


def searched(id: str, content: Any) -> list[dict[str, Any]]:
    call = {"type": "server_tool_use", "id": id, "name": "web_search", "input": {"query": "a"}}
    return [call, {"type": "web_search_tool_result", "tool_use_id": id, "content": content}]


def told_to_others(*told: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
    body = Body.parse(json.dumps({"messages": told}).encode())
    changed = with_searches_as_text(body)
    return json.loads(body.edited(edits=changed.edits))["messages"], changed.server


def test_other_providers_get_a_search_that_was_made_here_as_text():
    cited = {"type": "text", "text": "See A", "citations": [CITED]}
    (sent, again), count = told_to_others(answer(*searched("srvtoolu_sb_0a1", [PAGE]), cited), USER)
    assert sent["content"] == [text("A https://a.example/"), {**cited, "citations": None}]
    assert again == USER
    assert count == 3


@pytest.mark.parametrize(
    "nothing", [[], {"type": "web_search_tool_result_error", "error_code": "unavailable"}]
)
def test_a_search_made_here_that_found_nothing_leaves_no_block(nothing):
    blocks = searched("srvtoolu_sb_1", nothing)
    assert told_to_others(answer(*blocks, text("No."))) == ([answer(text("No."))], 2)
    assert told_to_others(answer(*blocks))[0] == [answer(FILLED)]


def test_other_providers_get_all_else_as_it_came():
    own = searched("srvtoolu_01A", [PAGE])
    odd = [answer(*own, text(" "), call("a.b"), {"type": "text", "text": "x", "citations": [CITED]}), USER]
    assert told_to_others(*odd) == (odd, 0)
    named = answer(*own, text("srvtoolu_sb_ is how ids begin"), call("c", input={"id": "srvtoolu_sb_1"}))
    assert told_to_others(named) == ([named], 0)
    here = answer(*searched("srvtoolu_sb_1", [PAGE]))
    assert told_to_others(*odd, here)[0] == [*odd, answer(text("A https://a.example/"))]


def test_a_server_tool_without_an_id_takes_no_other_block_along():
    odd = {"type": "server_tool_use", "name": "web_search", "input": {}}
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    assert messages(answer(thought, text("yes"), odd)) == [answer(thought, text("yes"))]


@pytest.mark.parametrize(
    ("input", "sent"),
    [('{"a": 1}', {"a": 1}), ("no object", {}), (None, {}), ([1], {}), ({"a": 1}, {"a": 1})],
)
def test_arguments_are_an_object(input, sent):
    assert messages(answer(call("a", input=input)), results(result("a")))[0]["content"][0]["input"] == sent


@pytest.mark.parametrize("odd", [5, None, {}, "text", [1]])
def test_odd_values_beside_an_id_that_is_replaced_stay(odd):
    told = messages({"role": "user", "content": odd}, answer(call("a b")), {"content": [odd, result("a b")]})
    assert told[0] == {"role": "user", "content": odd}
    assert told[2]["content"][0] == odd
    assert told[1]["content"][0]["id"] == told[2]["content"][1]["tool_use_id"] != "a b"


def test_a_result_without_a_call_gets_an_id_that_anthropic_allows():
    _, (_, first), (_, second) = ids(messages(answer(call("x y")), results(result("a b"), result("toolu_1"))))
    assert (first, second) == ("a_b", "toolu_1")


def test_a_number_that_cannot_be_read_hides_no_other_message():
    raw = b'{"messages":[{"role":1e999},{"role":"assistant","content":[{"type":"tool_use","id":"a b"}]}]}'
    assert b'"a_b' in valid(raw)[0]


def test_a_valid_history_is_not_touched():
    use = {"type": "server_tool_use", "id": "srvtoolu_01", "name": "web_search", "input": {}}
    raw = json.dumps(
        {"messages": [USER, answer(use, call("toolu_1")), results(result("toolu_1", ""))]}
    ).encode()
    assert valid(raw) == (raw, Valid([]))


@pytest.mark.parametrize(
    "raw",
    [
        b'{"messages":"id"}',
        b'{"messages":[1,"x",{"role":"assistant","content":[1,{"type":"tool_use","id":5}]},{"id":"a.b"}]}',
        b'{"messages":[{"role":"assistant","role":"x","content":[{"type":"tool_use","id":"a.b"}]}]}',
    ],
)
def test_unreadable_values_stay(raw):
    assert valid(raw) == (raw, Valid([]))


IDS = st.sampled_from(["a", "b", "functions.Bash:0", "functions.Bash:1", "é", ""])
SAID = st.builds(text, st.sampled_from(["", " ", "said"]))
OWN = [
    {"type": "server_tool_use", "id": "call_1", "name": "n", "input": {}},
    {"type": "web_search_tool_result", "tool_use_id": "call_1", "content": [text("found")]},
]


@st.composite
def turns(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Histories as lax providers leave them: each call is answered."""
    told: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(0, 5))):
        used = draw(st.lists(IDS, max_size=3))
        blocks = draw(st.permutations([*draw(st.lists(SAID, max_size=2)), *OWN[: draw(st.integers(0, 2))]]))
        told.append({"role": "user", "content": draw(st.sampled_from(["q", "", [text(" ")], [text("q")]]))})
        told.append(answer(*blocks, *map(call, used)))
        told.append(
            results(*(result(id, draw(st.sampled_from(["", [text("")], "x"]))) for id in used), text("q"))
        )
    return told


@given(turns())
def test_any_history_becomes_one_that_anthropic_accepts_and_then_stays(told):
    once, _ = valid(json.dumps({"messages": told}).encode())
    asked = Asked(json.loads(once), frozenset())
    for check in (check_blocks, check_tools, check_server_tools):
        check(asked)
    if told:
        check_roles(asked)
    assert valid(once)[0] is once


@given(turns(), turns())
def test_a_new_turn_changes_no_earlier_byte(told, more):
    start, both = (valid(json.dumps({"messages": one}).encode())[0] for one in (told, told + more))
    assert both.startswith(start[:-2])


@pytest.mark.slow
def test_an_id_used_in_each_turn_is_replaced_in_linear_time():
    told = [answer(call("call_0")), results(result("call_0", "x"))] * 3000
    raw, start = json.dumps({"messages": told}).encode(), process_time()
    assert valid(raw)[1].ids == 2999
    assert process_time() - start < 3
