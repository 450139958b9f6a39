"""The register of metrics: for each name what it takes, its unit, range, direction, source and cost.

A metric is registered where it is defined; one test (tests/metrics/test_registry.py) checks all of them and fails
when a public metric function was not registered, or a registered one has no case in it. A metric of one's own:

    @register("mean_weight", takes="weights", unit="weight units", low=0.0, high=math.inf, better="none",
              source="our own", cost="one pass over the weights; no data")
    def mean_weight(weights):                       # a model, or a mapping from name to weight
        return ...

What `takes` may say, and the arguments that stand for it, in order; options come after them, keyword-only, each with a
default. A metric of one's own may use another phrase; then nothing calls it but its owner.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

TAKES = {
    "weights": "(model or mapping from name to weight)",
    "weights, ratio": "(model or mapping, fraction removed)",
    "weights, earlier weights": "(model or mapping, the same of an earlier checkpoint)",
    "weights, other weights, ratio": "(model or mapping, the same of another checkpoint, fraction removed)",
    "model, loss, batches": "(model, (model, batch) -> (summed loss, count), batches)",
    "probability pairs": "(p, q): (N, C) probabilities of two models for the same rows, or iterables of batches",
    "feature pairs": "(x, y): (N, F) and (N, G) features of two models for the same rows, or iterables of batches",
    "model pair, evaluate": '(model, model, model -> {"loss": ..., "score": ...})',
}
DIRECTIONS = ("high", "low", "none")  # "none": neither end is better by itself

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Metric:
    """What a reader of a number needs to know about it.

    fn      the function; what it returns is an array of values, a float, or a result that `float()` takes
    takes   its inputs in words, one phrase shared by all metrics with the same inputs: a key of TAKES
    unit    "nats", "sqrt(nats)", "fraction", ...
    low, high   the range, both ends attainable or approached; +-inf where there is none
    better  "high", "low" or "none": which end goes with better models
    source  the equation or tool it follows
    cost    what it costs, in words
    """

    fn: Callable[..., Any]
    takes: str
    unit: str
    low: float
    high: float
    better: str
    source: str
    cost: str


METRICS: dict[str, Metric] = {}


def register(
    name: str, *, takes: str, unit: str, low: float, high: float, better: str, source: str, cost: str
) -> Callable[[F], F]:
    """Decorator that enters a function in `METRICS` under `name` and returns it unchanged.

    ValueError for a name that is taken, an unknown direction, an empty range or an empty description.
    """
    if better not in DIRECTIONS:
        raise ValueError(f"better is one of {', '.join(DIRECTIONS)}: got {better!r} for the metric {name!r}")
    if math.isnan(low) or math.isnan(high) or not low < high:
        raise ValueError(f"the range of the metric {name!r} is empty: low {low}, high {high}")
    for field, text in {"name": name, "takes": takes, "unit": unit, "source": source, "cost": cost}.items():
        if not text.strip():
            raise ValueError(f"the metric {name!r} needs a non-empty {field}")

    def enter(fn: F) -> F:
        if name in METRICS:
            raise ValueError(f"a metric named {name!r} is registered already: choose another name")
        METRICS[name] = Metric(fn, takes, unit, low, high, better, source, cost)
        return fn

    return enter


def unregister(name: str) -> Metric:
    """Take a metric out of `METRICS` and return what stood there; ValueError for a name that is not in it."""
    if name not in METRICS:
        close = difflib.get_close_matches(name, METRICS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(METRICS)}"
        raise ValueError(f"no metric is named {name!r}: {hint}")
    return METRICS.pop(name)


def metrics_taking(takes: str) -> dict[str, Metric]:
    """The registered metrics with these inputs, one's own included, in order of registration; {} when there are none.

    for name, metric in metrics_taking("weights").items():
        row[name] = float(metric.fn(model))
    """
    return {name: metric for name, metric in METRICS.items() if metric.takes == takes}
