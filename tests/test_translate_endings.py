"""Why an answer ended; the golden files `finish_*` show whole streams."""

import pytest

from signalbox.translate.endings import fault_of, stop_reason


@pytest.mark.parametrize(
    ("finish", "plain", "called"),
    [
        ("stop", "end_turn", "tool_use"),
        ("tool_calls", "end_turn", "tool_use"),
        ("function_call", "end_turn", "tool_use"),
        ("eos_token", "end_turn", "tool_use"),
        ("", "end_turn", "tool_use"),
        ("length", "max_tokens", "max_tokens"),
        ("content_filter", "refusal", "refusal"),
        ("sensitive", "refusal", "refusal"),
        ("model_context_window_exceeded", "model_context_window_exceeded", "model_context_window_exceeded"),
    ],
)
def test_a_stop_is_told_by_what_was_written_and_by_its_reason(finish, plain, called):
    assert stop_reason(finish, called=False, refused=False) == plain
    assert stop_reason(finish, called=True, refused=False) == called
    assert stop_reason(finish, called=False, refused=True) == "refusal"
    assert fault_of(finish) == ""


@pytest.mark.parametrize("finish", ["network_error", "error", "aborted", "insufficient_system_resource"])
def test_some_reasons_are_no_stops(finish):
    assert fault_of(finish)
