"""Reads a picture file: an upright RGB JPEG, and facts about the picture."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import warnings
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import tensorflow as tf
from goodseed_client.photo import FORMATS
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from components.photo_example_gen import jpeg
from components.photo_example_gen.rejects import Reason, Rejected
from components.transform import decode_photo

JPEG_QUALITY = 95  # with 4:4:4 chroma; of a picture that is encoded again

_MAX_BYTES_PER_PIXEL = 8  # of a picture file: 16-bit RGBA without compression
_MAX_METADATA_BYTES = 2**24
_STRIP_PIXELS = 2**20  # pixels measured at a time, so that a large picture needs little memory


@dataclass(frozen=True, slots=True)
class Photo:
    """An upright RGB JPEG, and facts about the file."""

    jpeg: bytes  # without metadata
    photo_id: str  # SHA-256 in hex of the size and the decoded upright RGB pixels
    width: int  # pixels, in the file; of a TIFF, which Pillow turns when it loads it, upright
    height: int
    format: str  # as Pillow names it
    mode: str  # as Pillow names it
    brightness: float  # mean luma, 0 to 1
    sharpness: float  # variance of the Laplacian of luma (luma 0 to 255)


def read(path: str, max_pixels: int) -> Photo:
    """The photo in a file. The file may hold any bytes.

    Args:
        path: the file; the name of a file does not tell its format.
        max_pixels: the largest width × height that is decoded. Pillow has a limit of its own,
            twice `Image.MAX_IMAGE_PIXELS`, which stays in force.

    Raises:
        Rejected: the picture is missing, unreadable or too large. There is no other exception.
    """
    data = _bytes(path, max_pixels)
    try:
        with warnings.catch_warnings():
            # Pillow warns about metadata, which we drop, and about sizes, which `_photo` checks.
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                return _photo(image, data, max_pixels)
    except Rejected:
        raise
    except Image.DecompressionBombError as error:
        raise Rejected(Reason.TOO_MANY_PIXELS, f"Pillow: {error}") from None
    except UnidentifiedImageError:
        raise Rejected(Reason.UNREADABLE, f"none of {', '.join(FORMATS)}") from None
    except Exception as error:  # on damaged bytes Pillow may raise any exception
        raise Rejected(Reason.UNREADABLE, f"{type(error).__name__}: {error}") from None


def _bytes(path: str, max_pixels: int) -> bytes:
    try:
        # Without O_NONBLOCK, opening a pipe waits until another process writes to it.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise Rejected(Reason.MISSING, "not a regular file")
            if status.st_size > max_pixels * _MAX_BYTES_PER_PIXEL + _MAX_METADATA_BYTES:
                raise Rejected(Reason.UNREADABLE, f"{status.st_size:,} bytes are too many")
            return os.read(file, status.st_size)
        finally:
            os.close(file)
    except PermissionError as error:
        raise Rejected(Reason.UNREADABLE, str(error.strerror)) from None
    except OSError as error:
        raise Rejected(Reason.MISSING, str(error.strerror)) from None
    except ValueError as error:  # a NUL, or characters that no file name can hold
        raise Rejected(Reason.MISSING, str(error)) from None


def _photo(image: Image.Image, data: bytes, max_pixels: int) -> Photo:
    (width, height), mode = image.size, image.mode
    if width * height > max_pixels:
        detail = f"{width} × {height}; max_pixels is {max_pixels:,}"
        raise Rejected(Reason.TOO_MANY_PIXELS, detail)
    image.load()
    turned = _make_upright(image)
    photo = _rgb(image)
    is_jpeg = image.format in ("JPEG", "MPO")  # MPO: a JPEG with more pictures behind it
    kept = _kept(data) if is_jpeg and photo is image and not turned else None
    luma = np.asarray(photo.convert("L"))
    return Photo(
        jpeg=kept or _encode(photo),
        photo_id=_photo_id(photo),
        width=width,
        height=height,
        format=image.format or "",
        mode=mode,
        brightness=float(luma.mean()) / 255,
        sharpness=_sharpness(luma),
    )


def _make_upright(image: Image.Image) -> bool:
    """Turns the picture upright by its EXIF data. Returns whether it was turned or mirrored."""
    orientation = 1
    with contextlib.suppress(Exception):  # the EXIF data may be damaged, and the pixels good
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        ImageOps.exif_transpose(image, in_place=True)
    return orientation in range(2, 9)


def _rgb(image: Image.Image) -> Image.Image:
    """The picture as 8-bit RGB, on a white background."""
    if image.mode.startswith(("I", "F")):
        return _from_deep_grey(image).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """8-bit grey from grey of 16 or 32 bits (0 to 65,535) or of floats (0 to 1, or 0 to 255)."""
    grey = np.nan_to_num(np.asarray(image).astype(np.float32))
    if image.mode != "F":
        grey *= 255 / 65535
    elif grey.max() <= 1:
        grey *= 255
    return Image.fromarray(np.rint(grey.clip(0, 255)).astype(np.uint8))


def _kept(data: bytes) -> bytes | None:
    """The bytes of an upright RGB JPEG without its metadata; None if it must be encoded again.

    It must if Transform can't decode it: the steps after this one do not know the file's name.
    """
    stripped = jpeg.without_metadata(data)
    with contextlib.suppress(tf.errors.InvalidArgumentError):
        if stripped:
            decode_photo(stripped)
            return stripped
    return None


def _encode(upright: Image.Image) -> bytes:
    upright.info.clear()  # without comments and other metadata
    out = BytesIO()
    upright.save(out, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return out.getvalue()


def _photo_id(upright: Image.Image) -> str:
    width, height = upright.size
    digest = hashlib.sha256(b"%d %d\n" % (width, height))
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        whole = rows >= height
        box = (0, top, width, min(top + rows, height))
        digest.update((upright if whole else upright.crop(box)).tobytes())
    return digest.hexdigest()


def _sharpness(luma: np.ndarray) -> float:
    """Variance of the 4-neighbour Laplacian of uint8 luma [height, width], from exact sums."""
    height, width = luma.shape
    if height < 3 or width < 3:
        return 0.0
    total = squares = 0
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height - 2, rows):
        strip = luma[top : top + rows + 2].astype(np.int32)
        laplacian = 4 * strip[1:-1, 1:-1]
        laplacian -= strip[:-2, 1:-1] + strip[2:, 1:-1] + strip[1:-1, :-2] + strip[1:-1, 2:]
        total += int(laplacian.sum(dtype=np.int64))
        squares += int(np.square(laplacian).sum(dtype=np.int64))
    count = (height - 2) * (width - 2)
    return squares / count - (total / count) ** 2
