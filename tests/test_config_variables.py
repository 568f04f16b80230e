"""${NAME}, ${NAME:-default}, `.env`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.config.variables import UnsetError, expanded, from_dotenv, in_force, origins

VARIABLES = {"HOST": "example.com", "DOLLAR": "${HOST}"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://${HOST}/x", "https://example.com/x"),
        ("${HOST}${HOST}", "example.comexample.com"),
        ("${PORT:-8082}", "8082"),
        ("${HOST:-other}", "example.com"),
        ("${PORT:-}", ""),
        ("$${HOST}", "${HOST}"),
        ("${DOLLAR}", "${HOST}"),
        ("$HOST {x} }", "$HOST {x} }"),
    ],
)
def test_names_are_replaced_once(text, expected):
    assert expanded(text, VARIABLES) == expected


def test_a_name_without_value_and_default_is_unset():
    with pytest.raises(UnsetError, match=r"^PORT is not set$"):
        expanded("${HOST}:${PORT}", VARIABLES)


@pytest.mark.parametrize("text", ["${", "${}", "${a b}", "${HOST", "${A:-${HOST}}", "${1}", "${HOST-x}"])
def test_what_looks_like_a_name_and_is_none_is_refused(text):
    with pytest.raises(ValueError, match=r"\$\$\{"):
        expanded(text, VARIABLES)


@given(st.text())
def test_text_without_a_dollar_stays(text):
    assert expanded(text.replace("$", ""), {}) == text.replace("$", "")


def test_dotenv_is_taken_as_it_stands():
    text = "A=1\nexport B='two words'\n# C=3\nD=\nE\nF=${A}\n"
    found = from_dotenv(text)
    assert found.values == {"A": "1", "B": "two words", "F": "${A}"}
    assert (found.lines["A"], found.lines["F"], found.ignored) == (1, 6, ())


def test_lines_of_dotenv_that_set_nothing_are_told_by_number():
    found = from_dotenv("A=1\n\n\nthis is no setting\nB=2\n'\n")
    assert (found.values, found.lines["B"], found.ignored) == ({"A": "1", "B": "2"}, 5, (4, 6))


def test_the_environment_wins_over_dotenv_unless_it_is_empty():
    file = from_dotenv("A=file\nB=file")
    assert in_force({"A": "env", "B": ""}, file) == {"A": "env", "B": "file"}
    assert origins({"A": "env", "B": ""}, file) == {"B": ".env:2"}


def test_the_first_file_wins_over_the_second_unless_it_is_empty_there():
    first, second = from_dotenv("A=1\nB=\n", "first"), from_dotenv("A=2\nB=2\nC=2", "second")
    assert in_force({}, first, second) == {"A": "1", "B": "2", "C": "2"}
    assert origins({}, first, second) == {"A": "first:1", "B": "second:2", "C": "second:3"}
