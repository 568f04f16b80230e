import io
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

import pytest

from signalbox.record.entry import Entry
from signalbox.record.log import Console, NotOurs, log_request, logger, set_level, setup


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.fixture(autouse=True)
def _fresh_logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    level, handlers = logger.level, logger.handlers[:]
    logger.handlers[:] = []
    yield
    logger.setLevel(level)
    logger.handlers[:] = handlers


def printed(level: int, message: str, stream: io.StringIO | None = None, **extra: str) -> str:
    stream = stream or io.StringIO()
    record = logging.LogRecord("signalbox", level, __file__, 1, message, None, None)
    record.__dict__.update(extra)
    Console(stream).handle(record)
    return stream.getvalue()


def entry(status: Literal["success", "error", "cancelled"] = "success") -> Entry:
    return Entry(ts=datetime(2026, 11, 19, tzinfo=UTC), model="glm-4.7", backend="zai", status=status)


def test_a_line_is_the_time_and_the_text():
    assert re.fullmatch(r"\[\d\d:\d\d:\d\d\.\d{3}\] rules loaded\n", printed(logging.INFO, "rules loaded"))


def test_a_message_is_one_line_without_control_characters():
    assert printed(logging.INFO, "a\nb\x1b[31m").endswith(r" a\nb\x1b[31m" + "\n")


def test_a_traceback_follows_its_line():
    stream = io.StringIO()
    try:
        raise ValueError("bad\x1b")
    except ValueError as error:
        info = (ValueError, error, error.__traceback__)
    Console(stream).handle(logging.LogRecord("signalbox", logging.ERROR, "", 1, "fault", None, info))
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith(" fault")
    assert lines[-1] == r"ValueError: bad\x1b"


def test_warnings_are_yellow_and_errors_red_on_a_terminal():
    assert printed(logging.WARNING, "failover", Terminal()).endswith(" \x1b[33mfailover\x1b[0m\n")
    assert printed(logging.ERROR, "fault", Terminal()).endswith(" \x1b[31mfault\x1b[0m\n")
    assert printed(logging.INFO, "rules loaded", Terminal()).endswith("]\x1b[0m rules loaded\n")


@pytest.mark.parametrize(("outcome", "colour"), [("success", 32), ("error", 31), ("cancelled", 33)])
def test_the_bracket_of_a_request_has_the_colour_of_its_outcome(outcome: str, colour: int):
    line = printed(logging.INFO, "[opus|zai] 1→2 3ms", Terminal(), outcome=outcome)
    assert line.endswith(f" \x1b[{colour}m[opus|zai]\x1b[0m 1→2 3ms\n")


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_can_ask_for_no_colour(monkeypatch: pytest.MonkeyPatch, variable: str, value: str):
    monkeypatch.setenv(variable, value)
    assert "\x1b" not in printed(logging.ERROR, "fault", Terminal())


def test_nothing_is_coloured_in_a_file_or_pipe():
    assert "\x1b" not in printed(logging.ERROR, "fault")


def test_a_reader_who_left_harms_nobody():
    assert printed(logging.INFO, "rules loaded", Broken()) == ""


def test_a_closed_stream_harms_nobody(capsys: pytest.CaptureFixture[str]):
    stream = Terminal()
    stream.close()
    Console(stream).handle(logging.LogRecord("signalbox", logging.INFO, "", 1, "text", None, None))
    assert capsys.readouterr() == ("", "")


def test_an_encoding_without_arrows_gets_question_marks():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="cp1252")
    Console(stream).handle(logging.LogRecord("signalbox", logging.INFO, "", 1, "A → B — ↻", None, None))
    assert raw.getvalue().rstrip().endswith(b" A ? B \x97 ?")


def test_the_level_decides_what_is_printed_and_changes_live(capsys: pytest.CaptureFixture[str]):
    setup("warn")
    logger.info("not shown")
    set_level("debug")
    logger.debug("shown")
    assert [line.split(" ", 1)[1] for line in capsys.readouterr().out.splitlines()] == ["shown"]


def test_the_level_also_changes_where_there_is_no_console(caplog: pytest.LogCaptureFixture):
    set_level("warn")
    logger.info("not logged")
    set_level("info")
    logger.info("logged")
    assert caplog.messages == ["logged"]
    assert logger.handlers == []


def test_setting_up_again_does_not_print_twice(capsys: pytest.CaptureFixture[str]):
    setup("info")
    setup("info")
    logger.info("once")
    assert capsys.readouterr().out.count("once") == 1


def test_errors_still_reach_other_handlers_where_nothing_is_printed(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    setup("silent")
    logger.error("a start ends by this")
    assert capsys.readouterr().out == ""
    assert caplog.messages == ["a start ends by this"]


def test_a_request_is_logged_with_its_outcome(caplog: pytest.LogCaptureFixture):
    setup("info")
    log_request(entry("cancelled"), prompts=True)
    (record,) = caplog.records
    assert record.getMessage() == "[glm-4.7|zai] cancelled 0→0 0ms"
    assert (record.levelname, record.__dict__["outcome"]) == ("INFO", "cancelled")


def test_a_percent_sign_in_a_prompt_is_only_text(capsys: pytest.CaptureFixture[str]):
    setup("info")
    logger.info("%s %d 100%")
    assert capsys.readouterr().out.endswith(" %s %d 100%\n")


def test_a_faulty_message_harms_nobody(capsys: pytest.CaptureFixture[str]):
    setup("info")
    logger.propagate = False  # pytest's own handler raises for it
    try:
        logger.info("%d", "no number")
    finally:
        logger.propagate = True
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "no number" in shown.err


@pytest.mark.parametrize(
    ("name", "passes"),
    [("signalbox", False), ("signalbox.config", False), ("signalboxes", True), ("mitmproxy", True)],
)
def test_other_handlers_can_leave_our_records_out(name: str, passes: bool):
    record = logging.LogRecord(name, logging.INFO, "", 1, "text", None, None)
    assert NotOurs().filter(record) is passes
