"""Runs TFMA on photos and on what models say about them, without models and example files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma

from components import objections
from components.beam_jobs import ARGUMENTS
from schemas import features


def extracts(age: float, predictions: Any, **columns: str | None) -> tfma.Extracts:
    """TFMA's extracts of one photo, as they are before the weights."""
    texts = {features.AGE_BAND: features.age_band(age), **columns}
    return {
        tfma.FEATURES_KEY: {
            name: np.array([text.encode()]) for name, text in texts.items() if text
        },
        tfma.LABELS_KEY: np.array([age], np.float32),
        tfma.PREDICTIONS_KEY: predictions,
    }


def outputs(age: float, objection: str = "", challenge: bool | None = None) -> Mapping[str, Any]:
    """What a model says about one photo. By default, it challenges those whom it objects to."""
    return {
        features.AGE: np.array([age], np.float32),
        features.OBJECTION: np.array([objection.encode()]),
        features.CHALLENGE: np.array([bool(objection) if challenge is None else challenge]),
    }


def evaluate(
    folder: Path,
    photos: Sequence[tfma.Extracts],
    config: tfma.EvalConfig,
    models: Sequence[str] = ("",),
) -> dict[Any, dict[str, float]]:
    """Writes TFMA's metrics; returns those of the first model, by slice and name.

    Args:
        folder: to write.
        photos: as `extracts` gives them.
        config: as `eval_config` gives it.
        models: TFMA's names of the models; an only model has no name.
    """
    # TFMA wants to load the models of a change threshold.
    mae = config.metrics_specs[0].metrics[0]
    mae.per_slice_thresholds[0].threshold.ClearField("change_threshold")
    if models == ("",):
        config = tfma.utils.update_eval_config_with_defaults(config, has_baseline=False)
    extractors = [
        tfma.extractors.Extractor("WeighPhotos", beam.Map(objections.weigh, models)),
        tfma.extractors.SliceKeyExtractor(eval_config=config),
    ]
    with beam.Pipeline(argv=ARGUMENTS) as pipeline:
        _ = (
            pipeline
            | beam.Create(photos)
            | tfma.ExtractAndEvaluate(extractors, tfma.default_evaluators(eval_config=config))
            | tfma.WriteResults(tfma.default_writers(str(folder), eval_config=config))
        )
    result = tfma.load_eval_result(str(folder), model_name=models[0])
    return {
        key: {name: float(value["doubleValue"]) for name, value in metrics[""][""].items()}
        for key, metrics in result.slicing_metrics
    }
