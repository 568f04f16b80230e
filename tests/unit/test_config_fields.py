"""Each kind of scalar."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.config import fields, rules
from signalbox.config.fields import Listen
from signalbox.config.rules import Target


def refusal(read: Callable[[str], object], text: str) -> str:
    """The whole error, so that it is never empty."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011  what was expected is for the decoder to say
        read(text)
    return repr(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("300ms", 0.3),
        ("60s", 60),
        ("5m", 300),
        ("1h", 3600),
        ("7d", 604800),
        ("0s", 0),
        ("0", 0),
        ("1.5s", 1.5),
    ],
)
def test_durations_are_seconds(text, seconds):
    assert fields.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "5 m", "m", "-1s", "1h30m", "1w", "5M", "\u0665s"])
def test_other_texts_are_no_durations(text):
    assert refusal(fields.parse_duration, text)


@pytest.mark.parametrize(
    ("text", "size"), [("10MB", 10 << 20), ("512KB", 512 << 10), ("1GB", 1 << 30), ("1.5KB", 1536)]
)
def test_sizes_are_bytes(text, size):
    assert fields.parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "count"),
    [("2000", 2000), ("500k", 500_000), ("1.5M", 1_500_000), ("2m", 2_000_000), ("0.001k", 1)],
)
def test_counts_are_whole(text, count):
    assert fields.parse_count(text) == count


@pytest.mark.parametrize("text", ["1.5", "0.0001k", "k", "-1", "1 k", "1e3", ""])
def test_fractions_of_one_are_no_count(text):
    assert refusal(fields.parse_count, text)


@pytest.mark.parametrize(
    ("glob", "text", "matches"),
    [
        ("*haiku*", "claude-HAIKU-4-5", True),
        ("claude-?-4", "claude-x-4", True),
        ("claude-?-4", "claude-xx-4", False),
        ("glm-[45]*", "glm-4.7", True),
        ("glm-[!45]*", "glm-4.7", False),
        ("a.c", "abc", False),
        ("x*", "x\ny", True),
    ],
)
def test_globs_are_whole_and_ignore_case(glob, text, matches):
    assert fields.parse_glob(glob).matches(text) is matches


@pytest.mark.parametrize("text", ["", "[abc", "a[", "[]"])
def test_bad_globs_are_refused(text):
    assert refusal(fields.parse_glob, text)


def test_a_glob_of_stars_is_fast():
    assert not fields.parse_glob("*a" * 30).matches("a" * 29 + "b" * 5000)


def test_1m_at_the_end_of_a_model_glob_is_ignored():
    assert fields.parse_model_glob("claude-opus-*[1m]").matches("claude-opus-4-5")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://api.z.ai/api/anthropic/", "https://api.z.ai/api/anthropic"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("https://h:443", "https://h"),
        ("http://[::1]:9000/v1x", "http://[::1]:9000/v1x"),
        ("HTTPS://Example.COM/A", "https://example.com/A"),
        ("http://local_llm", "http://local_llm"),
    ],
)
def test_urls_are_parsed_into_parts(text, expected):
    assert str(fields.parse_url(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "api.z.ai", "ftp://h", "https://", "https:///x", "https://me:pw@h", "https://h?x=1", "https://h#x",
        "https://h?", "https://h:0", "https://h:99999", "https://h:x", "https://[::1", "https://a b", "https://h\n",
        "https://-h", "https://h\u00e4", "https://[zz]",
    ],
)  # fmt: skip
def test_bad_urls_are_refused(text):
    assert "pw" not in refusal(fields.parse_url, text)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("zai", Target("zai")),
        ("zai/glm-4.7", Target("zai", "glm-4.7")),
        ("openrouter/z-ai/glm-4.7", Target("openrouter", "z-ai/glm-4.7")),
        ("zai/{model}:free", Target("zai", "{model}:free")),
        ("zai/{}{4.7", Target("zai", "{}{4.7")),
    ],
)
def test_the_provider_ends_at_the_first_slash(text, target):
    assert rules.parse_target(text) == target


@pytest.mark.parametrize("text", ["", "/", "zai/", "/glm", "zai/ "])
def test_half_a_target_is_refused(text):
    assert refusal(rules.parse_target, text)


@pytest.mark.parametrize(
    ("text", "reason"), [(" ", "empty"), ("a\nb", "header"), ("k\u20acy", "header"), ("a\0", "header")]
)
def test_a_key_that_no_header_can_carry_has_a_reason_instead(text, reason):
    secret = fields.parse_secret(text)
    assert secret.value is None
    assert reason in secret.reason


@pytest.mark.parametrize("text", ["a\r\nx: y", "a\n", "\0", "\u20ac"])
def test_header_values_cannot_break_out(text):
    with pytest.raises(ValueError, match="header cannot carry"):
        fields.parse_header_value(text)


@pytest.mark.parametrize("text", ["", "a b", "a:", "a\n", "Content-Length", "transfer-encoding"])
def test_header_names_are_tokens_and_not_of_the_connection(text):
    assert refusal(fields.parse_header_name, text)


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (fields.parse_comparison, ">80", (">", 80.0)),
        (fields.parse_comparison, "<= 12.5%", ("<=", 12.5)),
        (fields.parse_comparison, " > 80 % ", (">", 80.0)),
        (fields.parse_week_start, "Monday 08:30", (0, 8, 30)),
        (fields.parse_listen, "127.0.0.1:8082", Listen("127.0.0.1", 8082)),
        (fields.parse_listen, "[::1]:8082", Listen("::1", 8082)),
        (fields.parse_port_or_listener, "8082", 8082),
        (fields.parse_port_or_listener, "work", "work"),
        (fields.parse_outcome, "529", "529"),
        (fields.parse_outcome, "timeout", "timeout"),
        (fields.parse_timezone, "local", "local"),
        (fields.parse_ledger, "postgresql+psycopg://h/db", "postgresql+psycopg://h/db"),
        (
            fields.parse_ledger,
            "postgresql://u:p%40@[::1]:5432/d?sslmode=require",
            "postgresql://u:p%40@[::1]:5432/d?sslmode=require",
        ),
        (fields.parse_ledger, "postgresql:///d?host=/run/postgresql", "postgresql:///d?host=/run/postgresql"),
        (fields.parse_ledger, "sqlite:////var/ledger.sqlite", "sqlite:////var/ledger.sqlite"),
        (fields.parse_path, "/openai/deployments/x", "/openai/deployments/x"),
    ],
)
def test_well_formed_text_is_read(read, text, value):
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (fields.parse_comparison, "80"),
        (fields.parse_comparison, "=80"),
        (fields.parse_week_start, "monday"),
        (fields.parse_week_start, "monday 24:00"),
        (fields.parse_listen, "8082"),
        (fields.parse_listen, "h:0"),
        (fields.parse_port_or_listener, "0"),
        (fields.parse_port_or_listener, "70000"),
        (fields.parse_outcome, "200"),
        (fields.parse_outcome, "timeouts"),
        (fields.parse_status, "600"),
        (fields.parse_timezone, "Mars/Olympus"),
        (fields.parse_timezone, "../etc/passwd"),
        (fields.parse_ledger, "mysql"),
        (fields.parse_ledger, "mysql://h/d"),
        (fields.parse_ledger, "postgresql://h"),
        (fields.parse_ledger, "postgresql://h:port/d"),
        (fields.parse_ledger, "sqlite://"),
        (fields.parse_path, "openai"),
        (fields.parse_path, "/a?b"),
        (fields.parse_regex, "("),
        (fields.parse_regex, ""),
        (fields.parse_regex, "(" * 5000),
        (fields.parse_flag, "yes"),
        (fields.parse_whole, "1.0"),
        (fields.parse_whole, "9" * 5000),
    ],
)
def test_malformed_text_is_refused(read, text):
    assert refusal(read, text)


READERS = [
    fields.parse_text,
    fields.parse_name,
    fields.parse_flag,
    fields.parse_whole,
    fields.parse_number,
    fields.parse_duration,
    fields.parse_size,
    fields.parse_count,
    fields.parse_glob,
    fields.parse_model_glob,
    fields.parse_url,
    fields.parse_path,
    fields.parse_location,
    fields.parse_secret,
    fields.parse_header_name,
    fields.parse_header_value,
    rules.parse_target,
    fields.parse_outcome,
    fields.parse_window,
    fields.parse_comparison,
    fields.parse_port_or_listener,
    fields.parse_listen,
    fields.parse_week_start,
    fields.parse_timezone,
    fields.parse_ledger,
]


@given(st.sampled_from(READERS), st.text() | st.from_regex(r"[\d.:/\[\]~a-z>-]*", fullmatch=True))
def test_no_text_raises_anything_but_value_error_of_one_line(read, text):
    message = ""
    try:
        read(text)
    except ValueError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1
