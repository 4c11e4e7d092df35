"""The interval of an age, and the probability of being a minor."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit

from components.trainer import calibration
from components.trainer.calibration import Calibration
from schemas import features

LEGAL_AGE = 18
RANDOM = np.random.default_rng(0)


def people(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ages, estimates, spreads, scores; half of the estimates are five times as far off."""
    ages, spreads = RANDOM.uniform(0, 90, count), RANDOM.choice([2.0, 10.0], count)
    estimates = ages + RANDOM.normal(0, spreads)
    return ages, estimates, spreads, 18 - estimates


def test_the_interval_covers_nine_of_ten_new_photos() -> None:
    """On average over many eval splits, it covers at least 0.9 and hardly more."""
    covered = []
    for _ in range(200):
        half = calibration.fit(*people(99), LEGAL_AGE).half_width
        ages, estimates, spreads, _ = people(400)
        covered.append(np.abs(estimates - ages) <= half * spreads)
    assert 0.89 < np.mean(covered) < 0.915


def test_the_interval_is_as_wide_as_the_photo_is_unsure() -> None:
    """So it covers nine of ten photos that are sure, and nine of ten that are not."""
    half = calibration.fit(*people(5000), LEGAL_AGE).half_width
    ages, estimates, spreads, _ = people(20_000)
    covered = np.abs(estimates - ages) <= half * spreads
    for spread in (2, 10):
        assert covered[spreads == spread].mean() == pytest.approx(0.9, abs=0.02)


def test_few_photos_give_an_interval_of_all_ages() -> None:
    assert calibration.fit(*people(8), LEGAL_AGE).half_width == features.MAX_AGE
    assert calibration.fit(*people(9), LEGAL_AGE).half_width < features.MAX_AGE


def test_the_probability_of_being_a_minor_is_calibrated() -> None:
    """The shares of minors are drawn from a logistic curve, which the fit finds again."""
    estimates = RANDOM.uniform(0, 60, 20_000)
    minors = RANDOM.random(20_000) < expit(-0.4 * (estimates - 19))
    ages, ones = np.where(minors, 10.0, 40.0), np.ones(20_000)
    fitted = calibration.fit(ages, estimates, ones, -estimates, LEGAL_AGE)
    assert fitted.slope == pytest.approx(0.4, rel=0.1)
    assert fitted.intercept / fitted.slope == pytest.approx(19, abs=0.5)


@pytest.mark.parametrize("ages", [[40.0, 50.0, 60.0], [3.0, 4.0, 5.0], [5.0, 80.0], [30.0]])
def test_few_photos_never_give_certainty(ages: list[float]) -> None:
    ones, scores = np.ones(len(ages)), 18 - np.array(ages)
    fitted = calibration.fit(np.array(ages), np.array(ages), ones, scores, LEGAL_AGE)
    outputs = fitted.outputs(tf.constant(ages), tf.ones(len(ages)), tf.constant(scores, tf.float32))
    minor = outputs[features.P_MINOR].numpy()
    assert np.isfinite(minor).all() and (minor > 0).all() and (minor < 1).all()


def test_the_outputs() -> None:
    fitted = Calibration(half_width=5, slope=0.5, intercept=1)
    found = fitted.outputs(
        tf.constant([4.0, 27.0, 27.5, 118.0, np.nan]),
        tf.constant([2.0, 2.0, 1.0, 2.0, 2.0]),
        tf.constant([14.0, -9.0, -9.5, -100.0, np.nan]),
    )
    np.testing.assert_array_equal(found[features.AGE_LOW], [0, 17, 22.5, 108, np.nan])
    np.testing.assert_array_equal(found[features.AGE_HIGH], [14, 37, 32.5, 120, np.nan])
    np.testing.assert_allclose(found[features.P_MINOR][0], expit(8), rtol=1e-6)
