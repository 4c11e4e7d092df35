"""The segments of a JPEG file: which of them the pixels depend on."""

from __future__ import annotations

import re

_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended and progressive, all Huffman
_TABLES = frozenset({0xC4, 0xDB, 0xDD})  # Huffman, quantization, restart interval
_METADATA = frozenset({*range(0xE0, 0xF0), 0xFE})  # APP0 to APP15, and comments

_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)  # it may have more bytes FF in front
# The first marker after a scan: any but byte stuffing and restarts, which are parts of a scan.
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)

# What tells a decoder how the colours are stored: APP0 if it is there, the last byte of APP14.
_JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"


def without_metadata(data: bytes) -> bytes | None:
    """The same picture as a JPEG without metadata, or None if the file is of another kind.

    The frame, the tables and the scans stay as they are, so the pixels do too. Comments, EXIF, XMP,
    colour profiles and thumbnails go, and all that follows the picture.

    Args:
        data: any bytes.

    Returns:
        None if this is not a baseline or progressive JPEG in Huffman coding, or if it is damaged:
        some decoders read these, and some refuse them.
    """
    kept = [bytes((0xFF, _START_OF_IMAGE))]
    place = len(kept[0])
    framed = scanned = False
    if not data.startswith(kept[0]):
        return None
    while marker := _MARKER.match(data, place):
        kind, start = marker[1][0], marker.end()
        if kind == _END_OF_IMAGE:
            return b"".join((*kept, b"\xff", marker[1])) if scanned else None
        place = start + int.from_bytes(data[start : start + 2], "big")
        if not start + 2 <= place <= len(data):
            return None
        if kind in _METADATA:
            kept.append(_about_colours(kind, data[start + 2 : place]))
            continue
        kept.append(b"\xff" + data[start - 1 : place])
        if kind in _FRAMES and not framed:
            framed = True
        elif kind == _START_OF_SCAN and framed:
            scanned, scan = True, place
            if not (after := _AFTER_SCAN.search(data, scan)):
                return None
            place = after.start()
            kept.append(data[scan:place].rstrip(b"\xff"))  # these bytes belong to the marker
        elif kind not in _TABLES:
            return None
    return None


def _about_colours(kind: int, body: bytes) -> bytes:
    """What stays of a segment of metadata: how the colours are stored, if it says that."""
    if kind == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 14:
        return _JFIF
    if kind == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
        return _ADOBE + body[11:12]
    return b""
