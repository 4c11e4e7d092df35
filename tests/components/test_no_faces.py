"""The drawn pictures: what they show, and that they are the same each time."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from components import no_faces
from tests.components.trainer import tiny


@pytest.mark.parametrize("kind", no_faces.DRAWN)
def test_a_kind_has_different_pictures_that_are_the_same_each_time(kind: str) -> None:
    pictures = no_faces.drawn(kind, 8)
    assert [image.tobytes() for image in pictures] == [
        image.tobytes() for image in no_faces.drawn(kind, 8)
    ]
    assert len({image.tobytes() for image in pictures}) == 8
    assert {image.size for image in pictures} == set(no_faces.SIZES)


def test_only_a_flat_colour_has_no_detail() -> None:
    def spread(kind: str) -> float:
        return min(float(np.asarray(image).std()) for image in no_faces.drawn(kind, 8))

    flat = [np.ptp(np.asarray(image), (0, 1)).max() for image in no_faces.drawn("flat colour", 8)]
    assert flat == [0] * 8
    assert all(spread(kind) > 3 for kind in no_faces.DRAWN if kind != "flat colour")


def test_a_photo_is_turned_and_cut() -> None:
    photo = tiny.photo((50, 40), 30, seed=0)  # its left third is reddish
    turned = _redness(no_faces.upside_down(photo))
    assert turned.shape == (50, 40)
    assert turned[:, -13:].mean() > turned[:, :-13].mean() + 40
    half = _redness(no_faces.half(photo))
    assert half.shape == (50, 20)
    assert half.mean() < 10


def _redness(jpeg: bytes) -> np.ndarray:
    pixels = np.asarray(Image.open(io.BytesIO(jpeg))).astype(float)
    return pixels[..., 0] - pixels[..., 1]
