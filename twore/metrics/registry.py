"""The register of metrics: for each name what it takes, its unit, range, direction, source and cost.

A metric is registered where it is defined; one test (tests/metrics/test_registry.py) checks all of them and fails
when a public metric function was not registered.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

DIRECTIONS = ("high", "low", "none")  # "none": neither end is better by itself

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Metric:
    """What a reader of a number needs to know about it.

    fn      the function; what it returns is an array of values, a float, or a result that `float()` takes
    takes   its inputs in words, one phrase shared by all metrics with the same inputs: "weights", "probability pairs"
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
