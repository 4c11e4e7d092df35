"""Reads the metrics of an evaluation, with TFMA's own loader."""

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
from scipy.stats import binomtest
from scipy.stats import t as student

from components import predictions
from components.evaluator import ALL_PHOTOS, CANDIDATE, COUNT
from components.gate import MAE, REFUSED
from components.review.inputs import NOT_RECORDED, Inputs
from schemas import features

Slice = tuple[tuple[str, str], ...]  # pairs of column and value; () is the whole test split
OVERALL: Slice = ()
MSE, MEAN_ERROR = "mean_squared_error", "mean_error"
# The name of a column. It contains a space, because no column of the CSV does.
ABSOLUTE_ERROR = "absolute error"


@dataclass(frozen=True)
class Figure:
    """A metric with its 95 % interval. NaN stands for what is not known."""

    value: float
    low: float
    high: float

    def __format__(self, form: str) -> str:
        """Writes `6.45 (6.10 to 6.80)`."""
        if math.isnan(self.value):
            return NOT_RECORDED
        value = format(self.value, form)
        if math.isnan(self.low) or math.isnan(self.high):
            return f"{value} (no interval)"
        return f"{value} ({self.low:{form}} to {self.high:{form}})"

    def short(self, form: str = ".2f") -> str:
        """The same without the remark "(no interval)"."""
        return format(self, form).removesuffix(" (no interval)")


UNKNOWN = Figure(math.nan, math.nan, math.nan)
Metrics = Mapping[str, Figure]


def figures(inputs: Inputs) -> dict[Slice, dict[str, Figure]]:
    """The candidate's metrics, by slice and name."""
    return read(inputs.artifacts["evaluation"].path)


def read(folder: Path, model: str = "") -> dict[Slice, dict[str, Figure]]:
    """A model's metrics from the folder of an evaluation, by slice and name.

    A metric of a named output, or with a sub key, has these after its name. MEAN_ERROR, the bias,
    is TFMA's mean prediction minus its mean label.

    Args:
        folder: of the evaluation.
        model: name of the model. Without a name, TFMA gives the candidate. The result is empty if
            the evaluation does not have this model.
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
    """A row for each test photo to which the model does not object.

    The columns are PHOTO_ID, those of the slices, and ABSOLUTE_ERROR in years. TFMA's metrics do
    not say how two models differ on the same photo. These rows do.
    """
    answered = [(predictions.objection_column(model), "=", "")]
    photos = pq.read_table(folder / predictions.FILE, filters=answered)
    error = pc.abs(pc.subtract(photos[model], photos[features.AGE])).cast(pa.float64())
    return photos.append_column(ABSOLUTE_ERROR, error)


def _with_intervals(found: dict[str, Figure]) -> dict[str, Figure]:
    """Adds the bias, and the intervals that TFMA did not compute.

    If all photos of a slice are refused, TFMA's errors are 0. They become unknown.
    """
    count, square = found.get(COUNT, UNKNOWN).value, found.get(MSE, UNKNOWN).value
    if count == 0:
        photos = (COUNT, ALL_PHOTOS, REFUSED)
        found = {name: figure if name in photos else UNKNOWN for name, figure in found.items()}
    if MEAN_ERROR not in found and "mean_prediction" in found and "mean_label" in found:
        bias = found["mean_prediction"].value - found["mean_label"].value
        found[MEAN_ERROR] = interval(bias, square, count)
    if MAE in found and math.isnan(found[MAE].low):
        mae = interval(found[MAE].value, square, count)
        found[MAE] = replace(mae, low=max(mae.low, 0.0))  # keeps NaN
    if REFUSED in found:
        every = found[ALL_PHOTOS].value
        found[REFUSED] = share(round(every - count), round(every))
    return found


def share(count: int, photos: int) -> Figure:
    """A share with Wilson's 95 % interval (1927, J. Am. Stat. Assoc. 22, 209-212).

    Args:
        count: number of photos that are counted.
        photos: number of all photos; without any, the share is unknown.
    """
    if not photos:
        return UNKNOWN
    bounds = binomtest(count, photos).proportion_ci(0.95, "wilson")
    return Figure(count / photos, bounds.low, bounds.high)


def interval(mean: float, mean_square: float, count: float) -> Figure:
    """A mean with its 95 % jackknife interval.

    The jackknife leaves out one photo at a time. For a mean, its standard error is exactly s / √n
    (Efron & Tibshirani 1993, An Introduction to the Bootstrap, section 11.2), where
    s² = n / (n - 1) (mean square - mean²). Half the interval is this error times Student's t with
    n - 1 degrees of freedom.

    Args:
        mean: of the errors or of the absolute errors, in years.
        mean_square: of the same errors, in years².
        count: number of photos, n.
    """
    if not count > 1:
        return Figure(mean, math.nan, math.nan)
    error = math.sqrt(max(mean_square - mean**2, 0) / (count - 1))
    half = float(student.ppf(0.975, count - 1)) * error
    return Figure(mean, mean - half, mean + half)


def _figure(metric: Mapping[str, Any]) -> Figure:
    """TFMA's number, and its interval if TFMA computed one.

    TFMA's JSON writes NaN as a string. A value that is not a number becomes NaN.
    """
    bounded = metric.get("boundedValue", {"value": metric.get("doubleValue", math.nan)})
    return Figure(*(float(bounded.get(n, math.nan)) for n in ("value", "lowerBound", "upperBound")))
