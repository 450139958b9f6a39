"""twore export MODEL [--out DIR]: plain and compact files, their measured bytes, and whether zeros are faster here."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twore.commands.problem import problem

if TYPE_CHECKING:
    import pandas as pd


def add(commands: Any) -> None:
    """Declare `twore export` among the subcommands of argparse."""
    export = commands.add_parser("export", help="export a pruned model, with sizes and speed", description=run.__doc__)
    export.add_argument("model", type=Path, help="a Hugging Face folder, a .safetensors file or a .pt state dict")
    export.add_argument("--out", type=Path, help="new folder; default: ./NAME-export (--restore: ./NAME-restored)")
    export.add_argument("--forms", nargs="+", default=["safetensors", "compact"], metavar="FORM",
                        help="safetensors, compact, onnx; default: the first two")  # fmt: skip
    export.add_argument("--restore", action="store_true", help="MODEL is a compact file or its folder: make it dense")
    export.add_argument("--batch", nargs="+", type=int, default=[1, 32], metavar="ROWS",
                        help="rows (sentences x tokens) at which speed is measured; default: 1 32")  # fmt: skip
    export.add_argument("--no-speed", action="store_true", help="do not measure speed")
    export.add_argument("--no-compressed", action="store_true", help="do not measure zlib and lzma sizes (quicker)")
    export.add_argument("--layers", default="auto", help="how layers are told: auto (the default), class or names")
    export.set_defaults(do=run)


def run(options: argparse.Namespace) -> int:
    """Write a model as plain safetensors and in a compact form, and measure bytes and speed. MODEL is only read."""
    from twore.export import LayerChoice, export_model, layer_weights, restore_model, sparse_speed

    name = options.model.resolve()
    stem = name.name.removesuffix(name.suffix) if name.is_file() else name.name
    try:
        if options.restore:
            ending = ".safetensors" if name.is_file() else ""
            out = restore_model(options.model, options.out or Path(f"{stem}-restored{ending}"))
            print(f"restored: {out}")
            return 0
        if any(rows < 1 for rows in options.batch):
            raise ValueError(f"--batch is a number of rows, 1 or more: got {min(options.batch)}")
        weights = (
            None if options.no_speed else layer_weights(options.model, LayerChoice(tied="prune", by=options.layers))
        )
        out = options.out or Path(f"{stem}-export")
        exported = export_model(options.model, out, forms=options.forms, compressed=not options.no_compressed)
        print(sizes_in_words(exported.sizes))
        print(f"files: {exported.out}")
        if weights is not None:
            speed = sparse_speed(weights, batch=options.batch)
            shown = speed.table.assign(shape=speed.table["shape"].map(lambda shape: f"{shape[0]}x{shape[1]}"))
            shown.to_csv(exported.out / "speed.csv", index=False)
            if not shown.empty:
                print(shown.to_string(index=False, float_format="{:.3f}".format))
            print(speed.sentence())
    except (ValueError, OSError) as error:
        return problem(error)
    return 0


def sizes_in_words(sizes: pd.DataFrame) -> str:
    """The table of measured bytes, and the one number people ask for."""
    numbers = {name: "{:,}".format for name in sizes.columns if name not in ("form", "share")}
    table = sizes.to_string(index=False, formatters={**numbers, "share": "{:.3f}".format})
    dense, compact = sizes["bytes"].iloc[0], sizes["bytes"].iloc[-1]
    smaller = f"{dense / compact:.2f} times smaller than the plain one on disk"
    if dense <= compact:
        smaller = "no smaller than the plain one on disk, since there are too few zeros"
    return f"{table}\nThe compact file is {smaller}; once restored it takes the same memory."
