"""The preprocessing: a square of the right size, for photos of any shape."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.transform import decode_squares, square_jpeg
from tests.pictures import encoded


def squared(pixels: np.ndarray, size: int = 32) -> np.ndarray:
    photo = encoded(Image.fromarray(pixels), "PNG")
    return np.asarray(
        decode_squares(tf.stack([square_jpeg(tf.constant(photo), size, 95)]), size)[0]
    )


@pytest.mark.parametrize("shape", [(200, 200), (300, 100), (100, 300), (1, 1), (7, 2000)])
def test_any_shape_becomes_the_square(shape: tuple[int, int]) -> None:
    grey = np.full((*shape, 3), 128, np.uint8)
    assert np.abs(squared(grey).astype(int) - 128).max() <= 1


def test_the_centre_is_kept() -> None:
    wide = np.zeros((90, 270, 3), np.uint8)
    wide[:, 90:180] = (200, 100, 50)
    assert np.abs(squared(wide)[:, 2:-2].astype(int) - (200, 100, 50)).max() <= 4


def test_it_resizes_like_pillow() -> None:
    """The reference for a bilinear resize with antialiasing is Pillow."""
    photo = Image.effect_noise((160, 160), 80).convert("RGB")
    ours = squared(np.asarray(photo), 64).astype(int)
    theirs = np.asarray(photo.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(ours - theirs).mean() < 2.5  # JPEG changes noise more than other pictures


@pytest.mark.parametrize("side", [1, 2, 31, 33, 94, 300])
def test_white_stays_white(side: int) -> None:
    """A weighted mean slightly above 255.5 would become black."""
    white = np.full((side, side, 3), 255, np.uint8)
    np.testing.assert_array_equal(squared(white), 255)


def test_squares_are_small_jpegs() -> None:
    photo = Image.effect_noise((200, 200), 40).convert("RGB")
    jpeg = square_jpeg(tf.constant(encoded(photo, "PNG")), 96, 92).numpy()
    assert Image.open(io.BytesIO(jpeg)).size == (96, 96)
    assert len(jpeg) < 96 * 96 * 3 / 2
