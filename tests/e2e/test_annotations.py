"""Flows that mitmproxy saves to a file (what is noted in them is in `test_proxy_stream_annotations`)."""

from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection

import pytest
from mitmproxy.io import FlowReader

from tests.support.answers import json_answer, message_sse
from tests.support.raw_client import LOGIN

KEY = "zai-key-for-tests-0001"


def test_saved_flows_hold_answers_but_neither_keys_nor_cookies_in_them(
    start_router, tmp_path, upstream, second
):
    cookie = "session=cookie-of-nobody-0000001; Path=/"
    told = message_sse("glm-4.7", ["Your key is ", KEY])
    for provider in (upstream, second):
        provider.answer(replace(told, headers=(*told.headers, ("Set-Cookie", cookie))))
    rules = f"""
providers:
  anthropic: {{url: "{upstream.url}", auth: client}}
  zai: {{url: "{second.url}", key: {KEY}}}
rules:
  - {{match: "*haiku*", to: anthropic}}
  - {{match: "*sonnet*", to: zai/glm-4.7}}
"""
    file = tmp_path / "saved.flows"
    router = start_router(upstream.url, rules=rules, options=("--set", f"save_stream_file={file}"))
    for path, model in (("/v1/messages", "haiku"), ("/v1/elsewhere", "haiku"), ("/v1/messages", "sonnet")):
        with closing(HTTPConnection("127.0.0.1", router.ports[0], timeout=10)) as connection:
            body = b'{"model": "claude-%b", "stream": true}' % model.encode()
            connection.request("POST", path, body, {"Authorization": LOGIN})
            answer = connection.getresponse()
            assert KEY.encode() in answer.read()
            assert answer.headers["set-cookie"] == (cookie if model == "haiku" else None)
    router.stop()
    with file.open("rb") as saved:
        flows = list(FlowReader(saved).stream())
    assert flows[0].metadata["signalbox"]["provider"] == "anthropic"
    assert b"Your key is " in flows[2].response.content
    assert b"message_stop" in flows[2].response.content
    assert KEY.encode() not in b"".join(flow.response.content for flow in flows[2:])
    assert b"cookie-of-nobody-0000001" not in file.read_bytes()
    assert b"session=cooki...00001; Path=/" in file.read_bytes()


@pytest.mark.parametrize("secrets", ["mask", "show"])
def test_bodies_of_other_paths_which_may_be_logins_are_saved_only_where_secrets_may_be_shown(
    start_router, tmp_path, upstream, secrets
):
    upstream.answer(json_answer({"access_token": "token-of-nobody-000001"}))
    file = tmp_path / "saved.flows"
    rules = f"inspect: {{secrets: {secrets}}}\n"
    router = start_router(upstream.url, rules=rules, options=("--set", f"save_stream_file={file}"))
    with closing(HTTPConnection("127.0.0.1", router.ports[0], timeout=10)) as connection:
        connection.request("POST", "/v1/oauth/token", b"code=of-nobody-000001")
        assert b"token-of-nobody" in connection.getresponse().read()
    router.stop()
    with file.open("rb") as saved:
        (flow,) = FlowReader(saved).stream()
    bodies = [flow.request.content, flow.response.content]
    assert bodies == (
        [b"code=of-nobody-000001", b'{"access_token":"token-of-nobody-000001"}']
        if secrets == "show"
        else [None, None]
    )
