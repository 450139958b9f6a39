"""twore prune MODEL --ratio R [--out OUT]: the same model with zeros in place, masks beside it, a report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twore.commands.numbers import fraction
from twore.commands.problem import problem

if TYPE_CHECKING:
    from twore.export import PrunedCheckpoint


def add(commands: Any) -> None:
    """Declare `twore prune` among the subcommands of argparse."""
    prune = commands.add_parser("prune", help="prune a model of your own", description=run.__doc__)
    prune.add_argument("model", type=Path, help="a Hugging Face folder, a .safetensors file or a .pt state dict")
    prune.add_argument(
        "--ratio", type=fraction, required=True, help="fraction of the chosen weights removed, in [0, 1)"
    )
    prune.add_argument("--out", type=Path, help="new folder (or file, for a file); default: ./NAME-pruned-R")
    prune.add_argument("--kinds", nargs="+", default=["conv", "linear"], metavar="KIND", help="conv, linear (both)")
    pattern = "glob on a weight's or module's name; may be repeated"
    prune.add_argument("--include", action="append", metavar="PATTERN", help=f"prune only these: {pattern}")
    prune.add_argument("--exclude", action="append", metavar="PATTERN", help=f"leave these dense: {pattern}")
    prune.add_argument("--allocation", default="uniform", help="uniform (the default), global, erk or lamp")
    prune.add_argument("--score", default="magnitude", help="magnitude (the default) or random")
    prune.add_argument("--tied", default="refuse", help="tied weights: refuse (the default), skip, prune or untie")
    prune.add_argument("--layers", default="auto", help="how layers are told: auto (the default), class or names")
    prune.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    """Prune a model and write it in its own layout, loadable as before. The model itself is only read."""
    from twore.export import LayerChoice, prune_checkpoint  # torch is imported only by what runs

    name = options.model.resolve()
    ending = name.suffix if name.is_file() else ""
    out = options.out or Path(f"{name.name.removesuffix(ending)}-pruned-{options.ratio:g}{ending}")
    try:
        choose = LayerChoice(tuple(options.kinds), options.include, options.exclude, options.tied, options.layers)
        pruned = prune_checkpoint(
            options.model, options.ratio, out, choose=choose, score=options.score, allocation=options.allocation
        )
    except (ValueError, OSError) as error:
        return problem(error)
    print(in_words(pruned))
    return 0


def in_words(pruned: PrunedCheckpoint) -> str:
    """The report: a row a layer, the sum, what was left out, and where everything is."""
    table = pruned.layers.drop(columns="dtype").to_string(
        index=False, formatters={"size": "{:,}".format, "kept": "{:,}".format, "got": "{:.4f}".format}
    )
    kept, size, total = pruned.kept, pruned.size, pruned.total
    lines = [
        table,
        f"{len(pruned.layers)} layers: {kept:,} of {size:,} weights kept, {1 - kept / max(size, 1):.4f} removed; "
        f"these layers are {size / total:.0%} of the model",
        *pruned.notes,
        f"model: {pruned.out}",
        f"masks: {pruned.masks}",
    ]
    if pruned.left_behind:
        lines.append(f"not copied, since they belong to the training: {', '.join(pruned.left_behind)}")
    return "\n".join(lines)
