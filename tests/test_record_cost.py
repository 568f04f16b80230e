import re
from fnmatch import translate

from signalbox.config.rules import Glob, Price
from signalbox.record.cost import cost


def glob(text: str) -> Glob:
    return Glob(text, re.compile(translate(text), re.IGNORECASE))


PRICES = (
    (glob("glm-4.5-air"), Price(input=0.2, output=1.1)),
    (glob("glm-*"), Price(input=0.6, output=2.2, cache_read=0.11, cache_write=0.75)),
)


def test_prices_are_dollars_for_a_million_tokens_of_each_kind():
    assert cost(PRICES, "glm-4.7", 1_000_000, 0, 0, 0) == 0.6
    assert cost(PRICES, "glm-4.7", 0, 1_000_000, 0, 0) == 2.2
    assert cost(PRICES, "glm-4.7", 0, 0, 1_000_000, 0) == 0.75
    assert cost(PRICES, "glm-4.7", 0, 0, 0, 1_000_000) == 0.11
    assert cost(PRICES, "glm-4.7", 1_000_000, 1_000_000, 1_000_000, 1_000_000) == 3.66


def test_the_first_glob_that_matches_counts():
    assert cost(PRICES, "GLM-4.5-Air", 1_000_000, 0, 0, 0) == 0.2


def test_a_cost_has_six_decimals():
    assert cost(PRICES, "glm-4.7", 7, 3, 0, 1) == 0.000011


def test_a_model_without_price_has_no_cost_rather_than_none_to_pay():
    assert cost(PRICES, "claude-opus-4-5", 1000, 1000, 0, 0) is None
    assert cost((), "glm-4.7", 1000, 1000, 0, 0) is None
    assert cost(PRICES, "glm-4.7", 0, 0, 0, 0) == 0.0
