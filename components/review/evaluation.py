"""What TFMA's evaluation says of the candidate, read with TFMA's own loader."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow_model_analysis as tfma

from components.review.inputs import Inputs

Slice = tuple[tuple[str, str], ...]  # (column, value) pairs; () is the whole test split
OVERALL: Slice = ()


@dataclass(frozen=True)
class Figure:
    """A metric with its 95 % interval; NaN where TFMA could not say."""

    value: float
    low: float
    high: float

    def __format__(self, form: str) -> str:
        """`6.45 (6.10 to 6.80)`."""
        if math.isnan(self.value):
            return "not recorded"
        value = format(self.value, form)
        if math.isnan(self.low) or math.isnan(self.high):
            return f"{value} (no interval)"
        return f"{value} ({self.low:{form}} to {self.high:{form}})"


def figures(inputs: Inputs) -> dict[Slice, dict[str, Figure]]:
    """The candidate's metrics, by slice and name."""
    # Named no model, TFMA takes the one that was compared with the live one, or the only one.
    result = tfma.load_eval_result(str(inputs.artifacts["evaluation"].path))
    return {
        key: {name: _figure(value) for name, value in metrics[""][""].items()}
        for key, metrics in result.slicing_metrics
    }


def _figure(metric: Mapping[str, Any]) -> Figure:
    """TFMA's doubleValue or boundedValue; JSON has NaN as a string."""
    bounded = metric.get("boundedValue", {})
    value = bounded.get("value", metric.get("doubleValue", math.nan))
    bounds = (bounded.get(end, math.nan) for end in ("lowerBound", "upperBound"))
    return Figure(float(value), *map(float, bounds))
