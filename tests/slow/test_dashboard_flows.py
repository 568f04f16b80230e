"""The dashboard beside mitmweb: links to flows, conversations while they are held, and who may read those."""

import html
import json
import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request

import pytest

from tests.support.answers import message_sse
from tests.support.fake_provider import Upstream
from tests.support.mitmweb import Web
from tests.support.raw_client import Caller
from tests.support.router_process import OPENER, wait_until

pytestmark = pytest.mark.slow

SECRET = "secret-of-a-client-for-tests"
SESSION = "session-of-a-test"
FIRST, SECOND, ANSWER = "what is a signalbox?", "and who works in it?", "a building beside a railway"


def rules(zai: Upstream, more: str = "") -> str:
    return f"""
providers: {{zai: {{url: "{zai.url}", key: zai-key-for-tests-0001}}}}
rules: [{{match: "*", to: zai/glm-4.7}}]
{more}
"""


@pytest.fixture
def web(tmp_path: Path, upstream: Upstream, second: Upstream) -> Iterator[Web]:
    second.answer(message_sse("glm-4.7", texts=[ANSWER]))
    with Web(tmp_path, upstream.url, rules=rules(second)) as router:
        yield router


def talk(web: Web, *said: str, **headers: str) -> None:
    """A turn that is answered and in the ledger."""
    messages = [{"role": "user", "content": text} for text in said]
    body = json.dumps({"model": "claude-sonnet-4-6", "stream": True, "messages": messages}).encode()
    before = len(web.records())
    with Caller(web, session=SESSION) as caller:
        caller.socket.sendall(caller.head(len(body), **headers) + body)
        assert caller.answer().status == 200
    web.records(before + 1)


def page(web: Web, path: str, **headers: str) -> str:
    with OPENER.open(Request(f"{web.url}{path}", headers=headers), timeout=10) as answer:
        return html.unescape(answer.read().decode())


def page_with(web: Web, path: str, text: str, **headers: str) -> str:
    """The page, once that is on it: rows come to the ledger a moment after their requests."""

    def is_there() -> bool:
        try:
            return text in page(web, path, **headers)
        except HTTPError as refused:
            refused.close()
            return False

    wait_until(is_there, 10, lambda: f"{text} on {path}")
    return page(web, path, **headers)


def test_a_request_leads_to_its_flow(web):
    talk(web, FIRST)
    (flow,) = web.finished(1)
    link = f"http://127.0.0.1:{web.web}/#/flows/{flow['id']}/request"
    assert f'href="{link}"' in page_with(web, "/ui/requests", SESSION)


def test_a_session_shows_its_conversation_and_how_two_turns_differ(web):
    talk(web, FIRST)
    talk(web, FIRST, SECOND)
    path = f"/ui/sessions/{SESSION}"
    shown = page_with(web, path, SECOND)
    assert shown.index(FIRST) < shown.index(SECOND) < shown.index(ANSWER)
    compared = page(web, f"{path}?turn=2&against=1")
    assert re.search(rf"<ins>\+ +{re.escape(SECOND)}</ins>", compared)
    assert f"{FIRST}</ins>" not in compared


def test_no_other_page_shows_what_was_said(web):
    talk(web, FIRST)
    page_with(web, "/ui/requests", SESSION)
    for path in ("/ui", "/ui/requests", "/ui/requests.csv", "/ui/sessions", "/ui/data.json"):
        assert FIRST not in page(web, path)
    assert FIRST not in page(web, f"/ui/sessions/{SESSION}.html")


def test_requests_for_pages_are_not_listed_in_mitmweb(web):
    talk(web, FIRST)
    for _ in range(3):
        page(web, "/ui")
    wait_until(lambda: b'"/ui' not in web.shown(), 5, lambda: "the pages to go")
    assert len(web.finished(1)) == 1


def test_a_conversation_is_for_those_who_have_a_secret(web, second):
    clients = f"clients: {{ann: {SECRET}}}\n"
    web.rules(rules(second, clients))
    wait_until(lambda: web.health()["client_validation"], 5, web.log)
    talk(web, FIRST, x_signalbox_client=SECRET)
    path = f"/ui/sessions/{SESSION}"
    with pytest.raises(HTTPError, match="401") as refused:
        page(web, path)
    refused.value.close()
    basic = {"Authorization": f"Basic {b64encode(f'me:{SECRET}'.encode()).decode()}"}
    assert FIRST in page_with(web, path, SESSION, **basic)
    web.rules(rules(second, f"{clients}ui: {{open: true}}\n"))
    opened = page_with(web, path, "Turn by turn")
    assert FIRST not in opened
