"""One preprocessing: square, small, and the same for any photo that a till could send."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from apache_beam.io.filesystems import FileSystems
from PIL import Image

from components import transform
from components.transform import decode_squares, square_jpeg


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def squared(photo: bytes, size: int = 32) -> np.ndarray:
    return np.asarray(
        decode_squares(tf.stack([square_jpeg(tf.constant(photo), size, 95)]), size)[0]
    )


@pytest.mark.parametrize("shape", [(200, 200), (300, 100), (100, 300), (1, 1), (7, 2000)])
def test_any_shape_becomes_the_square(shape: tuple[int, int]) -> None:
    grey = np.full((*shape, 3), 128, np.uint8)
    assert np.abs(squared(encoded(grey)).astype(int) - 128).max() <= 1


def test_the_centre_is_kept() -> None:
    wide = np.zeros((90, 270, 3), np.uint8)
    wide[:, 90:180] = (200, 100, 50)
    assert np.abs(squared(encoded(wide))[:, 2:-2].astype(int) - (200, 100, 50)).max() <= 4


def test_it_is_pillows_antialiased_bilinear_resize() -> None:
    """Pillow's reducing bilinear filter is the reference for an antialiased resize."""
    photo = Image.effect_noise((160, 160), 80).convert("RGB")
    ours = squared(encoded(np.asarray(photo)), 64).astype(int)
    theirs = np.asarray(photo.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(ours - theirs).mean() < 2.5  # noise is the worst that a JPEG can store


@pytest.mark.parametrize("side", [1, 2, 31, 32, 33, 63, 200, 517])
def test_it_is_tensorflows_resize(side: int) -> None:
    pixels = np.random.default_rng(side).integers(0, 256, (side, side + 4, 3), np.uint8)
    whole = tf.image.resize(pixels[:, 2:-2], (32, 32), method="bilinear", antialias=True)
    ours = transform._resized(tf.constant(pixels[:, 2:-2]), 32)
    np.testing.assert_allclose(ours, whole, rtol=0, atol=1e-3)


@pytest.mark.parametrize("side", range(1, 300, 7))
def test_white_stays_in_range(side: int) -> None:
    """A little above 255.5 would be black."""
    white = tf.fill((side, side, 3), tf.constant(255, tf.uint8))
    np.testing.assert_allclose(transform._resized(white, 32), 255, rtol=0, atol=1e-3)


def test_squares_are_small_jpegs() -> None:
    photo = Image.effect_noise((200, 200), 40).convert("RGB")
    jpeg = square_jpeg(tf.constant(encoded(np.asarray(photo))), 96, 92).numpy()
    assert Image.open(io.BytesIO(jpeg)).size == (96, 96)
    assert len(jpeg) < 96 * 96 * 3 / 2


def test_what_the_step_writes_is_stored(tmp_path: Path) -> None:
    def written(name: str) -> bytes:
        with FileSystems.create(str(tmp_path / name)) as file:
            file.write(bytes(9_000))
        return (tmp_path / name).read_bytes()

    with transform._stored():
        stored = written("step.gz")
    assert gzip.decompress(stored) == bytes(9_000)
    assert len(stored) > 9_000 > 900 > len(written("another_steps.gz"))
