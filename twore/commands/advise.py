"""twore advise PATH...: which of these checkpoints to prune, at which evidence, for what cost."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twore.commands.numbers import fraction
from twore.commands.problem import problem

PILOT = 3  # levels.DEFAULT_K, which is not imported here: that takes torch
GROUPS = ("task", "finetune", "numerics")  # --task.width 64, --finetune.lr 0.01


def add(commands: Any) -> None:
    """Declare `twore advise` among the subcommands of argparse."""
    advise = commands.add_parser(
        "advise", help="which of your checkpoints to prune", description=run.__doc__,
        epilog="Fields of the task, of fine-tuning and of numerics are flags too: --task.FIELD VALUE, --finetune.FIELD "
        "VALUE, --numerics.FIELD VALUE.",
    )  # fmt: skip
    advise.add_argument(
        "paths", type=Path, nargs="+", metavar="PATH", help="folder of checkpoints, or files and folders"
    )
    advise.add_argument(
        "--ratios", type=fraction, nargs="+", metavar="R", help="fractions to prune (0.5 0.7 0.8 0.9 0.95)"
    )
    advise.add_argument("--json", action="store_true", help="one JSON object on stdout (docs/advise.md)")
    advise.add_argument("--html", type=Path, metavar="FILE", help="write a self-contained page")
    advise.add_argument("--figure", type=Path, metavar="FILE", help="write the figure (.png, .svg or .pdf)")
    advise.add_argument(
        "--cache", type=Path, metavar="DIR", help="what was measured (default: the user's cache folder)"
    )
    advise.add_argument("--kinds", nargs="+", metavar="KIND", help="conv, linear (both)")
    pattern = "glob on a weight's or module's name; may be repeated"
    advise.add_argument("--include", action="append", metavar="PATTERN", help=f"only these layers: {pattern}")
    advise.add_argument("--exclude", action="append", metavar="PATTERN", help=f"leave these dense: {pattern}")
    advise.add_argument("--layers", default="auto", help="how layers are told: auto (the default), class or names")
    advise.add_argument(
        "--permutations", type=int, metavar="N", help="random copies a layer (default: 1 to 10, by cost)"
    )
    advise.add_argument("--no-spectra", action="store_true", help="decompose no matrix: quick for large models")
    advise.add_argument("--metric", metavar="NAME", help="the Trainer's evaluation that judges checkpoints (eval_...)")
    advise.add_argument("--task", metavar="TASK", help="cifar, translation or module:Class: score pruned checkpoints")
    advise.add_argument("--batches", type=int, metavar="N", help="batches that score a pruned checkpoint (4)")
    advise.add_argument("--data", help="folder with the task's data (default: $TWORE_DATA)")
    advise.add_argument("--pilot", type=int, nargs="?", const=PILOT, metavar="K",
                        help="fine-tune K checkpoints a ratio (3), as --finetune.FIELD flags say; resumes")  # fmt: skip
    advise.add_argument("--config", type=Path, metavar="FILE", help="a study file: task, finetune, pruning, numerics")
    advise.add_argument("--out", type=Path, metavar="DIR", help="folder of the fine-tuned cells (in the cache)")
    advise.add_argument("--workers", type=int, default=1, help="processes that fine-tune")
    advise.add_argument("--executor", default="process", help="where they run: process or serial")
    advise.set_defaults(do=run)


def split_fields(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """(the rest, flags of fields with their values): `--task.width 64` and `--task.width=64`."""
    rest: list[str] = []
    fields: list[str] = []
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        if not argument.startswith(tuple(f"--{group}." for group in GROUPS)):
            rest.append(argument)
        elif "=" in argument or not queue:
            fields.append(argument)
        else:
            fields.append(f"{argument}={queue.pop(0)}")
    return rest, fields


def run(options: argparse.Namespace) -> int:
    """Say which of your checkpoints to prune at each ratio, or that the evidence does not tell. The checkpoints are
    only read."""
    from twore.advise import WeightOptions, advise  # torch is imported only by what runs
    from twore.advise.api import RATIOS
    from twore.advise.asking import asked_from
    from twore.advise.finding import refuse_inside

    try:
        asked = asked_from(options)
        for flag in ("html", "figure"):
            if getattr(options, flag):
                refuse_inside(options.paths, getattr(options, flag), f"--{flag}")
        if options.figure:
            from twore.advise.figure import image, kind_of

            kind_of(options.figure.suffix)  # before hours of a pilot
        advice = advise(
            options.paths, ratios=options.ratios or RATIOS, cache=options.cache, probe=asked.probe, pilot=asked.pilot,
            layers=asked.layers, weights=WeightOptions(not options.no_spectra, options.permutations, options.metric),
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )  # fmt: skip
        written = []
        if options.html:
            written.append(_write(options.html, advice.to_html().encode()))
        if options.figure:
            written.append(_write(options.figure, image(advice, options.figure.suffix)))
    except (ValueError, OSError) as error:
        return problem(error)
    except KeyboardInterrupt as stopped:
        print("interrupted; what is done is kept, and the same command goes on from there", file=sys.stderr)
        return getattr(stopped, "status", 130)
    print(advice.to_json() if options.json else advice.to_text())
    for path in written:
        print(f"written: {path}", file=sys.stderr)
    return 0


def _write(path: Path, content: bytes) -> Path:
    from twore.files import write_bytes

    write_bytes(path, content)
    return path
