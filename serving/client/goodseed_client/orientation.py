"""What makes a picture upright: the same at a till as for the training photos."""

from __future__ import annotations

from PIL import Image

# EXIF's orientation tag, and what makes a picture that carries it upright.
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation_of(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 where there is none, or where the metadata is damaged."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged metadata is no reason to refuse sound pixels
        return 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as it is to be seen; the very same object where it is upright already."""
    transpose = _UPRIGHT.get(orientation)
    return image if transpose is None else image.transpose(transpose)
