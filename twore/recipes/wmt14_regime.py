"""The NLP study of the report: a Transformer on WMT14 German to English, over prune ratio x training epoch.

    python -m twore.recipes.wmt14_regime                       # quick: a generated corpus, minutes on a laptop
    python -m twore.recipes.wmt14_regime --preset cpu --data DIR
    python -m twore.recipes.wmt14_regime --preset paper --data DIR --device cuda

Presets
    quick  a small Transformer on 10,000 generated German-English pairs (embedded): minutes on a laptop
    cpu    a small Transformer on the short sentences of real German-English text: about 90 minutes on 2 cores
    atlas  the generated corpus over 8 settings: size, amount of data, schedule, normalisation, fine-tuning
    paper  the report: Transformer-base, 1.28 M pairs of WMT14, 19 epochs; 1 training, 456 cells
"""

from __future__ import annotations

import sys
from dataclasses import replace

from twore.pruning.spec import Pruning
from twore.recipes.command import Recipe, main
from twore.study.specs import Study
from twore.tasks import TranslationTask
from twore.training import WMT14_DENSE, WMT14_FINETUNE, Numerics, Training

LINEAR = Pruning(kinds=("linear",))  # report section 6.1: linear layers and the prediction layer
SMALL = Training(  # a small model takes a higher rate: the peak is 0.06 * 200**-0.5 = 4.2e-3
    epochs=20, batch_size=1_000, optimizer="adam", lr=0.06, weight_decay=0.0, schedule="inverse_sqrt", warmup=200,
    drops=(),
)  # fmt: skip
GENERATED = TranslationTask(
    dataset="generated", pairs=10_000, vocab_size=800, d_model=64, layers=2, heads=4, ffn=128,
    scored_on="test", chosen_on="validation", also=(), similarity_pairs=2_000,
)  # fmt: skip


def quick() -> Study:
    """Generated text: a model that is too small to spare weights, trained until it translates well."""
    return Study(
        name="wmt14_regime quick",
        task=GENERATED,
        dense=SMALL,
        finetune=replace(SMALL, epochs=1, lr=0.03, warmup=50),  # the same peak, reached sooner: 178 updates in all
        pruning=LINEAR,
        numerics=Numerics(precision="float32"),  # at this width bf16 gains nothing
        checkpoints=(2, 4, 7, 10, 14, 20),
        extra_checkpoints=(0,),
        ratios=(0.3, 0.6, 0.8, 0.9, 0.95),
        finetune_seeds=(0, 1),
    )


def cpu() -> Study:
    """Real text, cut so that a small model learns something in the time: sentences of at most 12 words.

    Pre-norm, since the published post-norm learned to write English and not to translate at this size and rate.
    Batches are less than half as large as the report's, so that the small corpus gives enough updates (556 an epoch).
    """
    dense = replace(SMALL, epochs=20, batch_size=600, lr=0.05, warmup=400)  # peak 2.5e-3
    return Study(
        name="wmt14_regime cpu",
        task=TranslationTask(
            max_words=12, heldout=500, eval_pairs=400, vocab_size=2_000, d_model=128, layers=2, heads=4, ffn=256,
            norm="pre", scored_on="heldout-b", chosen_on="heldout-a", also=("newstest2013",), similarity_pairs=2_000,
        ),
        dense=dense,
        finetune=replace(dense, epochs=1, lr=0.025, warmup=100),  # the same peak, reached sooner
        pruning=LINEAR,
        numerics=Numerics(precision="float32"),  # at this width bf16 gains nothing
        checkpoints=(2, 4, 7, 10, 14, 20),
        extra_checkpoints=(0,),
        ratios=(0.3, 0.6, 0.8, 0.9, 0.95),
        finetune_seeds=(0, 1),
    )  # fmt: skip


def atlas() -> Study:
    """Cheap trajectories around quick, one thing changed at a time, with three dense seeds of the base.

    With CKA and mode connectivity, since predictors are compared on it.
    """
    base = quick()
    return replace(
        base,
        name="wmt14_regime atlas",
        checkpoints=(2, 4, 7, 10, 14, 20),
        ratios=(0.6, 0.8, 0.9, 0.95),
        landscape=True,
        settings=(
            {"dense_seeds": (0, 1, 2)},
            {"task.d_model": 48},
            {"task.layers": 1},
            {"task.norm": "pre"},
            {"task.data_percent": 50.0},
            {"task.data_percent": 25.0},
            {"dense.schedule": "constant", "dense.lr": 1e-3},
            {"finetune.lr": 0.01},
        ),
    )


def paper() -> Study:
    """The report as it is; nothing held out. Every epoch is kept and pruned."""
    return Study(
        name="wmt14_regime paper",
        task=TranslationTask(pairs=1_280_000),
        dense=WMT14_DENSE,
        finetune=WMT14_FINETUNE,
        pruning=LINEAR,
        checkpoints=tuple(range(1, 20)),
        extra_checkpoints=(0,),
        ratios=(0.2, 0.4, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95),  # our choice: the report lists none
    )


RECIPE = Recipe(
    name="wmt14_regime",
    task=TranslationTask,
    presets={"quick": quick, "cpu": cpu, "atlas": atlas, "paper": paper},
    about=__doc__,
    finetune_settings={"report": WMT14_FINETUNE, "continue": replace(WMT14_FINETUNE, clock="continue")},
)

if __name__ == "__main__":
    sys.exit(main(RECIPE))
