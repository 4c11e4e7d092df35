"""Picture files and EXIF orientations. The client's tests use this module without TensorFlow."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from PIL import ExifTags, Image

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


def told(picture: bytes, text: bytes) -> bytes:
    """A JPEG or PNG with a text in each kind of metadata and behind the picture; else the file."""
    if picture.startswith(b"\x89PNG"):
        return picture[:33] + _chunk(b"tEXt", b"Comment\0" + text) + picture[33:] + text
    if not (picture.startswith(b"\xff\xd8") and picture.endswith(b"\xff\xd9")):
        return picture
    tags = Image.Exif()
    tags[ExifTags.Base.BodySerialNumber] = text.decode()
    segments = (
        (0xFE, text),
        (0xE1, b"Exif\0\0" + tags.tobytes()),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>" + text),
        (0xE2, b"ICC_PROFILE\0\1\1" + text),
    )
    place = picture.index(b"\xff\xdb")  # after the metadata that it has
    metadata = b"".join(jpeg_segment(kind, body) for kind, body in segments)
    second = encoded(Image.new("RGB", (8, 8)), comment=text)  # phones put a video there, too
    return picture[:place] + metadata + picture[place:] + second


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, color: int, data: bytes) -> bytes:
    """A PNG whose header and compressed data may contradict each other."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


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
