"""How far the advice can be trusted on settings it has not seen: whole clusters are left out, one after another.

For each cluster of settings (those that share a dense run) a calibration is made of all others, and `decide`'s own
verdicts on the cluster are compared with what the fine-tuned grid says. `docs/advise-calibration.md` shows the result;
`calibrating.py` has the command that writes it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from twore.advise.calibrating import FEWEST, TAIL, balanced_accuracy, band_name, calibrate
from twore.advise.calibration import Calibration, Level, pilot_name
from twore.advise.deciding import conclude
from twore.advise.trials import NAMED, Trial
from twore.analysis.regimes import draw_units

RESAMPLES = 2000
ALL = "all"
Place = tuple[str, str | None, str]  # level, kind of repair (None: all), band (ALL: all)


def left_out(trials: Sequence[Trial], judged: Sequence[Trial] | None = None) -> pd.DataFrame:
    """The verdicts on each cluster by a calibration of the others, a row a verdict.

    judged: whose verdicts, if not the trials' own: those of the same settings with another number of checkpoints
        (`collect`, every), which is then no reason to abstain; nor is that a level would not be used.

    Columns: level ("pilot of K" for pilots), kind (of repair; "" where not known), setting, run, cluster, ratio; band
    (what pruning left; "" where the calibration has none); abstained; doubt ("" for an answer); confidence; hit;
    regret, points; final (regret of the final checkpoint); trivial (regret of the rule of thumb that loses least over
    the other clusters of its kind); trivial_in_band (of the one that loses least over their pairs of the same band);
    covered (whether the interval holds the best epoch); length (of the interval, as a share of all there is); said,
    label (regime said and measured; said is "" where the level cannot tell).

    ValueError with one cluster: there is nothing to learn from.
    """
    names = list(dict.fromkeys(trial.cluster for trial in trials))
    if len(names) < 2:
        raise ValueError("reliability is judged by leaving a cluster of settings out: it takes two clusters or more")
    used, rows = calibrate(trials) if judged is None else None, []
    for name in names:
        rest = [trial for trial in trials if trial.cluster != name]
        calibration, best = calibrate(rest, fewest=FEWEST), best_rules(rest)
        calibration = _of_any_number(calibration) if used is None else _without_unused(calibration, used)
        for trial in trials if judged is None else judged:
            if trial.cluster == name:
                rows += verdicts(trial, calibration, best)
    return pd.DataFrame(rows)


def reliability(rows: pd.DataFrame) -> pd.DataFrame:
    """What `left_out` found, a row a level and band of pairs; the band "all" is all of a level.

    Columns: level, band; pairs (verdicts), answered (share of them, [0, 1]); of those answered: stated (mean
    confidence), observed (share of hits) with its 90 % bootstrap range over clusters low, high; brier, and
    brier_constant, that of the best constant in hindsight (always the observed share); regret, and trivial and
    trivial_in_band, those of rules of thumb chosen on the other clusters, points. Of all verdicts: coverage and mean
    length of the intervals; regime (balanced accuracy of the label, NaN where the level says none).
    `requirement`: answered >= 0.6, observed >= stated, brier < brier_constant.
    """
    table = []
    for level, own in rows.groupby("level", sort=False):
        for band in [ALL, *(band for band in dict.fromkeys(sorted(own["band"])) if band not in ("", ALL))]:
            part = own if band == ALL else own[own["band"] == band]
            table.append({"level": level, "band": band} | _numbers(part))
    found = pd.DataFrame(table)
    found["requirement"] = (
        (found["answered"] >= 0.6) & (found["observed"] >= found["stated"]) & (found["brier"] < found["brier_constant"])
    )
    return found


def write_page(path: Path, calibration: Calibration, trials: Sequence[Trial], thinned: Sequence[Trial]) -> None:
    """The page about the calibration, and its figure in figures/ beside it.

    trials: what it was made of; thinned: the same with every second checkpoint.
    """
    from twore.advise.reliability_page import page  # words only
    from twore.report.reliability_figure import reliability_chart

    rows = left_out(trials)
    table = reliability(rows)
    fewer, more = (reliability(left_out(*pair)) for pair in ((trials, thinned), (thinned, trials)))
    figure = path.parent / "figures" / "advise-reliability.png"
    figure.parent.mkdir(parents=True, exist_ok=True)
    reliability_chart(table).savefig(figure)
    path.write_text(page(calibration, rows, table, fewer, more))


def verdicts(trial: Trial, calibration: Calibration, best: Mapping[Place, str]) -> list[dict[str, object]]:
    """What `calibration` says of a trial, a row a ratio, beside what is right; best: `best_rules` to compare with."""
    level = trial.level if trial.k is None else pilot_name(trial.k)
    about = calibration.of_kind(trial.kind).level(trial.level, trial.k)
    rule = best.get((level, trial.kind, ALL)) or best[level, None, ALL]
    found = []
    for verdict, (_, row) in zip(conclude(trial.seen, calibration, kind=trial.kind), trial.rows.iterrows()):
        band = None if about is None else about.band_of(row["kept"])
        in_band = best.get((level, trial.kind, band_name(row["kept"])), rule)
        low, high = verdict.interval
        found.append({
            "level": level, "kind": trial.kind or "", "setting": trial.setting, "run": trial.run,
            "cluster": trial.cluster, "ratio": verdict.ratio, "band": "" if band is None else band.name,
            "abstained": verdict.abstained, "doubt": verdict.doubt or "", "confidence": verdict.confidence,
            "hit": bool(row["hit"]), "regret": row["regret"], "final": row["gain"], "trivial": row[rule],
            "trivial_in_band": row[rule] if np.isnan(row.get(in_band, np.nan)) else row[in_band],
            "covered": low <= row["best"] <= high,
            "length": (high - low) / max(trial.seen.span[1] - trial.seen.span[0], 1e-9),
            "said": verdict.regime or "", "label": row["label"],
        })  # fmt: skip
    return found


def best_rules(trials: Sequence[Trial]) -> dict[Place, str]:
    """By level, kind of repair and band, the rule of thumb that applies everywhere and loses least in the mean over
    pairs."""
    parts: dict[Place, list[pd.DataFrame]] = {}
    for trial in trials:
        level = trial.level if trial.k is None else pilot_name(trial.k)
        for kind in {None, trial.kind}:
            parts.setdefault((level, kind, ALL), []).append(trial.rows)
            for band, own in trial.rows.groupby(trial.rows["kept"].map(band_name)):
                parts.setdefault((level, kind, str(band)), []).append(own)
    best = {}
    for place, found in parts.items():
        rows = pd.concat(found)
        means = rows[[name for name in NAMED if name in rows.columns]].dropna(axis=1).mean()
        best[place] = str(means.round(9).idxmin())
    return best


def _without_unused(calibration: Calibration, used: Calibration) -> Calibration:
    """Levels that the calibration of all settings would not use, for want of skill with one of them left out, have none
    here either: judged is what is used."""

    def marked(levels: Mapping[str, Level], known: Mapping[str, Level]) -> dict[str, Level]:
        unused = {name for name, level in known.items() if not level.has_skill}
        return {name: replace(level, least_skill=-1.0) if name in unused else level for name, level in levels.items()}

    repaired = {kind: marked(levels, used.repaired.get(kind, {})) for kind, levels in calibration.repaired.items()}
    return replace(calibration, levels=marked(calibration.levels, used.levels), repaired=repaired)


def _of_any_number(calibration: Calibration) -> Calibration:
    """As if it had seen every number of checkpoints."""

    def widened(levels: Mapping[str, Level]) -> dict[str, Level]:
        return {name: replace(level, checkpoints=(1, sys.maxsize)) for name, level in levels.items()}

    repaired = {kind: widened(levels) for kind, levels in calibration.repaired.items()}
    return replace(calibration, levels=widened(calibration.levels), repaired=repaired)


def _numbers(part: pd.DataFrame) -> dict[str, float]:
    own = part[~part["abstained"]]
    said = part[part["said"] != ""]
    numbers = {
        "pairs": len(part), "answered": len(own) / len(part), "stated": own["confidence"].mean(),
        "observed": own["hit"].mean(), "low": np.nan, "high": np.nan, "regret": own["regret"].mean(),
        "trivial": own["trivial"].mean(), "trivial_in_band": own["trivial_in_band"].mean(),
        "brier": ((own["confidence"] - own["hit"]) ** 2).mean(),
        "brier_constant": own["hit"].mean() * (1 - own["hit"].mean()), "coverage": part["covered"].mean(),
        "length": part["length"].mean(),
        "regime": np.nan if said.empty else balanced_accuracy(said["said"].to_numpy(), said["label"].to_numpy()),
    }  # fmt: skip
    sums = own.groupby("cluster")["hit"].agg(["sum", "size"]).to_numpy(float)
    if len(sums) > 1:
        drawn = draw_units(len(sums), resamples=RESAMPLES, seed=0) @ sums  # (B, 2)
        numbers["low"], numbers["high"] = np.quantile(drawn[:, 0] / drawn[:, 1], [TAIL, 1 - TAIL])
    return numbers
