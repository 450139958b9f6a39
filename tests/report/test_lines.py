"""Line plots: nothing is cut off, and no drop of the rate is seen where there is none."""

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from synthetic import write_run

from twore.report.lines import random_distance_lines, rate_drops


@pytest.mark.parametrize("ratios", [[0.95], [0.9, 0.95]])
def test_title_and_legend_fit_over_few_panels(tmp_path, ratios):
    run = write_run(tmp_path)
    tables = (pd.read_csv(run / f"{name}.csv") for name in ("results", "checkpoints"))
    figure = random_distance_lines(*tables, ratios)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [figure._suptitle.get_window_extent(), figure.legends[0].get_window_extent()]
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)


@pytest.mark.parametrize("warmup", [1, 300, 556, 4_000])
def test_an_inverse_square_root_has_no_drops(warmup):
    """It falls most from the first epoch to the second, where the warm-up is over by then: to 2**-0.5."""
    updates = [556 * epoch for epoch in range(1, 21)]
    rates = [min(update**-0.5, update * warmup**-1.5) for update in updates]
    assert rate_drops(pd.DataFrame({"epoch": range(1, 21), "lr": rates})) == []


@pytest.mark.parametrize("factor", [0.1, 0.5])
def test_drops_of_a_step_schedule(factor):
    rates = [1.0] * 4 + [factor] * 3 + [factor**2] * 2
    assert rate_drops(pd.DataFrame({"epoch": range(1, 10), "lr": rates})) == [4, 7]
