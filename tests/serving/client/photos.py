"""Drawn photos that the client accepts: sharp and well lit."""

from __future__ import annotations

import numpy as np
from PIL import Image


def picture(width: int = 240, height: int = 320, seed: int = 0) -> Image.Image:
    """Soft shades with sharp details; turned or mirrored, it looks different."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    shades = np.stack([90 + 80 * x / width, 60 + 120 * y / height, 120 - 60 * x / width], -1)
    coarse = rng.integers(-60, 61, (16, 12, 3)).astype(np.float32)
    rows, columns = (y * 16 // height).astype(int), (x * 12 // width).astype(int)
    return Image.fromarray((shades + coarse[rows, columns]).clip(0, 255).astype(np.uint8))


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with a few random changes: overwritten, removed, doubled or cut off."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        at, length = int(rng.integers(0, len(out) + 1)), int(rng.integers(1, 64))
        match rng.integers(0, 5):
            case 0:
                out[at : at + length] = rng.bytes(length)
            case 1:
                del out[at : at + length]
            case 2:
                out[at:at] = out[at : at + length]
            case 3:
                del out[at:]
            case 4:
                out[at : at + 1] = bytes([rng.integers(0, 256)])
    return bytes(out)
