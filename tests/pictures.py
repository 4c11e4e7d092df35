"""Picture files and EXIF orientations. The client's tests use this module without TensorFlow."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

ORIENTATION = 0x0112  # EXIF's tag


def encoded(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    """The bytes of a picture file."""
    out = BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def exif(orientation: int) -> Image.Exif:
    """EXIF metadata with an orientation only."""
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def as_stored(upright: Image.Image, orientation: int) -> Image.Image:
    """The picture as a camera in this orientation stores it."""
    pixels = np.asarray(upright)
    turned = pixels.swapaxes(0, 1)
    stored = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: turned,
        6: turned[::-1],
        7: turned[::-1, ::-1],
        8: turned[:, ::-1],
    }[orientation]
    return Image.fromarray(np.ascontiguousarray(stored))


def png(width: int, height: int, depth: int, color: int, data: bytes) -> bytes:
    """A PNG whose header and compressed data may contradict each other."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
