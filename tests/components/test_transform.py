"""The preprocessing: a square of the right size, for photos of any shape, and its mirror image."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.transform import decode_squares, mirror, preprocessing_fn, square_jpeg
from pipeline import config
from pipeline.sample.draw import draw_photo
from schemas import features
from tests.pictures import encoded


def squared(pixels: np.ndarray, size: int = 32) -> np.ndarray:
    photo = tf.constant(encoded(Image.fromarray(pixels), "PNG"))
    knobs = config.Transform(image_size=size, jpeg_quality=95, face="as_is")
    jpeg, objection = square_jpeg(photo, knobs)
    assert objection == b""
    return np.asarray(decode_squares(jpeg[None], size)[0])


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
    knobs = config.Transform(image_size=96, face="as_is")
    jpeg = square_jpeg(tf.constant(encoded(photo, "PNG")), knobs)[0].numpy()
    assert Image.open(io.BytesIO(jpeg)).size == (96, 96)
    assert len(jpeg) < 96 * 96 * 3 / 2


def test_the_face_is_found_and_the_objection_is_beside_it() -> None:
    face = draw_photo(np.random.default_rng(8), 8, female=False)
    photos = [encoded(picture) for picture in (face, Image.new("RGB", (200, 200), "navy"))]
    columns = {
        features.IMAGE: tf.constant(photos),
        features.AGE: tf.constant([8.0, 0.0]),
        features.FILE_NAME: tf.constant(["face.jpg", "navy.jpg"]),
        features.PHOTO_ID: tf.constant(["1", "2"]),
    }
    found, as_is = (
        preprocessing_fn(columns, config.Transform(image_size=32, face=face).model_dump())
        for face in ("find", "as_is")
    )
    assert tuple(sorted(found)) == tuple(sorted(features.TRANSFORMED_FEATURES))
    assert found[features.OBJECTION].numpy().tolist() == [b"", b"no_face"]
    assert as_is[features.OBJECTION].numpy().tolist() == [b"", b""]
    one, other = found[features.IMAGE].numpy(), as_is[features.IMAGE].numpy()
    assert one[0] != other[0]
    assert one[1] == other[1]
    assert found[features.FILE_NAME].numpy().tolist() == [b"face.jpg", b"navy.jpg"]


def test_some_pictures_are_mirrored() -> None:
    pictures = tf.constant(np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8))
    plain, flipped = mirror(pictures, tf.constant([False, True])).numpy()
    np.testing.assert_array_equal(plain, pictures[0])
    np.testing.assert_array_equal(flipped, pictures[1].numpy()[:, ::-1])
