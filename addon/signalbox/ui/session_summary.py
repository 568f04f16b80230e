"""`GET /signalbox/sessions/ID`: one session in a few figures, for status lines (the contract, section 11)."""

from collections.abc import Mapping
from urllib.parse import unquote

from signalbox.config.rules import unlisted
from signalbox.database_errors import DatabaseError
from signalbox.record.queries import LedgerSource
from signalbox.routing.local_pages import SESSIONS
from signalbox.routing.quota import DEFAULT
from signalbox.ui.pages import PageResponse, json_page

type Percents = Mapping[tuple[str, str], Mapping[str, float]]
"""By provider and account the percent used of each window."""


def summary_page(ledger: LedgerSource, path: str, percents: Percents) -> PageResponse:
    """Blocks. Raises nothing that is due to the request or to the ledger."""
    session = unquote(path.removeprefix(SESSIONS))
    try:
        with ledger.open() as reader:
            found = None if "\0" in session else reader.session_summary(session)
    except DatabaseError as error:
        return json_page({"error": f"The ledger cannot be read: {error}"}, 503)
    if found is None:
        return json_page({"error": "No request of this session is on record."}, 404)
    quota = _quota(percents, found["provider"], found["account"] or DEFAULT)
    return json_page(found | {"quota": {window: round(percent) for window, percent in quota.items()}})


def _quota(percents: Percents, provider: str, account: str) -> Mapping[str, float]:
    """The windows of that account, else of another one of the provider, else of the first provider that has
    any: who was sent elsewhere because a plan is used up wants to see that plan."""
    names = dict.fromkeys((provider, unlisted(provider), *(name for name, _ in percents)))
    places = ((name, one) for name in names for one in (account, DEFAULT))
    return next((percents[place] for place in places if place in percents), {})
