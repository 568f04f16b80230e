"""One process with several routers; files and router.py that change while it runs; its background tasks."""

import asyncio
import json
import threading
import urllib.request
from dataclasses import replace
from typing import Any

import pytest

from signalbox.app import keep_running
from tests.support.answers import message_json, message_sse, thinking_block
from tests.support.fake_provider import Upstream
from tests.support.router import Router
from tests.support.router_process import OPENER

SIGNATURE = "aXNzdWVkIGJ5IHphaQ"


def rules(zai: Upstream, model: str = "glm-1", name: str = "zai") -> str:
    return f"""
providers:
  {name}: {{url: "{zai.url}", key: zai-key-for-tests-0001}}
rules:
  - {{match: '*', to: {name}/{model}}}
"""


def ask(router: Router, *messages: dict[str, Any]) -> str:
    """Asks for an answer; gives the model that was sent upstream."""
    body = {
        "model": "claude-haiku-4-5",
        "max_tokens": 64,
        "stream": True,
        "messages": [{"role": "user", "content": "hi"}, *messages],
    }
    request = urllib.request.Request(f"{router.url}/v1/messages", json.dumps(body).encode(), method="POST")
    with OPENER.open(request, timeout=10) as answer:
        answer.read()
        return str(answer.headers["x-signalbox-model"])


def writing_threads() -> list[threading.Thread]:
    names = ("signalbox-issued", "signalbox-ledger", "signalbox-log")
    return [thread for thread in threading.enumerate() if thread.name in names]


@pytest.mark.slow
def test_routers_in_one_process_have_rules_records_and_logs_of_their_own(start_router, upstream, second):
    routers = [
        start_router(upstream.url, rules=rules(second, f"glm-{number}", f"zai{number}"))
        for number in range(3)
    ]
    assert [ask(router) for router in routers] == ["glm-0", "glm-1", "glm-2"]
    assert [ask(router) for router in reversed(routers)] == ["glm-2", "glm-1", "glm-0"]
    for number, router in enumerate(routers):
        assert [row["upstream_model"] for row in router.records(2)] == [f"glm-{number}"] * 2
        assert router.log().count("rules loaded") == 1
        router.wait_log(rf"\[haiku\|zai{number}\][\s\S]*\[haiku\|zai{number}\]")
        assert router.log().count("[haiku|") == 2
    assert len({id(router.app) for router in routers}) == 3


@pytest.mark.slow
def test_a_router_that_ends_leaves_the_others_alone(start_router, upstream, second):
    first, other = (start_router(upstream.url, rules=rules(second, f"glm-{n}")) for n in range(2))
    assert first.stop() == 0
    assert ask(other) == "glm-1"
    assert other.health()["status"] == "healthy"


@pytest.mark.slow
@pytest.mark.parametrize("option", ["router_rules", "router_state"])
def test_other_files_take_the_place_of_the_ones_in_force(start_router, upstream, second, tmp_path, option):
    router: Router = start_router(upstream.url, rules=rules(second))
    assert ask(router) == "glm-1"
    router.records(1)
    writers, old = writing_threads(), router.app.stores
    other = tmp_path / "other"
    other.mkdir()
    (other / "rules.yaml").write_text(rules(second, "glm-2"))
    value = other / "rules.yaml" if option == "router_rules" else other
    router.call(router.app.master.options.update, **{option: str(value)})
    assert router.app.stores is not old
    assert not any(thread.is_alive() for thread in writers)
    assert ask(router) == ("glm-2" if option == "router_rules" else "glm-1")
    state = other if option == "router_state" else router.state
    router.state = state
    assert len(router.records(1 if option == "router_state" else 2)) == (1 if option == "router_state" else 2)


def test_faulty_rules_leave_the_ones_in_force(start_router, upstream, second, tmp_path):
    router: Router = start_router(upstream.url, rules=rules(second))
    faulty = tmp_path / "faulty.yaml"
    faulty.write_text("rules: [")
    router.call(router.app.master.options.update, router_rules=str(faulty))
    router.wait_log("faulty.yaml:1: ")
    assert ask(router) == "glm-1"


def test_an_answer_during_a_reload_is_recorded_with_the_issuer_of_its_thinking(
    start_router, upstream, second, gate
):
    router: Router = start_router(upstream.url, rules=rules(second))
    said = message_sse("m", before=[thinking_block(signature=SIGNATURE)])
    second.answer(replace(said, chunks=(said.chunks[0], gate, *said.chunks[1:])))
    asking = threading.Thread(target=ask, args=(router,))
    asking.start()
    second.wait_for(1)
    files = (str(router.rules_file), str(router.state))
    router.call(router.app.close)
    router.call(lambda: router.app.open(*files))
    gate.set()
    asking.join(10)
    router.records(1)
    second.answer(message_json("m"))
    thinking = {"type": "thinking", "thinking": "hm", "signature": SIGNATURE}
    said = {"role": "assistant", "content": [thinking, {"type": "text", "text": "answer"}]}
    ask(router, said, {"role": "user", "content": "on"})
    assert SIGNATURE.encode() in second.requests[-1].body


def test_a_background_task_that_fails_starts_again_and_stops_no_other(caplog):
    runs, went_on = {"failing": 0, "other": 0}, asyncio.Event()

    async def failing() -> None:
        runs["failing"] += 1
        raise KeyError("a secret")

    async def other() -> None:
        while True:
            runs["other"] += 1
            if runs["failing"] >= 3:
                went_on.set()
            await asyncio.sleep(0)

    async def run() -> None:
        task = asyncio.ensure_future(keep_running({"failing": failing, "other": other}, retry=0.01))
        await went_on.wait()
        task.cancel()

    asyncio.run(asyncio.wait_for(run(), 5))
    assert "error in the task failing: KeyError at test_app.py:" in caplog.text
    assert "a secret" not in caplog.text
