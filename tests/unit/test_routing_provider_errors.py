"""The tables of provider errors: the same name means the same to routing and to the client."""

import json

import pytest

from signalbox.anthropic.errors import ERROR_TYPES, read_error
from signalbox.routing.provider_errors import _GENERAL_NAMES, _MEANINGS, _STATUS_OF, meaning


def _meaning(body, status):
    return tuple(meaning(read_error(json.dumps(body).encode()), status))


@pytest.mark.parametrize("status", [None, 429, 500])
@pytest.mark.parametrize(
    ("code", "expected"),
    [(1001, ("timeout", 504)), (1002, ("throttle", 429)), (1008, ("quota", 402)), (1039, ("throttle", 429))],
)
def test_minimax_codes_mean_the_same_in_both_shapes_and_with_any_status(code, expected, status):
    assert _meaning({"base_resp": {"status_code": code, "status_msg": "m"}}, status) == expected
    error = {"type": "api_error", "message": f"m ({code})"}
    assert _meaning({"type": "error", "error": error}, status) == expected


def test_no_name_is_in_both_tables():
    assert not _MEANINGS.keys() & _STATUS_OF.keys()
    assert sum(len(names.split()) for names in _GENERAL_NAMES.values()) == len(_STATUS_OF)


@pytest.mark.parametrize("status", ERROR_TYPES)
def test_every_error_type_of_anthropic_has_its_own_status(status):
    assert _meaning({"error": {"type": ERROR_TYPES[status], "message": "m"}}, None)[1] == status


def test_a_general_name_does_not_override_the_status_of_the_answer():
    assert _meaning({"error": {"code": "unavailable", "message": "m"}}, 502) == ("server", 502)
    assert _meaning({"error": {"code": "unavailable", "message": "m"}}, None) == ("overload", 503)


def test_a_number_among_the_codes_is_the_status_of_an_error_without_one():
    error = {"code": 502, "message": "m", "metadata": {"error_type": "provider_unavailable"}}
    assert _meaning({"error": error}, None) == ("server", 502)
