"""Messages put together from events; the golden files `whole*` show them."""

import pytest

from signalbox.translate.whole import Message


def _input(arguments: str) -> bytes:
    message = Message()
    delta = {"type": "input_json_delta", "partial_json": arguments}
    message.add(
        [
            {"type": "message_start", "message": {}},
            {"type": "content_block_start", "content_block": {"type": "tool_use", "input": {}}},
            {"type": "content_block_delta", "delta": delta},
            {"type": "content_block_stop"},
        ]
    )
    return message.encoded().partition(b'"input":')[2].removesuffix(b"}]}")


@pytest.mark.parametrize("arguments", ['{"n": 1.50, "a":"\\u00e4"}', "{ }", '{"z":1,"a":[2]}'])
def test_arguments_stay_as_they_were_written(arguments):
    assert _input(arguments) == arguments.encode()


@pytest.mark.parametrize("arguments", ["", '{"a":"b', "[1]", '"a"'])
def test_arguments_that_are_cut_are_none(arguments):
    assert _input(arguments) == b"{}"
