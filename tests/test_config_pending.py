"""Which keys are not yet in effect."""

import pytest

from signalbox.config import document
from signalbox.config.pending import PENDING, not_yet


def told(text: str) -> list[str]:
    return not_yet(document.read(text)[0], "rules.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ledger: postgresql+psycopg://h/d", "1: ledger: URL is not yet in effect (at $.ledger)"),
        ("ledger:\n  url: postgresql://h/d", "2: ledger: URL is not yet in effect (at $.ledger.url)"),
        ("\ninspect: {keep: 5}", "2: inspect.keep is not yet in effect (at $.inspect.keep)"),
    ],
)
def test_a_key_whose_effect_comes_later_is_told(text, expected):
    assert told(text) == [f"rules.yaml:{expected}"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rules: []\nlimits: {body: 1MB}\nfail: open\nlog: {level: debug}\ninspect: {secrets: show}",
        "providers: {a: {api: anthropic, auth: client, beta: learn, keys: [b, c], timeout: }}",
        'rules: [{match: "*", to: [a, b, {reject: 429}]}]\npicker:',
        "providers: {a: {budget: {tokens: 1M, per: day}}}\nweek: {starts: monday 00:00}",
        "ledger: sqlite",
        "ledger: {url: sqlite, keep: 30d}",
        "ui: {hosts: [router.lan]}",
    ],
)
def test_what_is_in_effect_or_not_given_is_not_told(text):
    assert told(text) == []


def test_all_are_told_in_the_order_of_the_file():
    text = "ledger: postgresql://h/d\nproviders:\n  b: {}\ninspect: {keep: 1, bodies: 1MB}\nlisten: {}\n"
    assert [line.split(":")[1] for line in told(text)] == ["1", "4", "4", "5"]


def test_every_row_names_a_place_of_its_own():
    places = [(pending.path, pending.what) for pending in PENDING]
    assert len(set(places)) == len(places)
