"""Errors are logged by place, never with their text."""

import logging

import pytest

from signalbox.errors import is_exhausted, location, log_error, short_reason

SECRET = "sk-ant-fake-secret-in-an-error"


def raised() -> KeyError:
    try:
        raise KeyError(SECRET)
    except KeyError as error:
        return error


def test_an_error_is_located_where_it_was_raised():
    assert location(raised()).startswith("KeyError at test_errors.py:")


def test_an_error_without_frames_is_named_by_its_type():
    assert location(KeyError(SECRET)) == "KeyError"


@pytest.mark.parametrize(("level", "lines"), [(logging.INFO, 1), (logging.DEBUG, 2)])
def test_the_frames_of_an_error_are_logged_at_debug_alone(caplog, level, lines):
    with caplog.at_level(level, logger="signalbox"):
        log_error("the request hook", raised())
    assert caplog.messages[0].startswith("error in the request hook: KeyError at test_errors.py:")
    assert len(caplog.messages) == lines
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("[Errno 111] Connect call failed ('127.0.0.1', 9)", "Connection refused"),
        ("[Errno -2] Name or service not known", "Name or service not known"),
        ("certificate verify failed", "certificate verify failed"),
    ],
)
def test_the_reason_of_a_failed_connection_is_short(message, reason):
    assert short_reason(message) == reason


@pytest.mark.parametrize(("message", "expected"), [("[Errno 24] Too many open files", True), ("x", False)])
def test_a_process_that_can_open_no_more_is_distinguished_from_a_provider_that_fails(message, expected):
    assert is_exhausted(message) is expected
