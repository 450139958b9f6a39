"""How a calibration fares on run folders that it was not made of: stated confidence against what proved right.

    python -m twore.advise.held_out DIR... [--calibration FILE] [--kind batchnorm]

For whoever has a grid of their own and wants to know how far to trust `twore advise` on networks like theirs. Folders
that the calibration was made of tell nothing: for those see `reliability.py`, which leaves them out in turn.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from twore.advise.calibration import SHIPPED, Calibration
from twore.advise.reliability import ALL, best_rules, reliability, verdicts
from twore.advise.trials import KINDS, Trial, collect
from twore.advise.wording import percent


def held_out(trials: Sequence[Trial], calibration: Calibration) -> pd.DataFrame:
    """The verdicts of `calibration` on these trials, a row a verdict: columns as of `reliability.left_out`.

    The rule of thumb beside each is the one that loses least on these very trials: with hindsight, so harder to beat.
    """
    best = best_rules(trials)
    return pd.DataFrame([row for trial in trials for row in verdicts(trial, calibration, best)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print how each level fares, by kind of network; returns the exit status."""
    kinds = sorted(set(KINDS.values()))
    parser = argparse.ArgumentParser(prog="python -m twore.advise.held_out", description=main.__doc__)
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="run folders; all their settings count")
    parser.add_argument("--calibration", type=Path, default=SHIPPED, help="default: the one that `twore advise` uses")
    repaired = "how networks of a task of your own were repaired: BatchNorm's statistics, or outputs of pruned layers"
    parser.add_argument("--kind", choices=kinds, help=repaired)
    options = parser.parse_args(arguments)
    try:
        calibration = Calibration.from_json(options.calibration.read_text())
        trials = [replace(trial, kind=trial.kind or options.kind) for trial in collect(options.folders)]
        unknown = sorted({trial.setting.split(":")[0] for trial in trials if trial.kind is None})
        if unknown:
            raise ValueError(
                f"{unknown[0]}: which repair its probes had is not known: say it with --kind, {' or '.join(kinds)}"
            )
    except (OSError, ValueError) as error:
        print(f"twore: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    known = [folder for folder in options.folders if "/".join(folder.resolve().parts[-2:]) in _made_of(calibration)]
    if known:
        print(f"{known[0]} is part of this calibration: the numbers below flatter it\n", file=sys.stderr)
    rows = held_out(trials, calibration)
    settings, runs = rows["setting"].nunique(), rows["run"].nunique()
    print(f"{settings} settings, {runs} dense runs in them; regrets in points, of the answered")
    for kind, own in rows.groupby("kind"):
        table = reliability(own)
        print(f"\n{kind}\n{in_words(table[table['band'] == ALL])}")
    return 0


def in_words(table: pd.DataFrame) -> str:
    """A table of `reliability`, a line a level."""
    lines = [f"{'level':12}{'verdicts':>9}{'answered':>10}{'stated':>8}{'right':>7}{'90 % range':>12}{'Brier':>8}"
             f"{'a constant':>12}{'regret':>8}{'rule of thumb':>15}"]  # fmt: skip
    for _, row in table.iterrows():
        line = f"{row['level']:12}{row['pairs']:>9}{percent(row['answered']):>10}"
        if row["answered"] > 0:
            line += f"{percent(row['stated']):>8}{percent(row['observed']):>7}{_range(row['low'], row['high']):>12}"
            line += f"{row['brier']:>8.3f}{row['brier_constant']:>12.3f}{row['regret']:>8.2f}{row['trivial']:>15.2f}"
        lines.append(line)
    return "\n".join(lines)


def _range(low: float, high: float) -> str:
    return "" if pd.isna(low) else f"{100 * low:.0f} to {100 * high:.0f}"


def _made_of(calibration: Calibration) -> set[str]:
    """Last two parts of the names of the folders that added a setting to it."""
    return {name for name, added in calibration.made.get("folders", {}).items() if added}


if __name__ == "__main__":
    sys.exit(main())
