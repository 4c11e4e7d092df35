"""The gate's bounds in TFMA: they apply to the whole test split, and not to a slice."""

from __future__ import annotations

import math
from typing import Any

import pytest
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.evaluators import metrics_validator
from tensorflow_model_analysis.metrics import metric_types

from components.evaluator import BASELINE, CANDIDATE, eval_config
from pipeline.config import Evaluator

OVERALL: tuple[Any, ...] = ()
CHILDREN = (("age_band", "0–12"),)


def validated(mae: float, live_mae: float | None, slice_key: tuple[Any, ...] = OVERALL) -> bool:
    config = eval_config(Evaluator(max_mae=8.0, max_mae_increase=0.25))
    has_baseline = live_mae is not None
    config = tfma.utils.update_eval_config_with_defaults(
        config, has_baseline=has_baseline, rubber_stamp=True
    )
    name = "mean_absolute_error"
    key = metric_types.MetricKey(
        name, model_name=CANDIDATE if has_baseline else "", example_weighted=False
    )
    metrics: dict[Any, float] = {key: mae}
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


def test_the_bounds_do_not_apply_to_a_slice() -> None:
    assert validated(20.0, None, CHILDREN)
    assert validated(20.0, 6.0, CHILDREN)
