"""The router's own pages (the contract, section 3): which request is for one, and who may read it.

`browsers` has checked before that no page of another origin sent the request, and that the host is this
machine's.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from signalbox.config.rules import Rules
from signalbox.routing.browsers import is_loopback
from signalbox.routing.credentials import Headers, identify, secret_of_basic

type LocalPage = Literal["hello", "health", "metrics", "session", "ui"]
"""`hello`: checks of clients, with empty answers; `session`: the summary for status lines."""

HEALTH, METRICS, UI, SESSIONS = "/health", "/metrics", "/ui", "/signalbox/sessions/"
_HELLO = ("/", "/api/hello")


class PageRefusal(NamedTuple):
    status: int
    why: str


def page_at(method: str, path: str) -> LocalPage | None:
    """The page that the request is for; None if it is for no page of the router. `path` has no query."""
    if path in _HELLO:
        return "hello" if method == "HEAD" else None
    if path == HEALTH:
        return "health" if method in ("GET", "HEAD") else None
    if path == METRICS:
        return "metrics"
    if path == UI or path.startswith(f"{UI}/"):
        return "ui"
    return "session" if path.startswith(SESSIONS) else None


def reader_of(headers: Headers, clients: Mapping[str, str]) -> str | None:
    """The client whose secret a request for a page has, as for messages or as the password of HTTP Basic."""
    if clients and (caller := identify(headers, clients)) is not None:
        return caller.client
    passwords = tuple(
        ("authorization", secret)
        for name, value in headers
        if name.lower() == "authorization" and (secret := secret_of_basic(value))
    )
    caller = identify(passwords, clients) if clients else None
    return caller.client if caller is not None else None


def may_read_conversations(*, peer: str, reader: str | None, rules: Rules) -> bool:
    """Whether a page that may be read may also show conversations. Not for readers whom only `ui.open`
    allows."""
    return reader is not None or (not rules.clients and is_loopback(peer))


def reader_refusal(
    page: LocalPage, method: str, *, has_body: bool, peer: str, reader: str | None, rules: Rules
) -> PageRefusal | None:
    """Why the page is not shown. `peer` is an address, `reader` the client whose secret the request has.

    Everybody may read `hello` and `health`, which shows less to strangers. Status lines read from this
    machine without a secret. The other pages show projects and sizes of prompts: if there are clients, they
    require a secret also on this machine, which may have several users.
    """
    if page in ("hello", "health"):
        return None
    if method not in ("GET", "HEAD"):
        return PageRefusal(405, "The router's pages are only read: GET or HEAD.")
    if has_body:
        return PageRefusal(413, "A request for a page has no body.")
    is_here = is_loopback(peer)
    if page == "session":
        return None if is_here else PageRefusal(403, "Only this machine may read this page.")
    if rules.ui.open or reader is not None:
        return None
    if rules.clients:
        return PageRefusal(
            401, "This page asks for a client's secret, as Bearer or as password of HTTP Basic."
        )
    if not is_here:
        return PageRefusal(403, "Only this machine may read this page; ui.open in rules.yaml lets others.")
    return None
