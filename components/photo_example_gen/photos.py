"""One picture file in, an upright RGB JPEG and facts about it out."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import stat
import warnings
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from components.photo_example_gen.rejects import Reason, Rejected

# What is opened, whatever a file's name says. Left out are formats that run other programs (EPS,
# WMF), that hold documents (PDF, PSD) or that no camera, phone or scanner writes.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF")

JPEG_QUALITY = 95  # with 4:4:4 chroma: of pictures that have to be encoded anew

# JPEG's markers; the last are all but stuffing, restarts, and what precedes a further scan.
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
_FOREIGN_TO_SCANS = re.compile(rb"\xff[^\x00\xff\xd0-\xd7\xc4\xda\xdb\xdd]", re.DOTALL)

_MAX_BYTES_PER_PIXEL = 8  # of any picture file: 16-bit RGBA, uncompressed
_MAX_METADATA_BYTES = 2**24
_STRIP_PIXELS = 2**20  # measured at a time, so that measuring a large picture takes little memory
_SUMMED = 2048  # at a time: of squared Laplacians, at most (4 × 255)², so many fit into 32 bits

# Pillow's own limit warns, or forbids what max_pixels allows: `read` compares sizes itself. Its
# other warnings are about metadata that nobody reads here.
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", module=r"PIL\.")

real_folder = functools.lru_cache(maxsize=1024)(os.path.realpath)  # asked for each of its photos


@dataclass(frozen=True, slots=True)
class Photo:
    """An upright RGB JPEG, and what was found on disk."""

    jpeg: bytes
    photo_id: str  # SHA-256, in hex, of the decoded upright RGB pixels and their size
    width: int  # pixels, before it was made upright; of a TIFF, which Pillow turns itself, after
    height: int
    format: str  # as Pillow names it
    mode: str  # as Pillow names it
    brightness: float  # mean luma, 0 to 1
    sharpness: float  # variance of the Laplacian of luma (luma 0 to 255)


def read(path: str, folder: str, max_pixels: int) -> Photo:
    """The photo in a file, whatever bytes the file holds.

    Args:
        path: where the file is said to be.
        folder: the folder, without symbolic links, that the file must lie in.
        max_pixels: width × height above which a picture is refused before it is decoded.

    Raises:
        Rejected: the picture is missing, outside the folder, unreadable or too large. Nothing
            else is raised, whatever the file holds.
    """
    data = _bytes(path, folder, max_pixels)
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            return _photo(image, data, max_pixels)
    except Rejected:
        raise
    except UnidentifiedImageError:
        raise Rejected(Reason.UNREADABLE, f"none of {', '.join(FORMATS)}") from None
    except Exception as error:  # Pillow raises nearly anything on bytes that are no picture
        raise Rejected(Reason.UNREADABLE, f"{type(error).__name__}: {error}") from None


def _bytes(path: str, folder: str, max_pixels: int) -> bytes:
    try:
        if not _real(path).startswith(folder + os.sep):
            raise Rejected(Reason.OUTSIDE, "a symbolic link that leads out")
        # A pipe would otherwise wait for somebody to write to it.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise Rejected(Reason.MISSING, "not a regular file")
            if status.st_size > max_pixels * _MAX_BYTES_PER_PIXEL + _MAX_METADATA_BYTES:
                raise Rejected(Reason.UNREADABLE, f"{status.st_size:,} bytes are no photo")
            return os.read(file, status.st_size)
        finally:
            os.close(file)
    except PermissionError as error:
        raise Rejected(Reason.UNREADABLE, str(error.strerror)) from None
    except OSError as error:
        raise Rejected(Reason.MISSING, str(error.strerror)) from None
    except ValueError as error:  # a NUL, or characters that no file's name can hold
        raise Rejected(Reason.MISSING, str(error)) from None


def _real(path: str) -> str:
    """The path without symbolic links; those of a folder are looked up once."""
    if os.path.islink(path):
        return os.path.realpath(path)
    folder, name = os.path.split(path)
    return os.path.join(real_folder(folder), name)


def _photo(image: Image.Image, data: bytes, max_pixels: int) -> Photo:
    (width, height), mode = image.size, image.mode
    if width * height > max_pixels:
        detail = f"{width} × {height}; max_pixels is {max_pixels:,}"
        raise Rejected(Reason.TOO_MANY_PIXELS, detail)
    image.load()
    turned = _make_upright(image)
    photo = _rgb(image)
    kept = photo is image and not turned and image.format == "JPEG" and _is_plain(data)
    luma = np.asarray(photo.convert("L"))
    return Photo(
        jpeg=data if kept else _encode(photo),
        photo_id=_photo_id(photo),
        width=width,
        height=height,
        format=image.format or "",
        mode=mode,
        brightness=_sum(luma) / luma.size / 255,
        sharpness=_sharpness(luma),
    )


def _make_upright(image: Image.Image) -> bool:
    """Turns the picture as its EXIF data says; tells whether it was stored turned or mirrored."""
    orientation = 1
    with contextlib.suppress(Exception):  # the pixels may be sound where the EXIF data is damaged
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        ImageOps.exif_transpose(image, in_place=True)
    return orientation in range(2, 9)


def _rgb(image: Image.Image) -> Image.Image:
    """The picture's colours as 8-bit RGB; what is transparent shows white."""
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


def _is_plain(data: bytes) -> bool:
    """Whether a JPEG is nothing but header, scans and the end-of-image marker at its end.

    What else may follow the first scan's start is damage, or a trailer: decoders disagree on it,
    some skip it and some refuse the picture.
    """
    place = 2
    while data[place : place + 2] != _START_OF_SCAN:
        if data[place : place + 1] != b"\xff":
            return False
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    foreign = _FOREIGN_TO_SCANS.search(data, place)
    return foreign is not None and data[foreign.start() :] == _END_OF_IMAGE


def _encode(upright: Image.Image) -> bytes:
    upright.info.clear()  # comments and the like are not the photo's
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


def _sum(values: np.ndarray) -> int:
    """The exact sum of lumas, Laplacians or squared Laplacians.

    numpy's own would make each of them 64 bits wide, which takes twice as long.
    """
    parts = np.add.reduceat(values.ravel(), range(0, values.size, _SUMMED), dtype=np.int32)
    return int(parts.sum())


def _sharpness(luma: np.ndarray) -> float:
    """Variance of the 4-neighbour Laplacian of uint8 luma [height, width]; exact sums."""
    height, width = luma.shape
    if height < 3 or width < 3:
        return 0.0
    total = squares = 0
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height - 2, rows):
        # Row after row in one line, which is twice as fast as in a rectangle: the neighbours of the
        # first and the last column are wrong, and these don't count.
        strip = luma[top : top + rows + 2].astype(np.int16).ravel()
        laplacian = strip[width:-width] << 2
        for ahead in (0, width - 1, width + 1, 2 * width):
            laplacian -= strip[ahead : ahead + len(laplacian)]
        laplacian.reshape(-1, width)[:, :: width - 1] = 0
        total += _sum(laplacian)
        squares += _sum(np.square(laplacian, dtype=np.int32))
    count = (height - 2) * (width - 2)
    return squares / count - (total / count) ** 2
