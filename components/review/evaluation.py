"""Reads the metrics of an evaluation, with TFMA's own loader."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import tensorflow_model_analysis as tfma

from components import passing, predictions
from components.evaluator import ALL_PHOTOS, CANDIDATE, COUNT
from components.gate import CHALLENGE, MAE, REFUSED
from components.intervals import UNKNOWN, Figure, interval, share
from components.passing import PASSED
from components.review.inputs import Inputs
from schemas import features

Slice = tuple[tuple[str, str], ...]  # pairs of column and value; () is the whole test split
OVERALL: Slice = ()
MSE, MEAN_ERROR = "mean_squared_error", "mean_error"
_ERRORS = {MAE, MSE, "mean_prediction", "mean_label", "calibration"}
# The name of a column. It contains a space, because no column of the CSV does.
ABSOLUTE_ERROR = "absolute error"


Metrics = Mapping[str, Figure]


def figures(inputs: Inputs) -> dict[Slice, dict[str, Figure]]:
    """The candidate's metrics, by slice and name."""
    return read(inputs.artifacts["evaluation"].path)


def challenge(inputs: Inputs) -> dict[str, Any]:
    """The candidate's rule, its proofs, and who passes without ID."""
    found: dict[str, Any] = json.loads(inputs.artifacts["evaluation"].properties[CHALLENGE])
    return found


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
    photos = predictions.answered(folder, model)
    error = pc.abs(pc.subtract(photos[model], photos[features.AGE])).cast(pa.float64())
    return photos.append_column(ABSOLUTE_ERROR, error)


def _with_intervals(found: dict[str, Figure]) -> dict[str, Figure]:
    """Adds the bias, and the intervals that TFMA did not compute.

    If all photos of a slice are refused, TFMA's errors are 0. They become unknown.
    """
    count, square = found.get(COUNT, UNKNOWN).value, found.get(MSE, UNKNOWN).value
    if count == 0:
        found |= dict.fromkeys(found.keys() & _ERRORS, UNKNOWN)
    if MEAN_ERROR not in found and "mean_prediction" in found and "mean_label" in found:
        bias = found["mean_prediction"].value - found["mean_label"].value
        found[MEAN_ERROR] = interval(bias, square, count)
    if MAE in found and math.isnan(found[MAE].low):
        mae = interval(found[MAE].value, square, count)
        found[MAE] = replace(mae, low=max(mae.low, 0.0))  # keeps NaN
    if REFUSED in found:
        every = found[ALL_PHOTOS].value
        found[REFUSED] = share(round(every - count), round(every))
    for group in passing.COUNTS:
        passed = found.get(group + PASSED, UNKNOWN)
        if not math.isnan(passed.value):
            people = found[group].value
            found[group + PASSED] = share(round(passed.value * people), round(people))
    return found


def _figure(metric: Mapping[str, Any]) -> Figure:
    """TFMA's number, and its interval if TFMA computed one.

    TFMA's JSON writes NaN as a string. A value that is not a number becomes NaN.
    """
    bounded = metric.get("boundedValue", {"value": metric.get("doubleValue", math.nan)})
    return Figure(*(float(bounded.get(n, math.nan)) for n in ("value", "lowerBound", "upperBound")))
