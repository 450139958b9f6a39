"""What the tables say: optimal epochs, the boundary between the regimes, scaling, and which predictor of the stopping
epoch is worth its cost. numpy, scipy and pandas only, no torch."""

from twore.analysis.boundary import BoundaryPrediction, boundary_error, change_point, predict_boundary, regime_labels
from twore.analysis.evaluation import score_settings
from twore.analysis.grid import mean_grid, setting_columns
from twore.analysis.pilots import default_pilots, fixed_pilot, full_grid_pilot, golden_section, shortlist_pilot
from twore.analysis.predictors import score_predictors
from twore.analysis.pruning_law import PruningLaw, fit_pruning_law, rational_form
from twore.analysis.regimes import RegimeBoundary, optimal_epochs, regime_boundary
from twore.analysis.rules import (
    SIGNALS,
    Predictor,
    budget_rule,
    rate_drop,
    signal_rule,
    signal_rules,
    switched,
    trivial_rules,
)
from twore.analysis.scaling import epoch_scaling, epoch_table, error_table
from twore.analysis.scoreboard import comparable, default_predictors, scoreboard, summarise
from twore.analysis.settings import SettingTables, clusters, gather, settings_of, split_dense_seeds
from twore.analysis.short_pilots import with_short_pilots
from twore.analysis.tuning import choose_best, leave_one_out

__all__ = [
    "SIGNALS", "BoundaryPrediction", "Predictor", "PruningLaw", "RegimeBoundary", "SettingTables", "boundary_error",
    "budget_rule", "change_point", "choose_best", "clusters", "comparable", "default_pilots", "default_predictors",
    "epoch_scaling", "epoch_table", "error_table", "fit_pruning_law", "fixed_pilot", "full_grid_pilot", "gather",
    "golden_section", "leave_one_out", "mean_grid", "optimal_epochs", "predict_boundary", "rate_drop", "rational_form",
    "regime_boundary", "regime_labels", "score_predictors", "score_settings", "scoreboard", "setting_columns",
    "settings_of", "shortlist_pilot", "signal_rule", "signal_rules", "split_dense_seeds", "summarise", "switched",
    "trivial_rules", "with_short_pilots",
]  # fmt: skip
