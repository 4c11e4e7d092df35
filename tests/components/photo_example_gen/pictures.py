"""Tiny pictures."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image


def noise(seed: int = 0, width: int = 12, height: int = 8) -> Image.Image:
    """An RGB picture that no other seed gives."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def smooth(width: int = 64, height: int = 48) -> Image.Image:
    """A picture that JPEG hardly changes. Each rotation of it looks different."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 3, y * 4, x + y], -1).astype(np.uint8))


def decoded(data: bytes) -> Image.Image:
    """The image in a picture file."""
    return Image.open(BytesIO(data))
