"""Values of anthropic-beta."""

from signalbox.messages import betas


def test_values_of_several_headers_come_once_each_in_order():
    assert betas.split(["a, b,,a", " c ", "b"]) == ["a", "b", "c"]


def test_only_whole_names_are_taken_out():
    values = [f"{betas.OAUTH},x-{betas.OAUTH}", betas.LONG_CONTEXT]
    assert betas.without(values, {betas.OAUTH, betas.LONG_CONTEXT}) == [f"x-{betas.OAUTH}"]


def test_no_header_means_no_values():
    assert betas.split([]) == []
    assert betas.split(["", " , "]) == []
