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


def jpeg_segment(kind: int, body: bytes) -> bytes:
    """A segment of a JPEG, by the last byte of its marker."""
    return bytes((0xFF, kind)) + struct.pack(">H", len(body) + 2) + body


def lossless_jpeg(image: Image.Image) -> bytes:
    """The RGB picture as a lossless JPEG (SOF3): Pillow reads it, and TensorFlow does not."""
    pixels = np.asarray(image).astype(int)
    guess = np.roll(pixels, 1, axis=1)  # the pixel on the left, or above at the left edge
    guess[1:, 0], guess[0, 0] = pixels[:-1, 0], 128
    bits = ""
    for step in (pixels - guess).ravel().tolist():
        length = abs(step).bit_length()  # the Huffman code of a length has 4 bits and its value
        bits += f"{length:04b}"
        bits += f"{step if step > 0 else step + (1 << length) - 1:0{length}b}" if length else ""
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    height, width, _ = pixels.shape
    parts = b"".join(bytes((name, 0x11, 0)) for name in b"RGB")
    return b"".join(
        (
            b"\xff\xd8",
            jpeg_segment(0xEE, b"Adobe\0\x64\0\0\0\0\0"),  # RGB
            jpeg_segment(0xC3, struct.pack(">BHHB", 8, height, width, 3) + parts),
            jpeg_segment(0xC4, bytes((0, 0, 0, 0, 9, *[0] * 12, *range(9)))),
            jpeg_segment(0xDA, bytes((3, *b"R\0G\0B\0", 1, 0, 0))),
            scan,
            b"\xff\xd9",
        )
    )
