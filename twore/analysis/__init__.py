"""What the table of results says: optimal epochs, the boundary between the regimes. numpy and pandas only, no torch."""

from twore.analysis.grid import mean_grid, setting_columns
from twore.analysis.regimes import RegimeBoundary, optimal_epochs, regime_boundary

__all__ = ["RegimeBoundary", "mean_grid", "optimal_epochs", "regime_boundary", "setting_columns"]
