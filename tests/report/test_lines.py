"""Line plots: nothing is cut off."""

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from synthetic import write_run

from twore.report.lines import random_distance_lines


@pytest.mark.parametrize("ratios", [[0.95], [0.9, 0.95]])
def test_title_and_legend_fit_over_few_panels(tmp_path, ratios):
    run = write_run(tmp_path)
    tables = (pd.read_csv(run / f"{name}.csv") for name in ("results", "checkpoints"))
    figure = random_distance_lines(*tables, ratios)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [figure._suptitle.get_window_extent(), figure.legends[0].get_window_extent()]
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)
