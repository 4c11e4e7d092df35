"""Drawn photos in which the finder finds the face."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipeline.sample.draw import draw_photo

AGES = (8, 23, 37, 52)


@pytest.fixture(scope="session")
def portraits() -> list[Image.Image]:
    """Squares of 240 × 240 pixels with a drawn face that fills most of them."""
    photos = [draw_photo(np.random.default_rng(age), age, female=False) for age in AGES]
    squares = [photo.crop(_middle(photo.size)) for photo in photos]
    return [square.resize((240, 240), Image.Resampling.BICUBIC) for square in squares]


def _middle(size: tuple[int, int]) -> tuple[int, int, int, int]:
    side = min(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    return left, top, left + side, top + side
