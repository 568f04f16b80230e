"""What an answer cost; the golden files `usage_*` show each provider's spelling."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalbox.messages.api import NAMES
from signalbox.translate.spending import estimated, usage_of

COUNT = st.integers(0, 10**6)
NONSENSE = st.none() | st.text() | st.floats() | st.integers() | st.booleans() | st.lists(st.integers())


@settings(deadline=None)
@given(prompt=COUNT, cached=COUNT, written=COUNT, completion=COUNT)
def test_input_is_what_is_not_cached(prompt, cached, written, completion):
    details = {"cached_tokens": cached, "cache_write_tokens": written}
    usage = usage_of(
        {"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": details}
    )
    if usage:
        assert usage["input_tokens"] == max(prompt - cached - written, 0)
        assert usage["cache_read_input_tokens"] == cached
        assert usage["cache_creation_input_tokens"] == written
        assert usage["output_tokens"] == completion


@settings(deadline=None)
@given(prompt=st.integers(1, 100), cached=st.integers(101, 200))
def test_anthropics_names_may_mean_that_the_prompt_is_without_the_cache(prompt, cached):
    usage = usage_of({"prompt_tokens": prompt, "cache_read_input_tokens": cached})
    assert usage["input_tokens"] == prompt
    written = usage_of({"prompt_tokens": prompt, "cache_creation_input_tokens": cached})
    assert written["input_tokens"] == prompt
    within = usage_of({"prompt_tokens": cached, "cache_read_input_tokens": prompt})
    assert within["input_tokens"] == cached - prompt


@pytest.mark.parametrize(("total", "output"), [(120, 20), (150, 50), (140, 20), (None, 20)])
def test_reasoning_that_is_counted_apart_is_added(total, output):
    told = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": total}
    assert usage_of(told | {"completion_tokens_details": {"reasoning_tokens": 30}})["output_tokens"] == output


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(
    ["prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "prompt_tokens_details",
     "completion_tokens_details", "prompt_cache_hit_tokens", "cache_read_input_tokens"]
), NONSENSE))  # fmt: skip
def test_nonsense_costs_nothing(told):
    usage = usage_of(told)
    assert usage == {} or list(usage) == [NAMES[0], NAMES[2], NAMES[3], NAMES[1]]
    assert all(0 <= count < 10**13 for count in usage.values())


@pytest.mark.parametrize(("characters", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2)])
def test_what_is_not_told_is_estimated(characters, tokens):
    assert estimated(characters) == {"output_tokens": tokens}
