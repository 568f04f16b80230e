import json
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from signalbox.record.entry import RECORDED, Entry, json_line

ENTRY = Entry(
    ts=datetime(2026, 11, 19, 8, 30, 0, 123_456, tzinfo=UTC),
    model="claude-sonnet-4-5",
    backend="zai",
    input_tokens=1250,
    output_tokens=890,
    status="success",
    upstream_model="glm-4.7",
    rule="coding",
    reason="rule:coding",
    attempts="zai:200",
    latency_ms=3421,
    first_byte_ms=400,
    cost=0.012,
    session="session-1",
    client="laptop",
    tier="sonnet",
    http_status=200,
    error_type="none",
    snippet="the secret plan",
)


def test_a_line_is_one_json_object_in_the_order_that_scripts_rely_on():
    assert json_line(ENTRY) == (
        b'{"ts":"2026-11-19T08:30:00.123Z","model":"claude-sonnet-4-5","backend":"zai",'
        b'"input_tokens":1250,"output_tokens":890,"cache_creation_input_tokens":0,'
        b'"cache_read_input_tokens":0,"status":"success","upstream_model":"glm-4.7","rule":"coding",'
        b'"reason":"rule:coding","attempts":"zai:200","latency_ms":3421,"first_byte_ms":400,"cost":0.012,'
        b'"session":"session-1","client":"laptop"}\n'
    )


def test_what_is_for_the_console_never_reaches_the_file():
    recorded = json.loads(json_line(ENTRY))
    assert tuple(recorded) == RECORDED
    assert not recorded.keys() & {"tier", "http_status", "error_type", "snippet"}
    assert b"secret plan" not in json_line(ENTRY)


def test_the_time_is_utc_wherever_it_was_taken():
    tokyo = ENTRY.ts.astimezone(timezone(timedelta(hours=9)))
    assert json_line(msgspec.structs.replace(ENTRY, ts=tokyo)) == json_line(ENTRY)


@pytest.mark.parametrize("text", ["two\nlines", "\x1b[31m", "\u2028", "\udc80 of a header", '"quoted"'])
def test_any_text_makes_one_readable_line(text: str):
    line = json_line(msgspec.structs.replace(ENTRY, model=text, session=text))
    assert line.count(b"\n") == 1
    assert json.loads(line)["model"] == text.replace("\udc80", "?")


def test_a_line_reads_back_as_the_entry():
    read = msgspec.json.decode(json_line(ENTRY), type=Entry)
    assert json_line(read) == json_line(ENTRY)


def test_a_line_of_the_first_eight_fields_alone_can_be_read():
    fields = {name: json.loads(json_line(ENTRY))[name] for name in RECORDED[:8]}
    assert msgspec.convert(fields, Entry).output_tokens == 890
