"""Photos with an objection, in TFMA: their weight, and their share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
import tensorflow_model_analysis as tfma

from components import objections
from components.evaluator import ALL_PHOTOS, BASELINE, CANDIDATE, COUNT, eval_config
from components.gate import MAE, REFUSED
from pipeline.config import Beam, Evaluator, Guard
from pipeline.graph import beam_args
from schemas import features

Outputs = dict[str, np.ndarray]


def outputs(age: float, objection: str) -> Outputs:
    """What a model says about one photo."""
    return {
        features.AGE: np.array([age], np.float32),
        features.VALID: np.array([True]),
        features.OBJECTION: np.array([objection.encode()]),
        features.CHALLENGE: np.array([bool(objection)]),
    }


def extracts(age: float, predictions: Any) -> tfma.Extracts:
    """TFMA's extracts of one photo, as they are before the weights."""
    band = features.age_band(age).encode()
    return {
        tfma.FEATURES_KEY: {features.AGE_BAND: np.array([band])},
        tfma.LABELS_KEY: np.array([age], np.float32),
        tfma.PREDICTIONS_KEY: predictions,
    }


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (outputs(30, ""), ""),
        (outputs(30, features.NO_FACE), features.NO_FACE),
        ({features.AGE: np.array([30.0])}, ""),  # a model from before there were objections
        (np.array([30.0]), ""),  # the same, in the form of an only output
    ],
)
def test_the_objection_of_a_model(given: Any, expected: str) -> None:
    assert objections.objection(given) == expected


def evaluated(folder: Path, photos: list[tfma.Extracts], models: list[str]) -> dict[Any, Any]:
    """TFMA's metrics of the first model, by slice: name → value."""
    config = eval_config(Evaluator(), Guard(max_refused_test=0.3))
    # TFMA wants to load the models of a change threshold.
    config.metrics_specs[0].metrics[0].per_slice_thresholds[0].threshold.ClearField(
        "change_threshold"
    )
    if models == [""]:
        config = tfma.utils.update_eval_config_with_defaults(config, has_baseline=False)
    extractors = [
        tfma.extractors.Extractor("WeighPhotos", beam.Map(objections.weigh, models)),
        tfma.extractors.SliceKeyExtractor(eval_config=config),
    ]
    with beam.Pipeline(argv=beam_args(Beam())) as pipeline:
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


PHOTOS = [
    (30.0, outputs(34, "")),
    (32.0, outputs(33, "")),
    (31.0, outputs(90, features.UNLIKE_TRAINING)),
    (5.0, outputs(60, features.NO_FACE)),
]


def test_the_errors_are_those_of_the_photos_without_an_objection(tmp_path: Path) -> None:
    found = evaluated(tmp_path, [extracts(age, said) for age, said in PHOTOS], [""])
    overall = found[()]
    assert overall[MAE] == pytest.approx(2.5)
    assert overall["mean_squared_error"] == pytest.approx((16 + 1) / 2)
    assert overall["mean_prediction"] == pytest.approx(33.5)
    assert (overall[COUNT], overall[ALL_PHOTOS], overall[REFUSED]) == (2, 4, 0.5)
    adults = found[((features.AGE_BAND, "25–34"),)]
    assert (adults[COUNT], adults[ALL_PHOTOS]) == (2, 3)
    assert adults[REFUSED] == pytest.approx(1 / 3)


def test_each_model_has_its_own_objections(tmp_path: Path) -> None:
    old = {features.AGE: np.array([40.0], np.float32)}  # it has no objections
    photos = [extracts(age, {CANDIDATE: said, BASELINE: old}) for age, said in PHOTOS]
    overall = evaluated(tmp_path, photos, [CANDIDATE, BASELINE])[()]
    assert overall[MAE] == pytest.approx(2.5)
    live = tfma.load_eval_result(str(tmp_path), model_name=BASELINE).get_metrics_for_slice()
    assert live[MAE]["doubleValue"] == pytest.approx((10 + 8 + 9 + 35) / 4)
    assert live[REFUSED]["doubleValue"] == 0


@pytest.mark.parametrize(("objected", "passes"), [(1, True), (2, False)])
def test_too_many_refused_photos_shut_the_gate(tmp_path: Path, objected: int, passes: bool) -> None:
    said = [outputs(30, features.NO_FACE if at < objected else "") for at in range(4)]
    evaluated(tmp_path, [extracts(30.0, one) for one in said], [""])
    assert tfma.load_validation_result(str(tmp_path)).validation_ok is passes
