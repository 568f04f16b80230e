"""The dashboard of a running router: what was just asked is on it, and nothing of what was said."""

import http.client
import json
from typing import Any, NamedTuple

from tests.support.answers import message_json, text_block
from tests.support.fake_provider import Upstream
from tests.support.router_process import wait_until

ATTACK = "<script>alert(1)</script>"
SAID = "a sentence of a conversation that is nobody's business"


def rules(home: Upstream, other: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  zai: {{url: "{other.url}", key: zai-key-for-tests-0001, budget: {{tokens: 1M, per: week}},
        prices: {{"*": {{input: 1, output: 2}}}}}}
rules: [{{name: all, match: "*", to: zai}}]
"""


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


def ask(router: Any, path: str, method: str = "GET") -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", router.ports[0], timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def test_a_request_is_on_every_page_a_moment_later(router, caller, home):
    caller.ask("claude-sonnet-4-6")
    assert caller.answer().status == 200
    query = f"?session={caller.session}"

    def totals() -> Any:
        return json.loads(ask(router, f"/ui/data.json{query}").body)["totals"]

    wait_until(lambda: totals()["requests"] == 1, 5, lambda: f"a request in {totals()}")
    assert totals()["cost"] > 0
    for page in (f"/ui{query}", f"/ui/requests{query}", "/ui/sessions", f"/ui/sessions/{caller.session}"):
        answer = ask(router, page)
        assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert b"claude-sonnet-4-6" in answer.body
    assert caller.session in ask(router, f"/ui/requests.csv{query}").body.decode()
    assert not home.requests


def test_the_current_state_is_shown(router):
    now = json.loads(ask(router, "/ui/data.json").body)["now"]
    assert (now["status"], now["in_flight"]) == ("healthy", 0)
    assert set(now["providers"]) == {"anthropic", "zai"}
    assert (now["budgets"]["zai"]["tokens"], now["budgets"]["zai"]["per"]) == (1_000_000, "week")


def test_a_request_in_flight_is_counted(router, shared, caller, gate):
    shared.second.answer(lambda _: (gate.wait(10), message_json("glm-4.7"))[1])
    caller.ask("claude-sonnet-4-6", stream=False)
    shared.second.wait_for(1)
    assert json.loads(ask(router, "/ui/data.json").body)["now"]["in_flight"] == 1
    gate.set()
    assert caller.answer().status == 200


def test_nothing_that_was_said_is_on_a_page_and_names_are_text(router, shared, caller):
    answer = message_json("glm-4.7", [text_block(SAID)])
    shared.second.answer(answer)
    body = json.dumps(
        {"model": ATTACK, "max_tokens": 9, "messages": [{"role": "user", "content": SAID}], "system": SAID}
    ).encode()
    caller.socket.sendall(caller.head(len(body)) + body)
    assert SAID.encode() in caller.answer().body
    router.records(1, session=caller.session)
    path = f"/ui/requests?session={caller.session}"
    wait_until(lambda: b"alert(1)" in ask(router, path).body, 5, lambda: "the request on its page")
    for page in (
        f"/ui?session={caller.session}",
        path,
        "/ui/sessions",
        f"/ui/sessions/{caller.session}",
        f"/ui/sessions/{caller.session}.html",
        "/ui/data.json",
        "/ui/requests.csv",
    ):
        shown = ask(router, page).body
        assert SAID.encode() not in shown
        assert ATTACK.encode() not in shown or page.endswith((".json", ".csv"))


def test_head_has_no_body_and_files_of_the_pages_are_served(router):
    head = ask(router, "/ui", "HEAD")
    assert (head.status, head.body) == (200, b"")
    for name, kind in (
        ("style.css", "text/css"),
        ("live.js", "text/javascript"),
        ("icon.svg", "image/svg+xml"),
    ):
        answer = ask(router, f"/ui/{name}")
        assert (answer.status, answer.headers["content-type"]) == (200, f"{kind}; charset=utf-8")
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_path_that_is_no_page_is_not_found_and_goes_nowhere(router, home):
    assert ask(router, "/ui/nothing").status == 404
    assert not home.requests
