"""Leave one setting out: a predictor with tuned numbers is judged on settings that had no part in the tuning."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from twore.analysis.evaluation import score_settings
from twore.analysis.predictors import Picks
from twore.analysis.rules import NEEDS, Predictor
from twore.analysis.settings import SettingTables, clusters

Factory = Callable[[list[SettingTables]], Predictor]  # from the settings to learn from to a finished predictor


def leave_one_out(factory: Factory, settings: Sequence[SettingTables], *, name: str) -> Predictor:
    """A predictor that on each setting is the one tuned without it, nor any setting that shares a dense run with it.

    It costs and needs what the tuned ones do (the most demanding of them) and applies to `settings` only.
    ValueError when all settings are one cluster: nothing would be left to learn from.
    """
    cluster_of = dict(zip((setting.name for setting in settings), clusters(settings)))
    names = sorted(set(cluster_of.values()))
    if len(names) < 2:
        raise ValueError("leave-one-setting-out needs two independent settings or more; these share their dense runs")
    fitted = {out: factory([s for s in settings if cluster_of[s.name] != out]) for out in names}

    def of(setting: SettingTables) -> Predictor:
        if setting.name not in cluster_of:
            raise ValueError(f"{name!r} was tuned for {len(cluster_of)} settings, and {setting.name!r} is none of them")
        return fitted[cluster_of[setting.name]]

    def pick(setting: SettingTables) -> Picks | None:
        return of(setting).pick(setting)

    def signal(setting: SettingTables) -> pd.DataFrame | None:
        own = of(setting).signal
        return None if own is None else own(setting)

    needs = max((predictor.needs for predictor in fitted.values()), key=NEEDS.index)
    return Predictor(name, needs, pick, lambda setting: of(setting).cost_of(setting), signal)


def choose_best(candidates: Sequence[Predictor], *, by: str = "mean_regret") -> Factory:
    """Tuning by choice: the candidate with the smallest mean of `by` over the settings, the first of equals.

    Only candidates that apply to every setting where any does take part. Use it for a threshold or a window too: one
    candidate a value.
    """
    if not candidates:
        raise ValueError("nothing to choose from: give at least one candidate")

    scored: dict[SettingTables, pd.DataFrame] = {}  # a setting's rows do not depend on the others: once is enough

    def factory(settings: list[SettingTables]) -> Predictor:
        for setting in settings:
            if setting not in scored:
                scored[setting] = score_settings([setting], candidates)
        rows = pd.concat([scored[setting] for setting in settings], ignore_index=True)
        counts = rows.groupby("predictor").size()
        means = rows.groupby("predictor")[by].mean().round(9)
        able = [predictor for predictor in candidates if counts.get(predictor.name, 0) == counts.max()]
        if rows.empty or not able:
            raise ValueError("none of the candidates applies to the settings to learn from")
        return min(able, key=lambda predictor: means[predictor.name])  # the first of equals

    return factory
