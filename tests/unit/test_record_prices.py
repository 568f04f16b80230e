"""The price table, and what tokens cost by it."""

import itertools
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.api import Usage
from signalbox.config.fields import parse_glob, parse_url
from signalbox.config.rules import Price, Provider
from signalbox.record.prices import SHIPPED, PriceTable, PriceTableError, read, shipped

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
MILLION = 1_000_000
SHIPPED_TABLE = shipped()

TABLE = """
providers:
  anthropic:
    hosts: [api.anthropic.com]
    source: https://example.com/claude
    as_of: 2026-11-01
    prices:
      - models: [claude-opus-9]
        rates: {input: 10, output: 50, cache_read: 1, cache_write: 12.5, cache_write_1h: 20}
      - models: [claude-haiku-9]
        rates: {input: 1, output: 5}
        above:
          200k: {input: 4, output: 20}
          100k: {input: 2, output: 10}
  maker:
    hosts: [api.maker.test, eu.maker.test]
    source: https://example.com/maker
    as_of: 2026-11-01
    prices:
      - {models: m-1, rates: {input: 2, output: 4}}
      - {models: m-1, from: 2026-12-01, rates: {input: 3, output: 6}}
      - {models: m-1-2026-03-05, rates: {input: 7, output: 9}, source: https://example.com/m-1}
  night:
    hosts: [api.night.test]
    source: https://example.com/night
    as_of: 2026-11-01
    peak: {times: 2, hours: [01-04, 06-10]}
    prices:
      - {models: n-1, rates: {input: 1, output: 1}}
plans:
  - {host: api.maker.test, path: /coding, source: https://example.com/plan, as_of: 2026-11-01}
  - {host: plan.test, source: https://example.com/plan, as_of: 2026-11-01}
"""


@pytest.fixture(scope="module")
def table():
    return PriceTable(read(TABLE))


def provider(address="https://api.maker.test/v1", **settings):
    return Provider(name="p", url=parse_url(address), **settings)


def used(*counts):
    """Millions of tokens: input, output, cache written, cache read, of the written those for an hour."""
    return Usage(*(round(count * MILLION) for count in counts))


@pytest.mark.parametrize(
    ("usage", "dollars"),
    [
        (used(1), 10),
        (used(0, 1), 50),
        (used(0, 0, 1), 12.5),
        (used(0, 0, 0, 1), 1),
        (used(0, 0, 1, 0, 1), 20),
        (used(0, 0, 1, 0, 0.25), 0.75 * 12.5 + 0.25 * 20),
        (used(0, 0, 1, 0, 3), 20),
        (used(1, 1, 1, 1), 73.5),
        (used(0), 0),
    ],
)
def test_each_kind_of_token_has_its_own_price(table, usage, dollars):
    assert table.list_cost("claude-opus-9", usage, NOON) == dollars


def test_cached_tokens_cost_what_others_do_where_the_table_has_no_price_for_them(table):
    assert table.cost(provider(), "m-1", used(1, 0, 1, 1, 1), NOON) == 6


def test_cached_tokens_cost_what_others_do_where_the_rules_have_no_price_for_them(table):
    own = provider(prices=((parse_glob("*"), Price(input=2, output=3)),))
    assert table.cost(own, "m-1", used(1, 0, 1, 1), NOON) == 6


def test_a_cost_has_six_decimals(table):
    assert table.cost(provider(), "m-1", Usage(7, 3), NOON) == 0.000026
    assert table.cost(provider(), "m-1", Usage(0, 0, 0, 0), NOON) == 0


@pytest.mark.parametrize(
    ("asked", "is_known"),
    [
        ("claude-opus-9", True),
        ("Claude-Opus-9", True),
        ("claude-opus-9-20261101", True),
        ("claude-opus-9@20261101", True),
        ("claude-opus-9[1m]", True),
        ("claude-opus-9-20261101[1M]", True),
        ("anthropic/claude-opus-9", True),
        ("claude-router-claude-opus-9", True),
        ("claude-opus-9-5", False),
        ("claude-opus", False),
        ("claude-opus-9-fast", False),
        ("m-1", False),
        ("", False),
    ],
)
def test_the_list_cost_knows_a_model_by_every_name_that_clients_give_it(table, asked, is_known):
    assert (table.list_cost(asked, used(1), NOON) == 10) is is_known
    assert (table.list_cost(asked, used(1), NOON) is None) is not is_known


def test_a_version_of_a_model_may_have_its_own_price(table):
    assert table.cost(provider(), "m-1-2026-03-05", used(1), NOON) == 7
    assert table.cost(provider(), "m-1-2026-04-06", used(1), NOON) == 2


def test_a_model_has_a_price_at_its_own_provider_only(table):
    assert table.cost(provider("https://eu.maker.test"), "m-1", used(1), NOON) == 2
    assert table.cost(provider("https://other.test"), "m-1", used(1), NOON) is None
    assert table.cost(provider(), "claude-opus-9", used(1), NOON) is None
    assert table.cost(provider(), "m-2", used(1), NOON) is None


def test_anthropic_itself_costs_list_prices_behind_any_host(table):
    for settings in ({"auth": "client"}, {"auth": "claude-login"}):
        behind = provider("http://127.0.0.1:9000", **settings)
        assert table.cost(behind, "claude-opus-9", used(1), NOON) == 10
    assert table.cost(provider("https://api.anthropic.com"), "claude-opus-9", used(1), NOON) == 10


@pytest.mark.parametrize(
    ("tokens", "dollars"), [(100_000, 0.1), (100_001, 0.200002), (200_000, 0.4), (200_001, 0.800004)]
)
def test_a_long_prompt_is_charged_by_other_prices_as_a_whole(table, tokens, dollars):
    for usage in (Usage(tokens), Usage(1, 0, 1, tokens - 2)):
        assert table.list_cost("claude-haiku-9", usage, NOON) == dollars


@pytest.mark.parametrize(
    ("at", "dollars"),
    [
        (NOON, 2),
        (datetime(2026, 11, 30, 23, 59, tzinfo=UTC), 2),
        (datetime(2026, 12, 1, tzinfo=UTC), 3),
        (datetime(2026, 12, 1, 0, 30, tzinfo=timezone(timedelta(hours=1))), 2),
        (datetime(2030, 1, 1, tzinfo=UTC), 3),
    ],
)
def test_a_price_holds_from_its_day_on(table, at, dollars):
    assert table.cost(provider(), "m-1", used(1), at) == dollars


@pytest.mark.parametrize(
    ("at", "dollars"),
    [
        (datetime(2026, 11, 27, 0, 59, tzinfo=UTC), 1),
        (datetime(2026, 11, 27, 1, 0, tzinfo=UTC), 2),
        (datetime(2026, 11, 27, 4, 0, tzinfo=UTC), 1),
        (datetime(2026, 11, 27, 9, 59, tzinfo=UTC), 2),
        (datetime(2026, 11, 27, 9, 0, tzinfo=timezone(timedelta(hours=8))), 2),
        (datetime(2026, 11, 28, 2, 0, tzinfo=UTC), 1),
        (datetime(2026, 11, 29, 2, 0, tzinfo=UTC), 1),
    ],
)
def test_prices_are_higher_in_peak_hours_of_working_days(table, at, dollars):
    assert table.cost(provider("https://api.night.test"), "n-1", used(1), at) == dollars


@pytest.mark.parametrize(
    ("address", "dollars"),
    [
        ("https://api.maker.test/coding", 0),
        ("https://api.maker.test/coding/v1", 0),
        ("https://api.maker.test/codings", 2),
        ("https://api.maker.test", 2),
        ("https://plan.test/v1", 0),
        ("https://plan.test", 0),
    ],
)
def test_a_subscription_charges_no_token(table, address, dollars):
    assert table.cost(provider(address), "m-1", used(1), NOON) == dollars


def test_prices_of_the_user_come_before_all_others(table):
    prices = ((parse_glob("m-*"), Price(1, 2, 0.5, 4)), (parse_glob("*"), Price(9, 9)))
    for address in ("https://api.maker.test", "https://plan.test", "https://other.test"):
        own = provider(address, prices=prices)
        assert table.cost(own, "m-1", used(1, 1, 1, 1, 1), NOON) == 7.5
        assert table.cost(own, "else", used(1), NOON) == 9
    anthropic = provider("https://api.anthropic.com", prices=((parse_glob("m-*"), Price(1, 2)),))
    assert table.cost(anthropic, "claude-opus-9", used(1), NOON) == 10


@given(st.lists(st.integers(0, 10**9), min_size=5, max_size=5), st.integers(0, 4))
def test_more_tokens_never_cost_less(counts, which):
    more = [count + (i == which) * 1000 for i, count in enumerate(counts)]
    for model in ("claude-opus-5-5", "claude-haiku-5-5"):
        cost, higher = (SHIPPED_TABLE.list_cost(model, Usage(*each), NOON) for each in (counts, more))
        assert cost is not None
        assert higher is not None
        assert 0 <= cost <= higher


# what is wrong with a table


@pytest.mark.parametrize(
    ("wrong", "right", "errors"),
    [
        ("rates: {input: 2, output: 4}", "rates: {input: 2}", ['the key "output" is missing']),
        ("input: 10, ", "inputs: 10, ", ['unknown key "inputs", did you mean "input"?']),
        ("output: 50", "output: dear", ['expected a number of dollars, got "dear"']),
        ("from: 2026-12-01", "from: soon", ['expected a day such as 2026-11-29, got "soon"']),
        ("01-04", "04-01", ['expected hours of the day such as 06-10, got "04-01"']),
        ("https://example.com/claude", "docs", ["expected an address that begins with https://"]),
        ("claude\n    as_of: 2026-11-01", "claude", ['the key "as_of" is missing']),
        ("eu.maker.test", "api.night.test", ["api.night.test belongs to maker already"]),
        (", from: 2026-12-01", "", ['"m-1" has a price already']),
        ("providers:", "providers: [", ["did not find expected"]),
    ],
)  # fmt: skip
def test_an_error_in_the_table_names_its_line_and_what_is_wrong(wrong, right, errors):
    assert wrong in TABLE
    with pytest.raises(PriceTableError) as raised:
        read(TABLE.replace(wrong, right, 1), "my.yaml")
    lines = str(raised.value).splitlines()
    assert all(line.startswith("my.yaml:") and line.split(":")[1].isdigit() for line in lines)
    assert [error for error in errors if not any(error in line for line in lines)] == []


def test_an_error_names_the_line_and_path():
    with pytest.raises(PriceTableError) as raised:
        read(TABLE.replace("times: 2", "times: two"))
    assert str(raised.value) == (
        'prices.yaml:27: expected a number of dollars, got "two" (at $.providers.night.peak.times)'
    )


# the table that is shipped

FILE = read(SHIPPED.read_text(encoding="utf-8"))
PRICES = [
    pytest.param(provider, price, id=f"{price.models[0]}-{price.valid_from or 'always'}")
    for provider in FILE.providers.values()
    for price in provider.prices
]


def test_the_shipped_table_has_every_family():
    assert set(FILE.providers) == {
        *("anthropic", "zai", "moonshot", "minimax", "deepseek", "qwen"),
        *("openai", "gemini", "xai", "mistral"),
    }
    assert all(plan.source.startswith("https://") for plan in FILE.plans)


@pytest.mark.parametrize(("provider", "price"), PRICES)
def test_each_shipped_price_has_its_source_and_its_day(provider, price):
    assert (price.source or provider.source).startswith("https://")
    assert date(2025, 1, 1) <= (price.as_of or provider.as_of) <= date(2027, 12, 31)


@pytest.mark.parametrize(("provider", "price"), PRICES)
def test_each_shipped_price_is_plausible(provider, price):
    levels = sorted(price.above)
    for rates in (price.rates, *(rates for _, rates in levels)):
        assert 0 <= rates.input <= rates.output <= 1000
        assert rates.cache_read is None or rates.cache_read <= rates.input
        assert rates.cache_read is None or rates.cache_read < rates.input or rates.input == 0
        assert rates.cache_write is None or rates.input / 2 < rates.cache_write <= rates.input * 2
        assert rates.cache_write_1h is None or rates.cache_write < rates.cache_write_1h <= rates.input * 2
    steps = [price.rates, *(rates for _, rates in levels)]
    assert all(
        before.input < after.input and before.output < after.output
        for before, after in itertools.pairwise(steps)
    )
    assert all(10_000 <= tokens <= MILLION for tokens, _ in levels)


@pytest.mark.parametrize("price", FILE.providers["anthropic"].prices, ids=lambda price: price.models[0])
def test_each_price_of_claude_has_both_cache_lifetimes(price):
    for rates in (price.rates, *(rates for _, rates in price.above)):
        assert None not in (rates.cache_read, rates.cache_write, rates.cache_write_1h)
        if price.models[0] != "claude-3-haiku":  # priced before the rule
            assert rates.cache_write == pytest.approx(rates.input * 1.25)
        assert rates.cache_write_1h == pytest.approx(rates.input * 2)


@pytest.mark.parametrize(
    ("model", "dollars"),
    [
        ("claude-3-7-sonnet-20250219", 18),
        ("claude-sonnet-4-20250514", 28.5),
        ("claude-opus-4-20250514", 90),
        ("claude-opus-4-1-20250805", 90),
        ("claude-sonnet-4-5-20250929", 28.5),
        ("claude-haiku-4-5-20251001", 6),
        ("claude-opus-4-5-20251101", 30),
        ("claude-opus-4-6", 30),
        ("claude-sonnet-4-6", 18),
        ("claude-opus-4-7", 30),
        ("claude-opus-4-8", 30),
        ("claude-fable-5", 60),
        ("claude-mythos-5", 60),
        ("claude-sonnet-5", 12),
        ("claude-opus-5", 30),
        ("claude-fable-5-1", 60),
        ("claude-mythos-5-1", 60),
        ("claude-opus-5-5", 24),
        ("claude-sonnet-5-5", 12),
        ("claude-haiku-5-5", 3),
        ("claude-fable-5-2", 48),
        ("claude-mythos-5-2", 48),
    ],
)
def test_claude_models_of_2025_and_2026_have_their_prices(model, dollars):
    assert SHIPPED_TABLE.list_cost(model, used(1, 1), NOON) == dollars


@pytest.mark.parametrize(
    ("address", "model", "dollars"),
    [
        ("https://api.z.ai/api/anthropic", "glm-4.7", 2.8),
        ("https://api.z.ai/api/coding/paas/v4", "glm-4.7", 0),
        ("https://api.moonshot.ai/anthropic", "kimi-k3", 18),
        ("https://api.kimi.com/coding", "kimi-for-coding", 0),
        ("https://api.minimax.io/anthropic", "MiniMax-M2.7", 1.5),
        ("https://api.deepseek.com/anthropic", "deepseek-flash", 0.75),
        ("https://dashscope-intl.aliyuncs.com/apps/anthropic", "qwen3.8-max", 8),
        ("https://api.openai.com/v1", "gpt-5.4-mini-2026-03-17", 5.25),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "models/gemini-2.5-flash", 2.8),
        ("https://api.x.ai/v1", "grok-4.7", 16),
        ("https://api.mistral.ai/v1", "mistral-medium-3-5", 9),
    ],
)
def test_a_model_of_each_family_has_its_price(address, model, dollars):
    assert SHIPPED_TABLE.cost(provider(address), model, used(1, 1), NOON) == dollars
