"""Why an answer ended; the golden files `finish_*` show whole streams."""

import pytest

from signalbox.translate.endings import fault_of, is_known, meaning, stop_reason, stop_sequence


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


@pytest.mark.parametrize(
    ("finish", "told"),
    [
        ("user_cancelled", "api_error"),
        ("engine_crashed", "api_error"),
        ("error_limit", "api_error"),
        ("preempted", "api_error"),
        ("out_of_memory", "api_error"),
        ("quota_exceeded", "api_error"),
        ("request_timed_out", "timeout_error"),
        ("no_capacity", "overloaded_error"),
        ("image_safety", "refusal"),
        ("reached_context_limit", "model_context_window_exceeded"),
        ("max_new_tokens", "max_tokens"),
        ("stop_token", "end_turn"),
        ("eosfound", "end_turn"),
        ("finished", "end_turn"),
        ("unknown", "end_turn"),
    ],
)
def test_a_reason_never_seen_before_is_judged_by_the_words_in_it(finish, told):
    assert not is_known(finish)
    assert meaning(finish) == told


@pytest.mark.parametrize(
    ("finish", "told", "asked", "met"),
    [
        ("stop", "END", ("three", "END"), "END"),
        ("stop", "end_turn", ("END",), ""),
        ("stop", "", ("END",), ""),
        ("stop_sequence", "", ("END",), "END"),
        ("stop_sequence", "", ("END", "three"), ""),
    ],
)
def test_a_stop_sequence_is_told_where_it_is_one_of_those_asked_for(finish, told, asked, met):
    assert stop_sequence(finish, told, asked) == met
