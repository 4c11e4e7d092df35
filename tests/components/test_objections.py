"""Photos with an objection, in TFMA: their weight, and their share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_model_analysis as tfma

from components import objections
from components.evaluator import ALL_PHOTOS, BASELINE, CANDIDATE, COUNT, eval_config
from components.gate import MAE, REFUSED
from pipeline.config import Evaluator, Guard
from schemas import features
from tests.components.tfma_run import evaluate, extracts, outputs


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


def config() -> tfma.EvalConfig:
    return eval_config(Evaluator(min_test_photos=1), Guard(max_refused_test=0.3), legal_age=18)


PHOTOS = [
    (30.0, outputs(34, "")),
    (32.0, outputs(33, "")),
    (31.0, outputs(90, features.UNLIKE_TRAINING)),
    (5.0, outputs(60, features.NO_FACE)),
]


def test_the_errors_are_those_of_the_photos_without_an_objection(tmp_path: Path) -> None:
    found = evaluate(tmp_path, [extracts(age, said) for age, said in PHOTOS], config())
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
    overall = evaluate(tmp_path, photos, config(), [CANDIDATE, BASELINE])[()]
    assert overall[MAE] == pytest.approx(2.5)
    live = tfma.load_eval_result(str(tmp_path), model_name=BASELINE).get_metrics_for_slice()
    assert live[MAE]["doubleValue"] == pytest.approx((10 + 8 + 9 + 35) / 4)
    assert live[REFUSED]["doubleValue"] == 0


@pytest.mark.parametrize(("objected", "passes"), [(1, True), (2, False)])
def test_too_many_refused_photos_shut_the_gate(tmp_path: Path, objected: int, passes: bool) -> None:
    said = [outputs(30, features.NO_FACE if at < objected else "") for at in range(4)]
    evaluate(tmp_path, [extracts(30.0, one) for one in said], config())
    assert tfma.load_validation_result(str(tmp_path)).validation_ok is passes
