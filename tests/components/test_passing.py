"""Who passes without ID, in TFMA."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_model_analysis as tfma

from components import passing
from components.evaluator import BASELINE, CANDIDATE, eval_config
from components.passing import ADULTS, HARD_MINORS, MINORS, PASSED
from pipeline.config import Evaluator, Guard
from schemas import features
from tests.components.tfma_run import evaluate, extracts, outputs

# Real ages, and what a model says: estimate, objection and whether it asks for ID.
PHOTOS: list[tuple[float, Any]] = [
    (14.9, outputs(12.0, "", True)),
    (15.0, outputs(30.0, "", False)),
    (17.9, outputs(31.0, features.UNLIKE_TRAINING, True)),
    (17.0, outputs(19.0, "", True)),
    (18.0, outputs(26.0, "", False)),
    (25.0, outputs(40.0, "", False)),
    (60.0, outputs(24.0, "", True)),
    (61.0, outputs(70.0, features.NO_FACE, True)),
]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (outputs(30, challenge=True), True),
        (outputs(30, challenge=False), False),
        ({features.AGE: np.array([30.0])}, None),
        (np.array([30.0]), None),
    ],
)
def test_whether_a_model_asks_for_id(given: Any, expected: bool | None) -> None:
    assert passing.challenged(given) is expected


def test_the_groups_for_a_legal_age() -> None:
    assert passing.groups(18) == [(MINORS, 0, 17), (HARD_MINORS, 15, 17), (ADULTS, 25, None)]
    assert passing.groups(2)[1] == (HARD_MINORS, 0, 1)
    assert passing.groups(30)[2] == (ADULTS, 30, None)


def test_who_passes_in_each_slice(tmp_path: Path) -> None:
    config = eval_config(Evaluator(), Guard(), legal_age=18)
    photos = [extracts(age, said) for age, said in PHOTOS]
    found = evaluate(tmp_path, photos, config)
    overall = found[()]
    assert (overall[MINORS], overall[HARD_MINORS], overall[ADULTS]) == (4, 3, 3)
    assert overall[MINORS + PASSED] == pytest.approx(1 / 4)
    assert overall[HARD_MINORS + PASSED] == pytest.approx(1 / 3)
    assert overall[ADULTS + PASSED] == pytest.approx(1 / 3)
    teenagers = found[((features.AGE_BAND, "13–17"),)]
    assert (teenagers[MINORS], teenagers[ADULTS]) == (4, 0)
    assert math.isnan(teenagers[ADULTS + PASSED])


def test_a_live_model_that_does_not_say_who_passes(tmp_path: Path) -> None:
    old = {features.AGE: np.array([40.0], np.float32)}
    photos = [extracts(age, {CANDIDATE: said, BASELINE: old}) for age, said in PHOTOS]
    config = eval_config(Evaluator(), Guard(), legal_age=18)
    assert evaluate(tmp_path, photos, config, (CANDIDATE, BASELINE))[()][MINORS + PASSED] == 0.25
    live = tfma.load_eval_result(str(tmp_path), model_name=BASELINE).get_metrics_for_slice()
    assert live[MINORS]["doubleValue"] == 4
    assert math.isnan(float(live[MINORS + PASSED]["doubleValue"]))
