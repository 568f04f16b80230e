"""Geometry of the charts: what is drawn is what the table says."""

import re

import pytest

from signalbox.ui.charts import HEIGHT, WIDTH, Axis, Series, bar_parts, bars, lines, nice

AXIS = Axis("hour", ["10:00", "11:00"], [(0, "10:00")])


def whole(number: float | None) -> str:
    return "—" if number is None else f"{number:.0f}"


def heights(d: str) -> list[float]:
    return [float(height) for height in re.findall(r"v([\d.]+)h-", d)]


def test_bars_stand_upon_each_other_and_fill_what_their_values_say():
    chart = bars("a", "A", "about", AXIS, [Series("x", "c0", [5, 0]), Series("y", "c1", [5, 10])], whole)
    x, y = chart.areas
    assert chart.top == "10"
    assert heights(x.d) == [HEIGHT / 2]
    assert heights(y.d) == [HEIGHT / 2, HEIGHT]
    assert re.match(r"M[\d.]+ 50\.00", x.d)  # from the middle down
    assert re.match(r"M[\d.]+ 0\.00", y.d)  # and the other one from the top to the middle


def test_negative_bars_hang_below_the_line_at_zero():
    series = [Series("x", "c0", [6, 2]), Series("y", "c1", [-2, 2])]
    chart = bars("a", "A", "about", AXIS, series, whole)
    x, y = chart.areas
    assert (chart.top, chart.middle, chart.bottom, chart.zero) == ("6", "", "-2", 0.75)
    assert re.findall(r" ([\d.]+)h[\d.]+v([\d.]+)", x.d) == [("0.00", "75.00"), ("50.00", "25.00")]
    assert re.findall(r" ([\d.]+)h[\d.]+v([\d.]+)", y.d) == [("75.00", "25.00"), ("25.00", "25.00")]
    assert chart.table.rows[0] == ["10:00", "6", "-2", "4"]


def test_bars_stay_within_the_plot():
    chart = bars("a", "A", "about", AXIS, [Series("x", "c0", [7, 3])], whole)
    for x, width in re.findall(r"M([\d.]+) [\d.]+h([\d.]+)", chart.areas[0].d):
        assert 0 <= float(x) <= float(x) + float(width) <= WIDTH


def test_the_table_has_every_value_and_the_sum():
    chart = bars("a", "A", "about", AXIS, [Series("x", "c0", [5, None]), Series("y", "c1", [4, 10])], whole)
    assert chart.table.head == ["hour", "x", "y", "all"]
    assert chart.table.rows == [["10:00", "5", "4", "9"], ["11:00", "—", "10", "10"]]


def test_legend_of_bars_adds_up_and_of_lines_shows_the_last_value():
    series = [Series("x", "c0", [5, 7]), Series("y", "c1", [2, None])]
    assert [key.value for key in bars("a", "A", "about", AXIS, series, whole).legend] == ["12", "2"]
    assert [key.value for key in lines("a", "A", "about", AXIS, series, whole).legend] == ["7", "2"]


def test_a_line_is_broken_where_nothing_is_known():
    axis = Axis("", list("abcd"), [])
    chart = lines("a", "A", "about", axis, [Series("x", "c0", [10, None, 5, 0])], whole, top=10)
    assert re.sub(r"[\d. ]+", "", chart.lines[0].d) == "MML"
    assert chart.dots[0].y == 100


def test_a_chart_without_any_value_is_empty():
    assert bars("a", "A", "about", AXIS, [Series("x", "c0", [0, None])], whole).is_empty
    assert lines("a", "A", "about", AXIS, [Series("x", "c0", [None, None])], whole).is_empty
    assert not lines("a", "A", "about", AXIS, [Series("x", "c0", [0, None])], whole).is_empty


@pytest.mark.parametrize(
    ("value", "edge"),
    [(0, 1), (1, 1), (1.1, 1.2), (7, 8), (81, 100), (100, 100), (103_000, 120_000), (0.0021, 0.003)],
)
def test_upper_edges_are_round(value, edge):
    assert nice(value) == pytest.approx(edge)


def test_shares_fill_the_whole_side_by_side():
    spans = bar_parts([("a", 25), ("b", 0), ("c", 75)], 100)
    assert [(span.style, span.x, span.width) for span in spans] == [("a", 0, 25), ("c", 25, 75)]
    assert bar_parts([("a", 1)], 0) == []
