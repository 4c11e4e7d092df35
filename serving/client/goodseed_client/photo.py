"""Turns any photo of a till into the small upright JPEG that is sent."""

from __future__ import annotations

import contextlib
import math
import os
import stat
from collections.abc import Iterator
from io import BytesIO
from os import PathLike

import numpy as np
from PIL import Image, ImageOps, features

from goodseed_client.advice import Failure, Reason

Photo = str | PathLike[str] | bytes | bytearray | memoryview | Image.Image | np.ndarray

# What is a photo, at a till and in training: Pillow's names of the formats, and the ends of the
# files' names. Formats are left out that run other programs (EPS, WMF), that are documents (PDF,
# PSD) or that no camera or scanner writes. HEIC needs a plug-in for Pillow.
_ALWAYS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
_AVIF = "avif" in features.modules and features.check("avif")  # Pillow from 11.3 on
FORMATS = (*_ALWAYS, "AVIF") if _AVIF else _ALWAYS
SUFFIXES = frozenset(
    {
        ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff",
        ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif",
    }
)  # fmt: skip

# The JPEG that is sent.
MAX_SIDE = 1280  # pixels of the longer side; the models look for the face at this size
MAX_BYTES = 400_000
_QUALITIES = (95, 85, 70, 50, 30)  # the first that keeps MAX_BYTES; above 95, ages get no better

# Larger photos are refused before they are decoded, because decoding takes much memory.
MAX_PIXELS = 50_000_000
_MAX_FILE_BYTES = 64 * 2**20
# A normal progressive JPEG has about ten scans. Decoding each scan may take as long as decoding a
# whole photo, so a file with thousands of them would keep the till busy.
_START_OF_SCAN, _MAX_SCANS = b"\xff\xda", 64
_JPEG = b"\xff\xd8\xff"  # how each JPEG begins

# What a usable photo needs. The values are measured on the luma (0 to 255) of squares of the photo,
# resized to at most _MEASURED × _MEASURED pixels.
_MEASURED = 100
MIN_SIDE = 64  # pixels of the shorter side, as sent
MIN_WHITE_POINT = 70  # 95th percentile of luma; by the mean, people with dark skin are refused
MAX_CLIPPED = 0.4  # share of pixels with a luma of 250 or more
MIN_SHARPNESS = 0.23  # see `measure`


def prepare(photo: Photo) -> bytes:
    """An upright RGB JPEG of at most MAX_SIDE pixels a side and MAX_BYTES bytes, without metadata.

    Args:
        photo: a path, the bytes of a picture file, a Pillow image, or a frame: uint8, RGB
            [height, width, 3] or grey [height, width] (OpenCV has BGR: pass `frame[..., ::-1]`).

    Raises:
        Failure: TINY, DARK, OVEREXPOSED or BLURRED; BAD_PHOTO for any other problem. Nothing else
            is raised, whatever the bytes are.
    """
    try:
        with _open(photo) as image:
            small = _small(image)
        _judge(small)
        return _encode(small)
    except Failure:
        raise
    except Exception as error:  # damaged files make Pillow raise errors of many types
        raise Failure(Reason.BAD_PHOTO, f"{type(error).__name__}: {error}") from None


def _open(photo: Photo) -> Image.Image:
    match photo:
        case Image.Image():
            return photo.copy()
        case np.ndarray():
            return _frame(photo)
        case bytes() | bytearray() | memoryview():
            data = bytes(photo)
        case str() | PathLike():
            data = _read(photo)
        case _:
            raise TypeError(f"{type(photo).__name__} is not a photo")
    if len(data) > _MAX_FILE_BYTES:
        raise Failure(Reason.BAD_PHOTO, f"{len(data):,} bytes are too many for a photo")
    if data.startswith(_JPEG) and data.count(_START_OF_SCAN) > _MAX_SCANS:
        raise Failure(Reason.BAD_PHOTO, f"a JPEG with more than {_MAX_SCANS} scans")
    return Image.open(BytesIO(data), formats=FORMATS)


def _frame(frame: np.ndarray) -> Image.Image:
    if frame.dtype != np.uint8 or frame.ndim not in (2, 3) or frame.shape[2:] not in ((), (3,)):
        raise TypeError(f"a frame is uint8 [h, w, 3] or [h, w], not {frame.dtype} {frame.shape}")
    return Image.fromarray(frame)


def _read(path: str | PathLike[str]) -> bytes:
    with open(path, "rb", opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Failure(Reason.BAD_PHOTO, f"{os.fspath(path)} is not a regular file")
        return file.read(_MAX_FILE_BYTES + 1)


def _open_without_waiting(path: str, flags: int) -> int:
    """Opens a file. If it is a pipe, the call does not wait until another process writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # Windows does not have it


def _small(image: Image.Image) -> Image.Image:
    """The photo in RGB, upright, and as small as it is sent."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise Failure(Reason.BAD_PHOTO, f"{width} × {height} pixels are too many for a photo")
    scale = min(1, MAX_SIDE / max(width, height))
    size = (round(width * scale), round(height * scale))
    if min(size) < MIN_SIDE:
        raise Failure(Reason.TINY, f"{width} × {height} pixels")
    image.draft(None, size)  # decodes a large JPEG at a lower resolution
    image.load()
    small = _colours(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    with contextlib.suppress(Exception):  # the EXIF data may be damaged, and the pixels good
        ImageOps.exif_transpose(small, in_place=True)
    if small.mode == "RGBA":  # put it on white, as in the training photos
        white = Image.new("RGBA", small.size, "white")
        small = Image.alpha_composite(white, small).convert("RGB")
    return small


def _colours(image: Image.Image) -> Image.Image:
    """The photo in RGB, or in RGBA if it has transparency."""
    if image.mode.startswith(("I", "F")):
        raise Failure(Reason.BAD_PHOTO, f"mode {image.mode}: a photo has 8 bits per colour")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _judge(small: Image.Image) -> None:
    """Refuses a photo that does not show enough to see an age.

    The customer may stand anywhere in the photo, so one good square is enough.

    Raises:
        Failure: DARK, OVEREXPOSED or BLURRED: what is wrong with the middle square.
    """
    failures = []
    for luma in _squares(small):
        try:
            return _judge_square(luma)
        except Failure as failure:
            failures.append(failure)
    raise failures[len(failures) // 2]


def _judge_square(luma: np.ndarray) -> None:
    white_point, clipped, sharpness = measure(luma)
    if white_point < MIN_WHITE_POINT:
        raise Failure(Reason.DARK, f"95 % of the middle is darker than {white_point:.0f} of 255")
    if clipped > MAX_CLIPPED:
        raise Failure(Reason.OVEREXPOSED, f"{clipped:.0%} of the middle is white")
    if sharpness < MIN_SHARPNESS:
        raise Failure(Reason.BLURRED, f"sharpness {sharpness:.2f}, below {MIN_SHARPNESS}")


def _squares(small: Image.Image) -> Iterator[np.ndarray]:
    """The luma of squares that cover the photo: float32, at most [_MEASURED, _MEASURED].

    Their side is the photo's shorter side. Their number is odd, so one is in the middle.
    """
    side = min(small.size)
    measured = (min(side, _MEASURED),) * 2
    luma = small.convert("L").convert("F")
    count = math.ceil(max(small.size) / side) // 2 * 2 + 1
    for number in range(count):
        left, top = ((length - side) * number // max(1, count - 1) for length in small.size)
        box = (left, top, left + side, top + side)
        yield np.asarray(luma.resize(measured, Image.Resampling.BOX, box))


def measure(luma: np.ndarray) -> tuple[float, float, float]:
    """White point, clipped share and sharpness of float32 luma [height, width], 0 to 255.

    Sharpness is the variance of the Laplacian over the energy of the gradient. So it does not
    depend on contrast or brightness.
    """
    inner = luma[1:-1, 1:-1]
    laplacian = 4 * inner - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:]
    gradient = np.square(np.diff(luma, axis=0)).mean() + np.square(np.diff(luma, axis=1)).mean()
    return (
        float(np.percentile(luma, 95)),
        float((luma >= 250).mean()),
        float(laplacian.var() / (gradient + 5)),  # 5: rounding errors of a plain area are not sharp
    )


def _encode(small: Image.Image) -> bytes:
    small.info.clear()  # no comments or other metadata
    for quality in _QUALITIES:
        out = BytesIO()
        small.save(out, "JPEG", quality=quality, subsampling=0 if quality == 95 else 2)
        if out.tell() <= MAX_BYTES:
            return out.getvalue()
    return _encode(small.reduce(2))  # pure noise is too large at any quality
