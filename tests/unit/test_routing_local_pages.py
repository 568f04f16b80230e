"""Which requests are for the router's own pages, and who may read them."""

from base64 import b64encode

import pytest

from signalbox.config.rules import Rules, Ui
from signalbox.routing.local_pages import page_at, reader_of, reader_refusal

SECRET = "secret-of-a-client-for-tests"
ALONE = Rules()
SHARED = Rules(clients={"ann": SECRET, "bob": "another-secret-for-tests"})
HERE, ELSEWHERE = "127.0.0.1", "192.168.1.7"


@pytest.mark.parametrize(
    ("method", "path", "page"),
    [
        ("HEAD", "/", "hello"),
        ("HEAD", "/api/hello", "hello"),
        ("GET", "/", None),
        ("GET", "/health", "health"),
        ("HEAD", "/health", "health"),
        ("POST", "/health", None),
        ("GET", "/metrics", "metrics"),
        ("HEAD", "/metrics", "metrics"),
        ("GET", "/metrics/x", None),
        ("GET", "/ui", "ui"),
        ("GET", "/ui/", "ui"),
        ("DELETE", "/ui/sessions/1", "ui"),
        ("GET", "/uix", None),
        ("GET", "/signalbox/sessions/1", "session"),
        ("GET", "/signalbox/sessions", None),
        ("POST", "/v1/messages", None),
    ],
)
def test_the_routers_own_pages_are_recognized_by_their_paths(method, path, page):
    assert page_at(method, path) == page


def status(page="ui", method="GET", *, has_body=False, peer=HERE, reader=None, rules=ALONE):
    refused = reader_refusal(page, method, has_body=has_body, peer=peer, reader=reader, rules=rules)
    return refused.status if refused is not None else 200


@pytest.mark.parametrize("page", ["ui", "metrics"])
@pytest.mark.parametrize(
    ("who", "expected"),
    [
        ({}, 200),
        ({"peer": "::ffff:127.0.0.1"}, 200),
        ({"peer": ELSEWHERE}, 403),
        ({"rules": SHARED}, 401),
        ({"rules": SHARED, "peer": ELSEWHERE}, 401),
        ({"rules": SHARED, "peer": ELSEWHERE, "reader": "ann"}, 200),
        ({"rules": Rules(clients=SHARED.clients, ui=Ui(open=True)), "peer": ELSEWHERE}, 200),
        ({"rules": Rules(ui=Ui(open=True)), "peer": ELSEWHERE}, 200),
    ],
)
def test_figures_are_for_this_machine_or_for_who_has_a_secret(page, who, expected):
    assert status(page, **who) == expected


def test_a_session_is_told_to_this_machine_alone_and_without_a_secret():
    assert status("session", rules=SHARED) == 200
    assert status("session", rules=SHARED, peer=ELSEWHERE, reader="ann") == 403
    assert status("session", rules=Rules(ui=Ui(open=True)), peer=ELSEWHERE) == 403


def test_everybody_gets_an_answer_to_the_checks_of_clients():
    assert {status(page, peer=ELSEWHERE, rules=SHARED) for page in ("hello", "health")} == {200}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_pages_are_only_read(method):
    assert status(method=method) == status("session", method) == 405


def test_a_request_with_a_body_is_refused_before_it_is_in():
    assert status(has_body=True) == 413


def basic(password: str) -> str:
    return f"Basic {b64encode(f'any:{password}'.encode()).decode()}"


@pytest.mark.parametrize(
    ("name", "value", "reader"),
    [
        ("Authorization", basic(SECRET), "ann"),
        ("authorization", basic(SECRET).replace("Basic", "BASIC "), "ann"),
        ("Authorization", f"Bearer {SECRET}", "ann"),
        ("x-signalbox-client", SECRET, "ann"),
        ("Authorization", basic("wrong"), None),
        ("Authorization", basic(""), None),
        ("Authorization", f"Basic {SECRET}", None),
        ("Authorization", "Basic é", None),
        ("x-other", SECRET, None),
    ],
)
def test_a_client_presents_its_secret_as_bearer_or_as_a_password(name, value, reader):
    assert reader_of(((name, value),), SHARED.clients) == reader
    assert reader_of(((name, value),), {}) is None
