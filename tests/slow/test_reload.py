"""Rules and `router.py` edited while the router runs, and rules that are wrong at its start."""

import socket
import sqlite3
import threading
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.answers import USAGE, message_events, message_json, sse, text_block, thinking_block
from tests.support.reloading import ask, rules
from tests.support.router_process import OPENER, Router, wait_until

ROUTER = Router

pytestmark = pytest.mark.slow


BROKEN = {
    "unclosed bracket": "rules: [",
    "tab": "providers:\n\tzai: {}",
    "unknown key": "providers: {}\nruels: []",
    "glob without quotes": "providers: {}\nrules:\n  - match: *haiku*\n    to: zai\n",
    "unknown provider": "providers: {}\nrules: [{match: x, to: nobody}]",
    "duplicate key": "providers: {}\nproviders: {}\nrules: []",
    "no mapping": "just some text",
    "wrong type": "rules: {a: b}",
    "two documents": "rules: []\n---\nrules: []",
    "a control character": "rules: []\x07",
    "bad duration": "providers: {zai: {url: http://x, timeout: {idle: soon}}}",
    "empty": "",
}


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in BROKEN.items() if text])
def test_wrong_rules_end_a_start_with_one_line_that_names_the_place(tmp_path, upstream, text):
    code, log = Router.start_fails(tmp_path, upstream.url, rules=text)
    assert code == 1
    assert "Traceback" not in log
    told = [line for line in log.splitlines() if "rules.yaml:" in line]
    assert told
    assert all("(at $" in line for line in told)


def test_a_missing_file_ends_a_start_with_its_path(tmp_path, upstream):
    code, log = Router.start_fails(tmp_path, upstream.url, rules=None)
    assert code == 1
    assert str(tmp_path / "rules.yaml") in log
    assert "Traceback" not in log


def test_no_fault_of_an_edit_stops_traffic_or_loses_the_last_good_rules(start_router, upstream, second):
    good = rules(upstream, second)
    router: Router = start_router(upstream.url, rules=good)
    for text in BROKEN.values():
        router.rules(text)
        wait_until(lambda: router.health()["rules"]["error"], 5, lambda: "the fault to show")
        assert ask(router)[0] == "glm-1"
        router.rules(good)
        wait_until(lambda: router.health()["rules"]["error"] is None, 5, lambda: "the fault to go")
    router.rules_file.unlink()
    wait_until(lambda: router.health()["rules"]["error"], 5, lambda: "the missing file to show")
    assert router.health()["status"] == "degraded"
    assert ask(router)[0] == "glm-1"
    router.rules(rules(upstream, second, "zai/glm-2"))
    wait_until(lambda: ask(router)[0] == "glm-2", 5, lambda: "the file to be read again")
    assert "Traceback" not in router.log()


def test_a_request_in_flight_keeps_the_rules_it_began_with(start_router, upstream, second):
    router: Router = start_router(upstream.url, rules=rules(upstream, second))
    go_on = threading.Event()
    events = message_events("glm-1", [text_block("")], ["a", "b"], USAGE, USAGE)
    second.answer(sse(*events[:3], go_on, *events[3:]))
    answers: list[tuple[str, bytes]] = []
    asking = threading.Thread(target=lambda: answers.append(ask(router, stream=True)))
    asking.start()
    second.wait_for(1)
    router.rules(rules(upstream, second, "anthropic"))
    router.wait_log(r"rules loaded[\s\S]*rules loaded")
    go_on.set()
    asking.join(10)
    assert answers[0][0] == "glm-1"
    assert answers[0][1].endswith(b'message_stop"}\n\n')
    assert ask(router)[0] == "claude-haiku-4-5"


def test_a_key_put_into_the_environment_file_makes_its_provider_available(start_router, upstream, second):
    text = rules(upstream, second, "[zai/glm-1, anthropic]").replace(
        "zai-key-for-tests-0001", '"${ZAI_API_KEY}"'
    )
    router: Router = start_router(upstream.url, rules=text)
    assert ask(router)[0] == "claude-haiku-4-5"
    (router.folder / ".env").write_text("ZAI_API_KEY=zai-key-for-tests-0002\n")
    wait_until(lambda: ask(router)[0] == "glm-1", 5, lambda: "the key to be read")
    assert second.requests[-1].header("x-api-key") == "zai-key-for-tests-0002"


def test_the_log_level_changes_live(start_router, upstream, second):
    text = rules(upstream, second)
    router: Router = start_router(upstream.url, rules=text)
    ask(router)
    router.wait_log(r"\[haiku\|zai\]")
    assert "→ zai POST" not in router.log()
    router.rules(text + "log: {level: debug}\n")
    wait_until(lambda: ask(router) and "→ zai POST /v1/messages" in router.log(), 5, lambda: "debug lines")
    router.wait_log(r"← zai 200 \d+ms")
    router.wait_log("model remap: claude-haiku-4-5 → glm-1")
    assert "zai-key-for-tests" not in router.log()


@pytest.mark.parametrize("broken", ["raise RuntimeError('no')\n", None], ids=["broken", "missing"])
def test_while_router_py_is_broken_or_missing_nothing_goes_out_unrouted(
    tmp_path, upstream, second, broken: str | None
):
    script = own_copy(tmp_path)
    with Router(tmp_path, upstream.url, rules=rules(upstream, second), script=script) as router:
        assert ask(router)[0] == "glm-1"
        whole = script.read_text()
        if broken is None:
            script.unlink()
        else:
            script.write_text(broken)
        wait_until(lambda: status(router) == 503, 10, lambda: f"the guard\n{router.log()}")
        assert not upstream.requests
        script.write_text(whole)
        if broken is not None:  # mitmproxy forgets a script whose file is gone
            wait_until(lambda: status(router) == 200, 10, lambda: f"the router again\n{router.log()}")
        assert not upstream.requests


def test_what_was_issued_is_still_remembered_after_router_py_is_loaded_again(tmp_path, upstream, second):
    script = own_copy(tmp_path)
    with Router(tmp_path, upstream.url, rules=rules(upstream, second), script=script) as router:
        script.write_text(script.read_text() + "# edited\n")
        router.wait_log(r"Loading script[\s\S]*Loading script")
        second.answer(message_json("glm-1", before=[thinking_block(signature="aXNzdWVk")]))
        ask(router)
        router.records(1)
        router.stop()
    with closing(sqlite3.connect(router.state / "learned.sqlite")) as file:
        assert file.execute("SELECT count(*) FROM issued").fetchone() == (1,)


def test_an_upload_under_way_when_router_py_breaks_goes_nowhere(tmp_path, upstream, second):
    script = own_copy(tmp_path)
    text = rules(upstream, second)
    options = ("-w", str(tmp_path / "flows"))
    with Router(tmp_path, upstream.url, rules=text, script=script, options=options) as router:
        with socket.create_connection(("127.0.0.1", router.ports[0]), timeout=10) as client:
            body = b'{"model":"claude-haiku-4-5"}'
            login = b"Authorization: Bearer sk-ant-fake-login-of-nobody\r\n"
            client.sendall(
                b"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\n%sContent-Length: 28\r\n\r\n{" % login
            )
            script.write_text("raise RuntimeError('no')")
            wait_until(lambda: status(router) == 503, 10, lambda: f"the guard\n{router.log()}")
            before = len(second.requests)
            client.sendall(body[1:])
            assert client.recv(1000).startswith(b"HTTP/1.1 503")
        assert not upstream.requests
        assert len(second.requests) == before
        router.stop()
    assert b"sk-ant-fake-login-of-nobody" not in (tmp_path / "flows").read_bytes()


def own_copy(folder: Path) -> Path:
    """A router.py that may be edited, beside a link to the package."""
    (folder / "addon").mkdir()
    source = Path(__file__).parents[2] / "addon"
    (folder / "addon" / "signalbox").symlink_to(source / "signalbox")
    script = folder / "addon" / "router.py"
    script.write_text((source / "router.py").read_text())
    return script


def status(router: Router) -> int:
    request = urllib.request.Request(f"{router.url}/v1/messages", b'{"model":"x"}', method="POST")
    try:
        with OPENER.open(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return int(refused.code)


def test_the_start_is_quiet(start_router: Callable[..., Router], upstream, second):
    router: Router = start_router(upstream.url, rules=rules(upstream, second))
    ask(router)
    router.wait_log(r"\[haiku\|zai\]")
    assert "client connect" not in router.log()
    assert router.stop() == 0


def test_a_file_half_written_is_not_in_force_though_it_could_be_read(start_router, upstream, second):
    whole = rules(upstream, second)
    router: Router = start_router(upstream.url, rules=whole)
    router.rules(whole[: whole.index("rules:")], replace=False)
    router.rules(whole.replace("glm-1", "glm-2"), replace=False)
    wait_until(lambda: ask(router)[0] == "glm-2", 5, lambda: "the whole file")
    assert "providers, 0 rules" not in router.log()
    assert not upstream.requests
