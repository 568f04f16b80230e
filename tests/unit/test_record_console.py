import io
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from signalbox.record.console import (
    Console,
    NotOurs,
    count,
    dispatch_line,
    escaped,
    failed_line,
    failover_line,
    log_request,
    logger,
    received_line,
    request_line,
    sent_line,
    set_level,
    setup,
    skip_line,
    snippet,
)
from signalbox.record.entry import Entry


def entry(**fields: Any) -> Entry:
    usual = {
        "ts": datetime(2026, 11, 19, tzinfo=UTC),
        "model": "claude-sonnet-4-5",
        "tier": "sonnet",
        "backend": "zai",
        "input_tokens": 50,
        "cache_creation_input_tokens": 200,
        "cache_read_input_tokens": 1000,
        "output_tokens": 890,
        "status": "success",
        "attempts": "zai:200",
        "latency_ms": 3421,
        "snippet": "Write hello world in Python",
    }
    return Entry(**usual | fields)


def test_a_request_is_one_line_with_tier_provider_tokens_time_and_prompt():
    assert request_line(entry(), prompts=True) == '[sonnet|zai] 1.3k→890 3421ms "Write hello world in Python"'


def test_the_prompt_can_be_left_out():
    assert request_line(entry(), prompts=False) == "[sonnet|zai] 1.3k→890 3421ms"
    assert request_line(entry(snippet=""), prompts=True) == "[sonnet|zai] 1.3k→890 3421ms"


@pytest.mark.parametrize(
    ("cost", "shown"),
    [(0.00274, " $0.0027"), (0.0, " $0.0000"), (12.3456, " $12.3456"), (None, "")],
)
def test_a_known_cost_stands_after_the_time(cost, shown):
    assert request_line(entry(cost=cost), prompts=False) == f"[sonnet|zai] 1.3k→890 3421ms{shown}"
    line = request_line(entry(cost=cost, attempts="kimi:429 zai:200"), prompts=True)
    assert line.endswith(f' 3421ms{shown} ↻ 2 attempts "Write hello world in Python"')


def test_a_request_that_used_nothing_has_no_cost_on_the_console():
    failed = Entry(ts=datetime(2026, 11, 19, tzinfo=UTC), model="m", backend="zai", status="error", cost=0.0)
    assert request_line(failed, prompts=True) == "[m|zai] error 0ms"


def test_a_model_without_tier_stands_for_itself():
    assert request_line(entry(tier=None, model="glm-4.7"), prompts=False).startswith("[glm-4.7|zai] ")


def test_a_request_that_failed_over_says_how_often_it_was_tried():
    line = request_line(entry(backend="anthropic", attempts="zai:429 anthropic:200"), prompts=True)
    assert line == '[sonnet|anthropic] 1.3k→890 3421ms ↻ 2 attempts "Write hello world in Python"'


def test_an_error_shows_its_status_and_type():
    error = entry(status="error", http_status=429, error_type="rate_limit_error", latency_ms=312)
    assert request_line(error, prompts=True) == "[sonnet|zai] 429 rate_limit_error 312ms"


def test_an_error_shows_why():
    error = entry(status="error", http_status=400, error_type="invalid_request_error", latency_ms=4)
    why = replace(error, why="invalid_request_error: messages: none\x1b[2J")
    line = "[sonnet|zai] 400 invalid_request_error: messages: none\\x1b[2J 4ms"
    assert request_line(why, prompts=True) == line


def test_a_request_whose_body_was_not_read_shows_its_path():
    passed = entry(model="", tier=None, http_status=200, passed="GET /v1/models", latency_ms=4, snippet="")
    assert request_line(passed, prompts=True) == "[-|zai] 200 GET /v1/models 4ms"
    refused = replace(passed, backend="", status="error", http_status=401, peer="192.0.2.7")
    refused = replace(refused, error_type="authentication_error")
    assert request_line(refused, prompts=True) == (
        "[-|-] 401 authentication_error from 192.0.2.7 GET /v1/models 4ms"
    )


def test_an_error_shows_what_is_known_of_it():
    assert request_line(entry(status="error", http_status=502), prompts=True) == "[sonnet|zai] 502 3421ms"
    assert request_line(entry(status="error"), prompts=True) == "[sonnet|zai] error 3421ms"


def test_a_cancelled_request_says_so_and_what_it_used():
    line = request_line(entry(status="cancelled", output_tokens=12), prompts=False)
    assert line == "[sonnet|zai] cancelled 1.3k→12 3421ms"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1_000, "1.0k"),
        (1_249, "1.2k"),
        (1_250, "1.3k"),
        (999_949, "999.9k"),
        (999_950, "1.0M"),
        (1_000_000, "1.0M"),
        (1_250_000, "1.3M"),
        (1_234_567_890, "1234.6M"),
    ],
)
def test_counts_have_one_decimal_half_up(number: int, text: str):
    assert count(number) == text


@given(st.integers(0, 10**12))
def test_a_count_is_the_number_rounded_half_up(number: int):
    text = count(number)
    unit = {"k": 1_000, "M": 1_000_000}.get(text[-1], 1)
    decimals = Decimal("0.1") if unit > 1 else Decimal(1)
    shown = Decimal(text.rstrip("kM"))
    assert shown == (Decimal(number) / unit).quantize(decimals, ROUND_HALF_UP)
    assert unit == 1_000_000 or shown < 1_000


def test_white_space_in_a_snippet_is_folded():
    assert snippet("  Write\n\n\thello   world\r\n") == "Write hello world"


def test_a_snippet_has_sixty_characters():
    assert snippet("é" * 100) == "é" * 60


@given(st.text())
def test_a_snippet_is_one_printable_line_of_what_was_said(text: str):
    shown = snippet(text)
    assert shown.isprintable()
    assert not text.isprintable() or len(shown) <= 60


@pytest.mark.parametrize(
    ("character", "shown"),
    [
        ("\x1b", r"\x1b"),
        ("\n", r"\n"),
        ("\x9b", r"\x9b"),
        ("\x7f", r"\x7f"),
        ("\u202e", r"\u202e"),
        ("\u2028", r"\u2028"),
        ("\udc80", r"\udc80"),
    ],
)
def test_what_could_command_a_terminal_is_escaped(character: str, shown: str):
    assert escaped(f"a{character}b") == f"a{shown}b"


@given(st.text(st.characters()))
def test_escaping_leaves_only_printable_text_and_can_be_repeated(text: str):
    assert escaped(text).isprintable()
    assert escaped(escaped(text)) == escaped(text)


@given(st.text())
def test_no_name_from_outside_breaks_out_of_its_line(text: str):
    lines = [
        request_line(entry(tier=None, model=text, backend=text, snippet=text), prompts=True),
        request_line(entry(status="error", error_type=text), prompts=True),
        dispatch_line(text, text, text, text),
        sent_line(text, text, text, text),
        failed_line(text, text, text),
        received_line(text, 200, 812, text),
    ]
    assert all(line.isprintable() for line in lines)


def test_a_name_without_end_is_cut():
    assert len(dispatch_line("zai", "no-rule", "m" * 1_000_000)) < 200


def test_a_dispatch_names_provider_reason_and_model():
    assert dispatch_line("zai", "rule:coding", "claude-sonnet-4-5") == (
        "dispatch: zai reason=rule:coding model=claude-sonnet-4-5"
    )
    assert dispatch_line("zai", "quota:7d", "claude-sonnet-4-5", "glm-4.7") == (
        "dispatch: zai reason=quota:7d model=claude-sonnet-4-5 rewrite=glm-4.7"
    )
    assert dispatch_line("anthropic", "no-model", None) == "dispatch: anthropic reason=no-model model=-"


def test_who_is_passed_over_is_named_with_the_reason():
    line = skip_line("zai", "glm-4.7", "cooldown", "in cooldown for another 5 s: busy\x1b[2J")
    assert line == "skipped zai/glm-4.7: cooldown (in cooldown for another 5 s: busy\\x1b[2J)"


def test_the_lines_of_an_attempt_may_end_in_a_masked_key():
    assert sent_line("zai", "POST", "/v1/messages") == "→ zai POST /v1/messages"
    assert sent_line("anthropic", "POST", "/v1/messages", "sk-an...wigAA") == (
        "→ anthropic POST /v1/messages sk-an...wigAA"
    )
    assert received_line("zai", 200, 812) == "← zai 200 812ms"
    assert received_line("anthropic", 200, 812, "sk-an...wigAA") == "← anthropic 200 812ms sk-an...wigAA"


def test_a_query_which_may_hold_a_key_is_not_shown():
    assert sent_line("azure", "POST", "/v1/messages?api-key=fake") == "→ azure POST /v1/messages"


def test_a_failure_is_reported_with_its_reason_where_there_is_one():
    assert failed_line("zai", "404", "no such model") == "✗ zai 404: no such model"
    assert failed_line("zai", "connect", "") == "✗ zai connect"


def test_the_reason_of_a_failure_is_reported_whole():
    assert failed_line("zai", "400", "x" * 200).endswith("x" * 200)
    assert failover_line("zai", "400", "x" * 200, "anthropic").endswith("x" * 200)


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


def ended(status: Literal["success", "error", "cancelled"] = "success") -> Entry:
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
    log_request(ended("cancelled"), prompts=True)
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
