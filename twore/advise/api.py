"""`advise`: find the checkpoints, gather the evidence of a level, decide."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from twore.advise.advice import Advice, advice_of
from twore.advise.batches import Probe, TaskProbe, batches_evidence, with_tied_dense
from twore.advise.cache import Cache
from twore.advise.calibration import shipped
from twore.advise.deciding import decide
from twore.advise.evidence import measuring_for, weights_evidence
from twore.advise.finding import Paths, find_checkpoints, refuse_inside
from twore.advise.kinds import stored_kind
from twore.advise.models import layers_of
from twore.advise.pilot import Pilot, pilot_evidence
from twore.advise.reading import Tell, open_run
from twore.checkpoints import LayerChoice
from twore.pruning.masks import check_ratio
from twore.pruning.spec import Pruning

RATIOS = (0.5, 0.7, 0.8, 0.9, 0.95)  # our choice: where answers usually differ


@dataclass(frozen=True)
class WeightOptions:
    """What is measured of weights.

    spectra: whether matrices are decomposed, which is most of the cost for large models
    permutations: random copies behind random_distance; None: 1 to 10, by cost; 0 leaves it out
    metric: the Trainer's evaluation that judges the dense checkpoints; None: the first that is no loss, else eval_loss
    """

    spectra: bool = True
    permutations: int | None = None
    metric: str | None = None

    def __post_init__(self) -> None:
        if self.permutations is not None and self.permutations < 0:
            raise ValueError(f"permutations is a whole number, 0 or more: got {self.permutations}")


def advise(
    paths: Paths,
    *,
    ratios: Iterable[float] = RATIOS,
    cache: str | os.PathLike[str] | None = None,
    probe: Probe | None = None,
    pilot: Pilot | None = None,
    layers: LayerChoice | None = None,
    weights: WeightOptions | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> Advice:
    """Which of these checkpoints to prune, for each ratio.

    paths: a folder of checkpoint-* folders, a folder of state dicts, or several of these (twore.advise.finding)
    ratios: fractions of the prunable weights removed, each in [0, 1)
    cache: folder of what was measured; default the user's cache folder ($TWORE_CACHE, $XDG_CACHE_HOME)
    probe: score pruned checkpoints on a few batches: `TaskProbe(task)`, or `Functions(build, batches, score)`
    pilot: fine-tune the most promising checkpoints of each ratio, `Pilot(finetune)`; needs a TaskProbe
    layers: which are pruned; default: every linear and convolution layer, tied ones left dense
    say: told what a level will cost before it starts, one line each

    Raises FileNotFoundError for a path that is not there; ValueError (CheckpointError for the files) in one sentence
    for no checkpoint or one only, NaN weights, other models among them, damaged files, ratios out of range.
    """
    asked = tuple(sorted({check_ratio(ratio) for ratio in ratios}))
    if not asked:
        raise ValueError("ratios is empty: name at least one fraction to prune, in [0, 1)")
    paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    store = Cache(None if cache is None else Path(cache))
    refuse_inside(paths, store.root, "the cache")
    if pilot is not None and pilot.out is not None:
        refuse_inside(paths, pilot.out, "the pilot's folder")
    choice, options = layers or LayerChoice(tied="skip"), weights or WeightOptions()
    run = find_checkpoints(paths)
    opened = open_run(run.checkpoints, choice, None if probe is None else _by_model(probe, pruning_of(choice)))
    measuring = measuring_for(opened, asked, spectra=options.spectra, permutations=options.permutations)
    evidence = weights_evidence(run, opened, measuring, store, metric=options.metric, say=say)
    level, kind = "weights", stored_kind(opened[0].checkpoint)  # which says what the next level would buy
    if probe is not None:
        kind = batches_evidence(evidence, opened, probe, pruning_of(choice), store, say=say)
        level = "batches"
    if pilot is not None:
        if not isinstance(probe, TaskProbe):
            raise ValueError("a pilot fine-tunes, which takes a task: pass probe=TaskProbe(task) (--task module:Class)")
        pilot_evidence(evidence, opened, probe, pilot, pruning_of(choice), store, say=say)
        level = "pilot"
    k = None if pilot is None else pilot.k
    verdicts = decide(evidence.setting(), level=level, calibration=shipped(), k=k, kind=kind)
    return advice_of(evidence, verdicts, level)


def pruning_of(choice: LayerChoice) -> Pruning:
    """The same choice of layers for a model in memory."""
    return Pruning(kinds=_tuple(choice.kinds), include=_tuple(choice.include), exclude=_tuple(choice.exclude))


def _by_model(probe: Probe, pruning: Pruning) -> Tell:
    """The layers that the probe's model has, so that every level measures the same ones."""
    model = probe.build()
    own = with_tied_dense(model, pruning)
    return lambda checkpoint: layers_of(model, own, checkpoint)


def _tuple(patterns: object) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns or ())  # type: ignore[arg-type]
