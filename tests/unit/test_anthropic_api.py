"""The tally of one answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.api import TOKEN_FIELDS, Usage

NONSENSE = [None, True, "12", -3, -0.5, 1e300, float("nan"), float("inf"), 10**30, [], {}]


def test_the_latest_nonzero_count_wins():
    usage = Usage()
    usage.take({"input_tokens": 25, "output_tokens": 1})
    usage.take({"input_tokens": 0, "output_tokens": 89})
    assert usage == Usage(input_tokens=25, output_tokens=89)


@pytest.mark.parametrize("nonsense", NONSENSE, ids=repr)
def test_implausible_counts_are_ignored(nonsense):
    usage = Usage(input_tokens=7)
    usage.take({"input_tokens": nonsense, "output_tokens": nonsense})
    assert usage == Usage(input_tokens=7)


def test_whole_floats_and_unknown_fields_do_no_harm():
    usage = Usage()
    usage.take({"output_tokens": 12.0, "server_tool_use": {"web_search_requests": 1}})
    assert usage == Usage(output_tokens=12)


def test_total_input_counts_cached_tokens_too():
    usage = Usage(1, 2, 3, 4)
    assert usage.total_input == 8


@given(
    st.lists(
        st.dictionaries(st.sampled_from(TOKEN_FIELDS), st.integers(0, 10**6) | st.sampled_from(NONSENSE[:4]))
    )
)
def test_counts_are_never_negative_and_never_forgotten(told):
    usage = Usage()
    for each in told:
        before = {name: getattr(usage, name) for name in TOKEN_FIELDS}
        usage.take(each)
        for name in TOKEN_FIELDS:
            assert getattr(usage, name) > 0 or before[name] == 0


def test_tokens_that_are_cached_for_an_hour_are_counted_among_those_written():
    usage = Usage()
    lifetimes = {"ephemeral_5m_input_tokens": 40, "ephemeral_1h_input_tokens": 60}
    usage.take({"cache_creation_input_tokens": 100, "cache_creation": lifetimes})
    usage.take({"cache_creation_input_tokens": 100, "cache_creation": {"ephemeral_1h_input_tokens": 0}})
    assert usage == Usage(cache_creation_input_tokens=100, cache_creation_1h_input_tokens=60)
    assert usage.total_input == 100


@pytest.mark.parametrize("nonsense", NONSENSE, ids=repr)
def test_nonsense_about_cache_lifetimes_is_passed_over(nonsense):
    usage = Usage()
    usage.take({"cache_creation": nonsense})
    usage.take({"cache_creation": {"ephemeral_1h_input_tokens": nonsense}})
    assert usage == Usage()
