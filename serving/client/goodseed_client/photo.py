"""Any photo that a till may have, as the small upright JPEG that leaves it."""

from __future__ import annotations

import os
import stat
from io import BytesIO
from os import PathLike

import numpy as np
from PIL import Image

from goodseed_client.advice import Failure, Reason
from goodseed_client.orientation import orientation_of, upright

Photo = str | PathLike[str] | bytes | bytearray | memoryview | Image.Image | np.ndarray

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")

MAX_SIDE = 512  # pixels of the longer side that leave the till; networks here see at most 224
MAX_BYTES = 60_000  # of the JPEG that leaves the till
# Of that JPEG: the first that makes it small enough. Better ones bring no age nearer to that of the
# photo as it was: 0.46 years apart on average at 95 and at 100 (256 faces of 200 × 200 pixels).
_QUALITIES = (95, 85, 70, 50, 30)

# What is refused unseen, whatever a till's camera may be: 50 megapixels take 150 MB.
MAX_PIXELS = 50_000_000
_MAX_FILE_BYTES = 64 * 2**20
# A progressive JPEG has some ten scans, and each may take as long as decoding the whole photo.
_START_OF_SCAN, _MAX_SCANS = b"\xff\xda", 64

# The bounds of a usable photo, measured on its centre square (all that the model looks at) in
# _MEASURED × _MEASURED pixels of luma, 0 to 255. One of 6,000 real faces of 200 × 200 pixels is
# refused. Of the same faces, darkened to a fifth of their luma, all are; at four times their luma
# (clipped), nine of ten; blurred by a Gaussian of 3 pixels, eight of ten, and of 4 to 15, all.
_MEASURED = 100
MIN_SIDE = 64  # pixels of the shorter side as sent
MIN_WHITE_POINT = 70  # the luma that 5 % of the pixels exceed: dark skin is no darkness
MAX_CLIPPED = 0.4  # the share of pixels from luma 250
# Energy of the Laplacian over that of the gradient; contrast and brightness cancel out.
MIN_SHARPNESS = 0.23


def prepare(photo: Photo) -> bytes:
    """An upright RGB JPEG of at most MAX_SIDE pixels and MAX_BYTES bytes, without metadata.

    Args:
        photo: a path, the bytes of a picture file, a Pillow image, or a frame: uint8, RGB
            [height, width, 3] or grey [height, width] (of OpenCV's BGR frames: `frame[..., ::-1]`).

    Raises:
        Failure: TINY, DARK, OVEREXPOSED or BLURRED, or BAD_PHOTO for anything else that is amiss.
            Nothing else is raised, whatever the bytes are.
    """
    try:
        with _open(photo) as image:
            small = _small(image)
        _judge(small)
        return _encode(small)
    except Failure:
        raise
    except Exception as error:  # Pillow raises nearly anything on bytes that are no picture
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
            raise TypeError(f"a photo is no {type(photo).__name__}")
    if len(data) > _MAX_FILE_BYTES:
        raise Failure(Reason.BAD_PHOTO, f"{len(data):,} bytes are no photo of a till")
    if data.count(_START_OF_SCAN) > _MAX_SCANS:
        raise Failure(Reason.BAD_PHOTO, f"a JPEG of more than {_MAX_SCANS} scans")
    return Image.open(BytesIO(data), formats=FORMATS)


def _frame(frame: np.ndarray) -> Image.Image:
    if frame.dtype != np.uint8 or frame.ndim not in (2, 3) or frame.shape[2:] not in ((), (3,)):
        raise TypeError(f"a frame is uint8 [h, w, 3] or [h, w], no {frame.dtype} {frame.shape}")
    return Image.fromarray(frame)


def _read(path: str | PathLike[str]) -> bytes:
    with open(path, "rb", opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Failure(Reason.BAD_PHOTO, f"{os.fspath(path)} is no regular file")
        return file.read(_MAX_FILE_BYTES + 1)


def _open_without_waiting(path: str, flags: int) -> int:
    """Opens a file; one that is a pipe does not wait for somebody to write to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # which Windows lacks


def _small(image: Image.Image) -> Image.Image:
    """The photo in RGB, upright and no larger than it leaves the till."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise Failure(Reason.BAD_PHOTO, f"{width} × {height} pixels are more than a photo has")
    scale = min(1, MAX_SIDE / max(width, height))
    size = (round(width * scale), round(height * scale))
    if min(size) < MIN_SIDE:
        raise Failure(Reason.TINY, f"{width} × {height} pixels")
    image.draft(None, size)  # of a large JPEG, only the coarse part is decoded
    image.load()
    orientation = orientation_of(image)
    small = _colours(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    if small.mode == "RGBA":  # what is transparent shows white, as in the training photos
        white = Image.new("RGBA", small.size, "white")
        small = Image.alpha_composite(white, small).convert("RGB")
    return upright(small, orientation)


def _colours(image: Image.Image) -> Image.Image:
    """The picture in RGB, or in RGBA where some of it is transparent."""
    if image.mode.startswith(("I", "F")):
        raise Failure(Reason.BAD_PHOTO, f"mode {image.mode}: a photo has 8 bits a colour")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _judge(small: Image.Image) -> None:
    """Refuses a photo on which nobody's age could be seen."""
    luma = _centre_luma(small)
    white_point, clipped, sharpness = measure(luma)
    if white_point < MIN_WHITE_POINT:
        raise Failure(Reason.DARK, f"95 % of the photo is darker than {white_point:.0f} of 255")
    if clipped > MAX_CLIPPED:
        raise Failure(Reason.OVEREXPOSED, f"{clipped:.0%} of the photo is white")
    if sharpness < MIN_SHARPNESS:
        raise Failure(Reason.BLURRED, f"sharpness {sharpness:.2f}, below {MIN_SHARPNESS}")


def _centre_luma(small: Image.Image) -> np.ndarray:
    """The centre square in luma, float32 of at most [_MEASURED, _MEASURED]."""
    side = min(small.size)
    left, top = (small.width - side) // 2, (small.height - side) // 2
    measured = (min(side, _MEASURED),) * 2
    luma = small.convert("L").convert("F")
    box = (left, top, left + side, top + side)
    return np.asarray(luma.resize(measured, Image.Resampling.BOX, box))


def measure(luma: np.ndarray) -> tuple[float, float, float]:
    """White point, clipped share and sharpness of float32 luma [height, width], 0 to 255."""
    inner = luma[1:-1, 1:-1]
    laplacian = 4 * inner - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:]
    gradient = np.square(np.diff(luma, axis=0)).mean() + np.square(np.diff(luma, axis=1)).mean()
    return (
        float(np.percentile(luma, 95)),
        float((luma >= 250).mean()),
        float(laplacian.var() / (gradient + 5)),  # 5: nor are the traces of rounding sharp
    )


def _encode(small: Image.Image) -> bytes:
    small.info.clear()  # comments and the like stay at the till
    for quality in _QUALITIES:
        out = BytesIO()
        small.save(out, "JPEG", quality=quality, subsampling=0 if quality == 95 else 2)
        if out.tell() <= MAX_BYTES:
            return out.getvalue()
    return _encode(small.reduce(2))  # noise, which no quality makes small
