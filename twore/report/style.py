"""How every figure looks, and how it is written: the same bytes each time, as PNG and SVG.

Figures must be readable without colour: values are printed where they fit, lines differ in dash and marker, what
matters is hatched, and the maps are perceptually uniform. Blue and vermillion are two of Okabe and Ito's colour-blind
safe eight.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import wraps
from io import BytesIO
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.figure import Figure

SCORE_MAP = "viridis"
SIMILARITY_MAP = "cividis"
BLUE, VERMILLION, GREEN, GREY = "#0072B2", "#D55E00", "#00795a", "#5f6670"
# the report's red star; spread into plot(...), so typed loosely
STAR: dict[str, Any] = {"marker": "*", "color": "#e3342f", "markeredgecolor": "white", "linestyle": "none"}
LINES: list[tuple[str, Any, str]] = [  # colour, dash, marker: the first two alone tell lines apart in print
    ("#0072B2", "-", "o"), ("#D55E00", "--", "s"), ("#00795a", "-.", "^"),
    ("#7b3f94", ":", "D"), ("#8a6d00", (0, (5, 1, 1, 1, 1, 1)), "v"), ("#444444", (0, (1, 1)), "P"),
]  # fmt: skip
RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 9.5,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlepad": 8,
    "axes.labelsize": 9.5,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.color": "#dfe3e8",
    "grid.linewidth": 0.7,
    "xtick.color": "#333a42",
    "ytick.color": "#333a42",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "hatch.linewidth": 0.7,
    "svg.fonttype": "path",
    "svg.hashsalt": "twore",  # ids in the SVG are hashes: without a salt they change from run to run
}
DPI = 160

P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """A figure function that draws in this style, whatever the caller's matplotlib settings."""

    @wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(RC)
            return draw(*args, **kwargs)

    return wrapper


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `<folder>/<name>.png` and `.svg`, without dates or versions in them; returns both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind in ("png", "svg"):
        path = folder / f"{name}.{kind}"
        path.write_bytes(_bytes(figure, kind))
        figure.set_layout_engine("none")  # the first draw has placed everything: both files look the same
        paths.append(path)
    return paths


def data_uri(svg: Path) -> str:
    """An SVG file as text that an `<img>` can hold: sharp at any zoom and on paper, and no second file to lose."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.read_bytes()).decode()


def _bytes(figure: Figure, kind: str) -> bytes:
    buffer = BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with mpl.rc_context(RC):
        figure.savefig(buffer, format=kind, dpi=DPI, metadata=metadata)
    return buffer.getvalue()
