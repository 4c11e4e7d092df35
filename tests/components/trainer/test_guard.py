"""The guard: it passes what is like the training photos, and refuses the rest."""

from __future__ import annotations

import numpy as np
import pytest

from components.trainer import guard

RANDOM = np.random.default_rng(0)
MIX = RANDOM.normal(size=(6, 40))  # the features of photos vary in 6 of 40 directions


def photos(count: int) -> np.ndarray:
    noise = RANDOM.normal(scale=0.05, size=(count, 40))
    return (3 + RANDOM.normal(size=(count, 6)) @ MIX + noise).astype(np.float32)


def test_it_refuses_what_varies_in_another_direction() -> None:
    fitted = guard.fit(photos(500), photos(200), max_refused=0.02)
    others = photos(100) + RANDOM.normal(size=(100, 40)).astype(np.float32)
    far = fitted.distances(others).numpy() > fitted.limit
    near = fitted.distances(photos(1000)).numpy() > fitted.limit
    assert far.mean() > 0.95
    assert near.mean() < 0.06


def test_it_refuses_what_is_far_in_a_direction_of_the_photos() -> None:
    fitted = guard.fit(photos(500), photos(200), max_refused=0.02)
    others = photos(100) + 8 * MIX[0].astype(np.float32)
    assert (fitted.distances(others).numpy() > fitted.limit).all()


@pytest.mark.parametrize(("max_refused", "refused"), [(0.0, 0), (0.02, 4), (0.5, 100)])
def test_the_limit_refuses_the_share_of_the_eval_photos(max_refused: float, refused: int) -> None:
    evaluation = photos(200)
    fitted = guard.fit(photos(300), evaluation, max_refused)
    assert (fitted.distances(evaluation).numpy() > fitted.limit).sum() <= refused
    assert (fitted.distances(evaluation).numpy() > fitted.limit).sum() >= refused - 1


@pytest.mark.parametrize("count", [1, 3])
def test_a_few_photos_are_enough_for_a_guard(count: int) -> None:
    """There are fewer photos than features."""
    fitted = guard.fit(photos(count), photos(1), 0.02)
    assert np.isfinite(fitted.distances(photos(5))).all()
    assert np.isfinite(fitted.limit)


def test_features_that_are_always_zero_do_no_harm() -> None:
    """A ReLU may be dead for all training photos."""
    train = np.concatenate([photos(50), np.zeros((50, 5), np.float32)], axis=1)
    fitted = guard.fit(train, train, 0.0)
    assert (fitted.distances(train).numpy() <= fitted.limit).all()
    awake = train.copy()
    awake[:, -1] = 5
    assert (fitted.distances(awake).numpy() > fitted.limit).all()
