"""The heads of the network."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import norm

from components.trainer.heads import HEADS, Head

DISTRIBUTION, REGRESSION = HEADS["distribution"], HEADS["regression"]


def around(age: float, sigma: float = 2.0) -> np.ndarray:
    density = norm.pdf(np.arange(121), age, sigma)
    return (density / density.sum())[None].astype(np.float32)


@pytest.mark.parametrize("age", [20.0, 33.3, 80.0])
@pytest.mark.parametrize("sigma", [2.0, 5.0])
def test_the_mean_and_the_spread_of_a_distribution(age: float, sigma: float) -> None:
    assert DISTRIBUTION.age(around(age, sigma)).numpy() == pytest.approx(age, abs=1e-3)
    assert DISTRIBUTION.spread(around(age, sigma)).numpy() == pytest.approx(sigma, abs=1e-2)


def test_one_certain_age_has_some_spread() -> None:
    certain = np.eye(121, dtype=np.float32)[[0, 120]]
    assert DISTRIBUTION.age(certain).numpy().tolist() == [[0], [120]]
    assert DISTRIBUTION.spread(certain).numpy().tolist() == [[1], [1]]


def test_the_score_of_a_distribution_is_the_logit_of_being_a_minor() -> None:
    """Two people who look 30 are minors with different probabilities."""
    for sigma in (4.0, 8.0):
        below = norm.pdf(np.arange(18), 30, sigma).sum() / norm.pdf(np.arange(121), 30, sigma).sum()
        score = DISTRIBUTION.score(around(30.0, sigma), 18).numpy()
        assert score == pytest.approx(np.log(below / (1 - below)), rel=1e-3)
    certain = DISTRIBUTION.score(np.eye(121, dtype=np.float32)[[17, 18]], 18).numpy()[:, 0]
    assert np.isfinite(certain).all() and certain[0] > 10 and certain[1] < -10
    assert REGRESSION.score(tf.constant([[17.0]]), 18).numpy() == 1


def test_the_loss_of_a_distribution() -> None:
    """Its closed form: the cross-entropy, and half the absolute error of the expectation."""
    for years, said in ((30.0, 30.0), (30.0, 36.0)):
        entropy = -np.sum(around(years) * np.log(around(said) + 1e-7))
        loss = DISTRIBUTION.loss(tf.constant([years]), tf.constant(around(said))).numpy()
        assert loss == pytest.approx(entropy + 0.5 * abs(said - years), rel=1e-2)


def test_the_loss_of_a_regression() -> None:
    outputs = tf.constant([[30.0], [36.0]])
    for years in (tf.constant([30.0, 30.0]), tf.constant([[30.0], [30.0]])):
        assert REGRESSION.loss(years, outputs).numpy().tolist() == [0, 36]
    assert REGRESSION.spread(outputs).numpy().tolist() == [[1], [1]]


@pytest.mark.parametrize("head", HEADS.values())
@pytest.mark.parametrize("scale", [-100.0, 100.0])
def test_ages_are_never_negative_and_always_finite(head: Head, scale: float) -> None:
    layer = head.layer(np.array([5.0, 60.0]))
    pooled = tf.random.stateless_normal([50, 8], (0, 1)) * scale
    outputs = layer(pooled)
    assert np.all(head.age(outputs).numpy() >= 0)
    for values in (head.age(outputs), head.spread(outputs), head.loss(tf.fill([50], 7.0), outputs)):
        assert np.isfinite(values.numpy()).all()


def test_a_distribution_starts_at_the_ages_of_the_photos() -> None:
    layer = DISTRIBUTION.layer(np.array([10.0, 10.0, 50.0]))
    shares = layer(keras.ops.zeros((1, 8))).numpy()[0]
    assert shares[5:16].sum() == pytest.approx(2 / 3, abs=0.02)
    assert shares[45:56].sum() == pytest.approx(1 / 3, abs=0.02)
    assert (shares > 0).all()
