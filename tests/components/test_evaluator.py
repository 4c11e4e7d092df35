"""The gate's bounds in TFMA: they apply to the whole test split, and not to a slice."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.evaluators import metrics_validator
from tensorflow_model_analysis.metrics import metric_types
from tfx_bsl.arrow import table_util

from components.beam_jobs import ARGUMENTS
from components.evaluator import BASELINE, CANDIDATE, COUNT, eval_config
from components.gate import MAE, REFUSED
from pipeline.config import Evaluator, Guard
from schemas import features

OVERALL: tuple[Any, ...] = ()
CHILDREN = (("age_band", "0–12"),)


def validated(
    mae: float,
    live_mae: float | None,
    slice_key: tuple[Any, ...] = OVERALL,
    refused: float = 0.0,
    measured: int = 30,
) -> bool:
    config = eval_config(Evaluator(max_mae=8.0, max_mae_increase=0.25), Guard(), 18)
    has_baseline = live_mae is not None
    config = tfma.utils.update_eval_config_with_defaults(
        config, has_baseline=has_baseline, rubber_stamp=True
    )
    model = CANDIDATE if has_baseline else ""
    key = metric_types.MetricKey(MAE, model_name=model, example_weighted=True)
    share = metric_types.MetricKey(REFUSED, model_name=model, example_weighted=False)
    count = metric_types.MetricKey(COUNT, model_name=model, example_weighted=True)
    metrics: dict[Any, float] = {key: mae, share: refused, count: measured}
    if live_mae is not None:
        metrics[key.make_diff_key()] = mae - live_mae
        metrics[key.make_baseline_key(BASELINE)] = live_mae
    return metrics_validator.validate_metrics((slice_key, metrics), config).validation_ok


@pytest.mark.parametrize(
    ("mae", "live_mae", "passes"),
    [
        (8.0, None, True),
        (8.01, None, False),
        (math.nan, None, False),
        (6.2, 6.0, True),
        (6.26, 6.0, False),
        (8.1, 12.0, False),  # better than the live model, but above the bound
    ],
)
def test_thresholds(mae: float, live_mae: float | None, passes: bool) -> None:
    assert validated(mae, live_mae) is passes


@pytest.mark.parametrize(("refused", "passes"), [(0.05, True), (0.051, False), (math.nan, False)])
def test_the_share_of_refused_photos_has_a_bound(refused: float, passes: bool) -> None:
    assert validated(6.0, None, refused=refused) is passes
    assert validated(6.0, 6.0, refused=refused) is passes


@pytest.mark.parametrize(("measured", "passes"), [(30, True), (29, False), (0, False)])
def test_the_number_of_test_photos_has_a_bound(measured: int, passes: bool) -> None:
    assert validated(6.0, None, measured=measured) is passes
    assert validated(6.0, 6.0, measured=measured) is passes


def test_the_bounds_do_not_apply_to_a_slice() -> None:
    assert validated(20.0, None, CHILDREN, refused=1.0, measured=1)
    assert validated(20.0, 6.0, CHILDREN, refused=1.0, measured=1)


def test_errors_of_the_split_and_of_each_age_band(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    ages = random.uniform(0, 90, 100).astype(np.float32)
    predicted = ages + random.normal(0, 8, 100).astype(np.float32)
    bands = [features.age_band(age) for age in ages]
    photos = {features.AGE: ages, "predicted": predicted, features.AGE_BAND: bands}
    batch = table_util.CanonicalizeRecordBatch(pa.RecordBatch.from_pydict(photos))
    config = eval_config(Evaluator(max_mae=8.0, max_mae_increase=0.25), Guard(), 18)
    del config.model_specs[:]
    config.model_specs.add(label_key=features.AGE, prediction_key="predicted")
    del config.metrics_specs[1:]  # the refused photos have tests in test_objections.py
    for metric in config.metrics_specs[0].metrics:
        metric.ClearField("per_slice_thresholds")
    with beam.Pipeline(argv=ARGUMENTS) as pipeline:
        _ = (
            pipeline
            | beam.Create([batch])
            | tfma.ExtractEvaluateAndWriteResults(eval_config=config, output_path=str(tmp_path))
        )
    errors = np.abs(predicted - ages)
    for key, metrics in tfma.load_eval_result(str(tmp_path)).slicing_metrics:
        inside = np.array([not key or key[0][1] == band for band in bands])
        mae = metrics[""][""]["mean_absolute_error"]["doubleValue"]
        mse = metrics[""][""]["mean_squared_error"]["doubleValue"]
        assert mae == pytest.approx(errors[inside].mean(), rel=1e-5), key
        assert mse == pytest.approx(np.square(errors[inside]).mean(), rel=1e-5), key
