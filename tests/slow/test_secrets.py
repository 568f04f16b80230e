"""Real credentials reach the provider they are for, and neither flow files nor logs nor mitmweb."""

import json
import re
import subprocess
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.io import FlowReader

from tests.support.fake_provider import Upstream
from tests.support.mitmweb import Web
from tests.support.router_process import MITMDUMP, Router, clean_environment, wait_until

ROUTER = Router
pytestmark = pytest.mark.slow

LOGIN = "sk-ant-oat01-fake-login-of-nobody"
KEY = "zai-key-for-tests-0001"
SECRETS = {LOGIN, KEY, "cookie-of-nobody-0000001", "query-key-for-tests-01"}


def rules(home: Upstream, zai: Upstream, more: str = "") -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  zai: {{url: "{zai.url}", key: "{KEY}", key_header: authorization}}
rules:
  - {{match: "*haiku*", to: zai/glm}}
  - {{match: "*opus*", to: anthropic}}
log: {{level: debug}}
{more}
"""


def ask(router: Router, model: str, path: str = "/v1/messages") -> None:
    with closing(HTTPConnection("127.0.0.1", router.ports[0], timeout=10)) as connection:
        headers = {"Authorization": f"Bearer {LOGIN}", "Cookie": "s=cookie-of-nobody-0000001"}
        connection.request("POST", path, json.dumps({"model": model}), headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200


def ask_all(router: Router, upstream: Upstream, second: Upstream) -> None:
    for model in ("claude-haiku-4-5", "claude-opus-4-5", "unrouted"):
        ask(router, model)
    ask(router, "claude-opus-4-5", "/v1/elsewhere")
    assert second.wait_for(1)[0].header("authorization") == f"Bearer {KEY}"
    assert {one.header("authorization") for one in upstream.wait_for(3)} == {f"Bearer {LOGIN}"}
    assert {one.header("cookie") for one in upstream.requests} == {"s=cookie-of-nobody-0000001"}


def test_a_flow_file_and_the_log_hold_masked_credentials_only(start_router, upstream, second):
    flows = "flows.mitm"
    router: Router = start_router(upstream.url, rules=rules(upstream, second), options=("-w", flows))
    ask_all(router, upstream, second)
    router.records(3)
    assert router.stop() == 0
    written = (router.folder / flows).read_bytes()
    assert b"/v1/elsewhere" in written
    texts = [written, router.log().encode(), (router.state / "requests.jsonl").read_bytes()]
    assert not any(secret.encode() in text for secret in SECRETS for text in texts)
    with (router.folder / flows).open("rb") as file:
        shown = {flow.request.headers.get("authorization") for flow in FlowReader(file).stream()}
    assert shown - {None} == {"Bearer sk-an...obody", "Bearer zai-k...-0001"}
    router.wait_log(r"→ anthropic POST /v1/messages Bearer sk-an\.\.\.obody")


def test_mitmdump_prints_and_dumps_bodies_by_the_views_without_credentials(start_router, upstream, second):
    options = ("--set", "flow_detail=4", "--set", "hardump=dumped.har")
    router: Router = start_router(upstream.url, rules=rules(upstream, second), options=options)
    with closing(HTTPConnection("127.0.0.1", router.ports[0], timeout=10)) as connection:
        said = {"role": "user", "content": f"My key is {KEY}, my login {LOGIN}."}
        body = json.dumps({"model": "claude-haiku-4-5", "stream": True, "messages": [said]})
        connection.request("POST", "/v1/messages", body, {"Authorization": f"Bearer {LOGIN}"})
        connection.getresponse().read()
    router.records(1)
    assert router.stop() == 0
    har = (router.folder / "dumped.har").read_bytes()
    for text in (router.log(), har.decode()):
        assert "My key is ***, my login ***." in text
        assert not [secret for secret in SECRETS if secret in text]
    assert re.search(r"Model: glm\n(.*\n)*\s*1 user\n\s*My key is", router.log())
    assert "stop reason: end_turn" in router.log()
    with (router.folder / "dumped.har").open("rb") as file:
        answers = [
            flow.response.content for flow in FlowReader(file).stream() if flow.request.method == "POST"
        ]
    assert [b"message_start" in answer for answer in answers] == [True]


def test_secrets_are_shown_where_the_rules_say_so(start_router, upstream, second):
    router: Router = start_router(
        upstream.url,
        rules=rules(upstream, second, "inspect: {secrets: show}"),
        options=("-w", "flows.mitm"),
    )
    ask_all(router, upstream, second)
    router.stop()
    assert LOGIN.encode() in (router.folder / "flows.mitm").read_bytes()


@pytest.fixture
def web(tmp_path: Path, upstream: Upstream, second: Upstream) -> Any:
    with Web(tmp_path, upstream.url, rules=rules(upstream, second)) as router:
        yield router


def test_mitmweb_shows_the_flows_with_masked_credentials(web, upstream, second):
    ask_all(web, upstream, second)
    wait_until(lambda: web.shown().count(b'"status_code":') >= 4, 5, lambda: web.shown().decode())
    shown = web.shown()
    assert not any(secret.encode() in shown for secret in SECRETS)
    assert b"Bearer sk-an...obody" in shown
    assert re.search(rb'"host": ?"127.0.0.1"', shown)


def test_every_line_of_the_debug_log_keeps_secrets_to_itself(start_router: Callable[..., Router], upstream):
    text = f"""
providers:
  zai:
    url: "{upstream.url}"
    key: "{KEY}"
    headers: {{X-Extra-Token: "query-key-for-tests-01"}}
    query: {{key: "query-key-for-tests-01"}}
rules: [{{match: "*", to: zai/glm}}]
log: {{level: debug}}
"""
    router = start_router(upstream.url, rules=text, options=("-w", "flows.mitm"))
    ask(router, "claude-haiku-4-5")
    sent = upstream.wait_for(1)[0]
    assert sent.path.endswith("key=query-key-for-tests-01")
    assert sent.header("x-extra-token") == "query-key-for-tests-01"
    router.records(1)
    router.stop()
    assert "query-key-for-tests-01" not in router.log()
    assert b"query-key-for-tests-01" not in (router.folder / "flows.mitm").read_bytes()


def test_flow_whose_secrets_are_shown_is_replayed_by_mitmproxy(tmp_path, upstream, second):
    text = rules(upstream, second, "inspect: {secrets: show}")
    with Web(tmp_path, upstream.url, rules=text) as web:
        ask(web, "claude-haiku-4-5")
        (flow,) = web.finished(1)
        web.post(f"/flows/{flow['id']}/replay")
        second.wait_for(2)
        wait_until(lambda: web.flows()[0].get("response"), 5, web.log)
        assert second.requests[1].body == second.requests[0].body
        assert second.requests[1].header("authorization") == f"Bearer {KEY}"
        assert len(web.records(1)) == 1


def test_saved_flows_load_in_mitmproxy_without_the_router(start_router, upstream, second):
    router: Router = start_router(upstream.url, rules=rules(upstream, second), options=("-w", "flows.mitm"))
    ask_all(router, upstream, second)
    router.stop()
    command = [str(MITMDUMP), "-n", "-r", str(router.folder / "flows.mitm"), "--set", "flow_detail=3"]
    environment = clean_environment(router.folder, {})
    told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout.count("POST http://127.0.0.1") == 4
    assert "message" in told.stdout
    assert told.stderr == ""
