from hypothesis import given
from hypothesis import strategies as st

from signalbox.routing.mask import mask, masked_value

KEY = "sk-ant-fake-0123456789-wigAA"


def test_the_first_and_last_five_characters_are_shown():
    assert mask(KEY) == "sk-an...wigAA"


def test_nothing_of_a_short_secret_is_shown():
    assert mask("sk-ant-fake-123") == "***"
    assert mask("sk-ant-fake-1234") == "sk-an...-1234"
    assert mask("") == "***"


def test_the_scheme_of_a_header_value_is_kept():
    assert masked_value(f"Bearer {KEY}") == "Bearer sk-an...wigAA"
    assert masked_value(f"basic  {KEY}") == "basic sk-an...wigAA"
    assert masked_value("Bearer short") == "Bearer ***"


def test_a_header_value_without_scheme_is_masked_whole():
    assert masked_value(KEY) == "sk-an...wigAA"
    assert masked_value("session=0123456789; other=0123456789") == "sessi...56789"


@given(st.text())
def test_at_most_ten_characters_of_a_secret_are_shown(secret: str):
    shown = mask(secret)
    assert shown == "***" or shown == f"{secret[:5]}...{secret[-5:]}"
    assert len(shown) <= 13
    assert len(secret) >= 16 or shown == "***"


@given(st.text(st.characters(categories=["L", "N"]), min_size=11))
def test_no_masked_header_value_contains_its_secret(secret: str):
    assert secret not in masked_value(f"Bearer {secret}")
    assert secret not in masked_value(secret)
