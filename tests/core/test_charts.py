"""Charts of the admin: round numbers at the axes, every point inside them."""

import pytest


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 2.08, [0, 1, 2, 3]),
        (0, 0.811, [0, 0.5, 1]),
        (1, 3, [1, 1.5, 2, 2.5, 3]),
        (0, 1, [0, 0.5, 1]),
        (2, 2, [2]),
        (5, 500, [0, 200, 400, 600]),
    ],
)
def test_ticks_are_round(low, high, ticks):
    from kalimtak.core.admin.charts import round_ticks

    assert round_ticks(low, high) == ticks


def test_a_chart_holds_its_points():
    from kalimtak.core.admin.charts import BOTTOM, HEIGHT, LEFT, TOP, line_chart

    chart = line_chart({"training": [(0.137, 2.08), (3, 0.234)], "validation": []})
    assert [line.name for line in chart.lines] == ["training"]
    for point in chart.lines[0].points.split():
        x, y = map(float, point.split(","))
        assert LEFT <= x <= chart.right and TOP <= y <= HEIGHT - BOTTOM
    assert {tick.text for tick in chart.x_ticks} == {"1", "2", "3"}


def test_no_points_no_chart():
    from kalimtak.core.admin.charts import line_chart

    assert line_chart({"training": []}) is None
