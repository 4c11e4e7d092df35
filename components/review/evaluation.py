"""What TFMA's evaluation says of the candidate, read with TFMA's own loader."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow_model_analysis as tfma
from scipy.stats import t as student

from components import predictions
from components.evaluator import CANDIDATE
from components.gate import MAE
from components.review.inputs import Inputs
from schemas import features

Slice = tuple[tuple[str, str], ...]  # (column, value) pairs; () is the whole test split
OVERALL: Slice = ()
MSE, COUNT, MEAN_ERROR = "mean_squared_error", "example_count", "mean_error"
ABSOLUTE_ERROR = "absolute error"  # a column; none of the CSV's has a space in its name


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


NOTHING = Figure(math.nan, math.nan, math.nan)
Metrics = Mapping[str, Figure]


def figures(inputs: Inputs) -> dict[Slice, dict[str, Figure]]:
    """The candidate's metrics, by slice and name."""
    # Named no model, TFMA takes the one that was compared with the live one, or the only one.
    return read(inputs.artifacts["evaluation"].path)


def read(folder: Path, model: str = "") -> dict[Slice, dict[str, Figure]]:
    """A model's metrics from an evaluation's folder, by slice and name; none where it has no such.

    A metric of one of several outputs, or with a key of its own, has these after its name.
    MEAN_ERROR, the bias, is TFMA's mean prediction less its mean label.
    """
    result = tfma.load_eval_result(str(folder), model_name=model)
    return {
        key: _with_intervals(
            {
                " ".join(filter(None, (name, output, sub_key))): _figure(value)
                for output, by_sub_key in outputs.items()
                for sub_key, metrics in by_sub_key.items()
                for name, value in metrics.items()
            }
        )
        for key, outputs in result.slicing_metrics
    }


def absolute_errors(folder: Path, model: str = CANDIDATE) -> pa.Table:
    """A row for each test photo: its PHOTO_ID, what it is sliced by, and ABSOLUTE_ERROR, years.

    What TFMA's metrics do not hold: how two models differ on one photo.
    """
    photos = pq.read_table(folder / predictions.FILE)
    error = pc.abs(pc.subtract(photos[model], photos[features.AGE])).cast(pa.float64())
    return photos.append_column(ABSOLUTE_ERROR, error)


def _with_intervals(found: dict[str, Figure]) -> dict[str, Figure]:
    """With those that TFMA was not told to compute, and the bias."""
    count, square = found.get(COUNT, NOTHING).value, found.get(MSE, NOTHING).value
    if MEAN_ERROR not in found and "mean_prediction" in found and "mean_label" in found:
        bias = found["mean_prediction"].value - found["mean_label"].value
        found[MEAN_ERROR] = interval(bias, square, count)
    if MAE in found and math.isnan(found[MAE].low):
        mae = interval(found[MAE].value, square, count)
        found[MAE] = replace(mae, low=max(mae.low, 0.0))  # NaN stays
    return found


def interval(mean: float, mean_square: float, count: float) -> Figure:
    """A mean with its 95 % jackknife interval.

    Of a mean, the jackknife that leaves out one photo at a time has the standard error s / √n
    exactly (Efron & Tibshirani 1993, An Introduction to the Bootstrap, section 11.2), and TFMA
    gives what s² = n / (n - 1) (mean square - mean²) takes. Times Student's t with n - 1 degrees.

    Args:
        mean: of errors or of absolute errors, years.
        mean_square: of the same, years².
        count: photos, n.
    """
    if not count > 1:
        return Figure(mean, math.nan, math.nan)
    error = math.sqrt(max(mean_square - mean**2, 0) / (count - 1))
    half = float(student.ppf(0.975, count - 1)) * error
    return Figure(mean, mean - half, mean + half)


def _figure(metric: Mapping[str, Any]) -> Figure:
    """TFMA's number, with the interval where it computed one; NaN for what is no number.

    Its JSON has NaN as a string.
    """
    bounded = metric.get("boundedValue", {"value": metric.get("doubleValue", math.nan)})
    return Figure(*(float(bounded.get(n, math.nan)) for n in ("value", "lowerBound", "upperBound")))
