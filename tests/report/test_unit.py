"""Amounts in sentences, by hand."""

import pandas as pd
from matplotlib.colors import Normalize

from twore.report.unit import NATS, POINTS, Unit


def test_points():
    assert [POINTS.amount(value) for value in (9.64, 1.0, 0.351, -2.0)] == [
        "9.6 points", "1.0 point", "0.35 points", "2.0 points",
    ]  # fmt: skip
    assert (POINTS.side(0.0), POINTS.side(2.0), POINTS.side(-2.0)) == ("above", "above", "below")
    assert POINTS.worse(0.5) == "0.5 points lower" and not POINTS.less_is_better
    assert Unit("BLEU").distance == "BLEU minus best of the row"


def test_nats_turn_scores_round():
    """A score of -323.8 is a loss of 3.238; a gain of 26.1 points a loss that is 0.261 lower."""
    assert NATS.shown(pd.DataFrame([[-323.8]])).iloc[0, 0] == 3.238
    assert NATS.amount(26.1) == "0.261 nats" and NATS.worse(0.5) == "0.005 nats higher"
    assert (NATS.side(26.1), NATS.side(-26.1)) == ("below", "above")
    scale = NATS.scale(Normalize(-40.0, 0.0))
    assert (scale.vmin, scale.vmax) == (0.0, 0.4) and NATS.colours("viridis") == "viridis_r"
