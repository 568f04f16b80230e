"""Values of anthropic-beta."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic import betas
from signalbox.anthropic.field_paths import is_essential


def test_values_of_several_headers_come_once_each_in_order():
    assert betas.split(["a, b,,a", " c ", "b"]) == ["a", "b", "c"]


def test_only_whole_values_are_removed():
    values = [f"{betas.OAUTH},x-{betas.OAUTH}", betas.LONG_CONTEXT]
    assert betas.without_betas(values, {betas.OAUTH, betas.LONG_CONTEXT}) == [f"x-{betas.OAUTH}"]


def test_no_header_means_no_values():
    assert betas.split([]) == []
    assert betas.split(["", " , "]) == []


SENT = ["claude-code-20250219", "context-management-2025-06-27", "effort-2025-11-24"]


def test_a_rejected_value_is_left_out():
    assert betas.betas_left([",".join(SENT)], {"effort-2025-11-24"}) == SENT[:2]


@pytest.mark.parametrize("field", ["output_config.effort", "output_config"])
def test_a_beta_is_dropped_with_its_field_or_the_object_around_it(field):
    assert betas.betas_left(SENT, {field}) == SENT[:2]


def test_a_value_stays_where_only_a_part_of_its_field_is_rejected():
    assert betas.betas_left(SENT, {"context_management.edits.keep"}) == SENT


def test_the_fields_of_values_left_out_go_with_them():
    assert betas.dropped_with(SENT, []) == {"context_management", "output_config.effort"}
    assert betas.dropped_with(SENT, SENT) == frozenset()


def test_a_field_whose_beta_was_not_sent_stays():
    assert "safeguards" not in betas.dropped_with(SENT, [])


def test_a_field_stays_where_another_value_opens_it():
    sent = ["mcp-client-2025-04-04", "mcp-client-2025-11-20"]
    assert betas.dropped_with(sent, sent[1:]) == frozenset()
    assert betas.dropped_with(sent, []) == {"mcp_servers", "tools.type=mcp_toolset"}


def test_nothing_that_a_value_opens_is_essential():
    assert not [field for field in betas.FIELDS if is_essential(field)]


@given(
    st.lists(st.sampled_from([*betas.PAIRS, "alone-2026-01-01"]), unique=True),
    st.sets(st.sampled_from(sorted(betas.FIELDS))),
)
def test_no_beta_remains_whose_field_is_dropped(sent, rejected):
    kept = betas.betas_left(sent, rejected)
    gone = rejected | betas.dropped_with(sent, kept)
    assert not [beta for beta in kept if gone.intersection(betas.PAIRS.get(beta, ()))]
