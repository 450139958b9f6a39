"""What past studies say of each level of evidence: a frozen value, kept as JSON beside this file.

`calibrating.py` makes it from run folders; `deciding.py` reads it. All shares are of (dense run, ratio) pairs, judged
one dense run at a time, as a user has it. Regrets are in points of the task's score.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from twore.advise.levels import cells_of, check_level

SHIPPED = Path(__file__).with_name("calibration.json")
WORTH = 0.1  # points: a rule of thumb, or the next level, has to lose this much less to be preferred; our choice


@dataclass(frozen=True)
class Band:
    """Verdicts of one kind of pair: those whose final checkpoint keeps a share in [low, high) of its score when pruned
    (and recalibrated, before fine-tuning; `Shape.kept`).

    name        for people: what pruning left of the network
    low, high   shares; None: no such limit
    pairs, settings, clusters   how many stand behind the numbers below: those whose signal is clear (of weights: all)
    hits        share of the picks within the tie set of the best, in [0, 1]; of a pilot on seeds it did not choose with
    confidence  what is stated: the 20 % quantile of that share over resampled clusters, so rather too low
    regret      of the picks: mean and 90 % bootstrap range over clusters
    trivial, trivial_regret   the rule of thumb that loses least here, and what it loses
    width       of the interval: it spans the checkpoints whose signal is within this share of its range of the peak
    coverage    share of pairs whose best checkpoint such intervals hold
    """

    name: str
    low: float | None
    high: float | None
    pairs: int
    settings: int
    clusters: int
    hits: float
    confidence: float
    regret: tuple[float, float, float]
    trivial: str
    trivial_regret: float
    width: float
    coverage: float

    def holds(self, kept: float) -> bool:
        """Whether a share kept falls into the band."""
        return (self.low is None or kept >= self.low) and (self.high is None or kept < self.high)


@dataclass(frozen=True)
class Level:
    """One level of evidence.

    rule        the scoreboard's predictor
    cost        mean share of the whole grid's fine-tuning that it takes
    skill       1 - regret / that of the best rule of thumb: mean and 90 % bootstrap range over clusters; 0 no better
    ratios, checkpoints   smallest and largest seen: prune ratio; number of checkpoints
    stop_below, train_from   share kept below which "stop early", from which on "train on" is said, "either" between;
        None where the level cannot tell
    least_skill   the smallest lower end of such a range with any one cluster left out; None: as of `skill`
    """

    rule: str
    cost: float
    skill: tuple[float, float, float]
    ratios: tuple[float, float]
    checkpoints: tuple[int, int]
    stop_below: float | None
    train_from: float | None
    bands: tuple[Band, ...]
    least_skill: float | None = None

    @property
    def has_skill(self) -> bool:
        """Whether it beats the rules of thumb: the range of its skill lies above 0, whichever cluster is left out."""
        return self.skill[1] > 0 and (self.least_skill is None or self.least_skill > 0)

    def answers(self, band: Band) -> bool:
        """Whether it ever answers in a band: it has skill, and no rule of thumb does better there."""
        return self.has_skill and band.regret[0] <= band.trivial_regret + WORTH

    def band_of(self, kept: float) -> Band | None:
        """The band of a share kept; None where none was calibrated."""
        return next((band for band in self.bands if band.holds(kept)), None)


@dataclass(frozen=True)
class Calibration:
    """levels: by name, "weights", "batches" and "pilot of K" for some K.
    repaired: further levels, by kind of repair: those whose signal is a repaired network's score, which is worth more
        for one kind than for another.
    kinds: how pruned networks were repaired before they were scored ("batchnorm": recalibrated; "outputs": rescaled).
    settings, clusters, dense_runs: how many, in all; a dense run counts in each setting that prunes it.
    made: where from: folders, command, commit, date.
    """

    levels: Mapping[str, Level]
    kinds: tuple[str, ...]
    settings: int
    clusters: int
    dense_runs: int
    made: Mapping[str, Any]
    repaired: Mapping[str, Mapping[str, Level]] = field(default_factory=dict)

    def of_kind(self, kind: str | None) -> Calibration:
        """What it says of networks repaired in this way, as a calibration with all `levels` and nothing in `repaired`.

        kind: not known (None) or never calibrated: the first one's, for whoever then doubts (`deciding.py`).
        """
        own = self.repaired.get(kind or "") or next(iter(self.repaired.values()), {})
        return replace(self, levels={**self.levels, **own}, repaired={})

    def level(self, level: str, k: int | None = None) -> Level | None:
        """The calibration of a level; of a pilot that of the largest calibrated number of cells up to k. None: none."""
        check_level(level)
        if level != "pilot":
            return self.levels.get(level)
        known = [cells for cells in self.pilots() if cells <= cells_of(k)]
        return self.levels[pilot_name(max(known))] if known else None

    def pilots(self) -> list[int]:
        """The numbers of cells that pilots were calibrated with, ascending."""
        return sorted(int(name.split()[-1]) for name in self.levels if name.startswith("pilot of "))

    def to_json(self) -> str:
        """JSON text, rounded to what the numbers are worth; read back by `from_json`."""
        return json.dumps(_rounded(asdict(self)), indent=1, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: str) -> Calibration:
        """ValueError for text that is no calibration."""
        try:
            values = json.loads(text)
            levels = _levels(values.pop("levels"))
            repaired = {kind: _levels(own) for kind, own in values.pop("repaired").items()}
            kinds = tuple(values.pop("kinds"))
            values["made"].get("folders", {}).items()  # AttributeError for what is no mapping
            return Calibration(levels=levels, kinds=kinds, repaired=repaired, **values)
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no calibration of advice ({error!r}): make one, docs/advise-calibration.md") from error


@cache
def shipped() -> Calibration:
    """The calibration that comes with the package."""
    return Calibration.from_json(SHIPPED.read_text())


def pilot_name(k: int) -> str:
    """The level's name in a calibration."""
    return f"pilot of {k}"


def _levels(values: dict[str, Any]) -> dict[str, Level]:
    return {name: _level(level) for name, level in values.items()}


def _level(values: dict[str, Any]) -> Level:
    bands = tuple(_band(band) for band in values.pop("bands"))
    return Level(bands=bands, **_tuples(Level, values))


def _band(values: dict[str, Any]) -> Band:
    band = Band(**_tuples(Band, values))
    shares = (band.hits, band.confidence, band.width, band.coverage)
    if not all(isinstance(share, int | float) and 0 <= share <= 1 for share in shares):
        raise TypeError("hits, confidence, width and coverage of a band are numbers in [0, 1]")
    return band


def _tuples(cls: type, values: dict[str, Any]) -> dict[str, Any]:
    unknown = set(values) - {known.name for known in fields(cls)}
    if unknown:
        raise TypeError(f"unknown: {', '.join(sorted(unknown))}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}") if abs(value) < 1 else round(value, 3)
    if isinstance(value, Mapping):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, (list, tuple)) else value
