"""Drawn pictures that are no faces.

No model should give an age for them. A kind's pictures are the same in each call.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIZES = ((200, 200), (320, 240), (240, 320), (640, 480))  # (width, height), pixels
Size = tuple[int, int]


def noise(size: Size, rng: np.random.Generator) -> Image.Image:
    """Random pixels or patches, in colour or grey, of any value or only black and white."""
    width, height = size
    patch = int(rng.choice([1, 1, 4, 16]))  # pixels
    shape = (-(-height // patch), -(-width // patch), rng.choice([1, 3]))
    if rng.random() < 0.3:
        pixels = rng.integers(0, 2, shape) * 255
    elif rng.random() < 0.5:
        pixels = rng.integers(0, 256, shape)
    else:
        pixels = rng.normal(128, 40, shape).clip(0, 255)
    patches = np.broadcast_to(pixels, (*shape[:2], 3)).repeat(patch, 0).repeat(patch, 1)
    return _image(patches[:height, :width])


def flat(size: Size, rng: np.random.Generator) -> Image.Image:
    """One colour."""
    return Image.new("RGB", size, _colour(rng))


def gradient(size: Size, rng: np.random.Generator) -> Image.Image:
    """From one colour to another: along a line, or from a point outwards."""
    x, y = _grid(size)
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        way = x * np.cos(angle) + y * np.sin(angle)
    else:
        way = np.hypot(x - rng.random(), y - rng.random())
    return _between(way, _colour(rng), _colour(rng))


def text(size: Size, rng: np.random.Generator) -> Image.Image:
    """Lines of words and prices, like a receipt."""
    image = Image.new("RGB", size, _colour(rng, 200, 256))
    draw = ImageDraw.Draw(image)
    height = int(rng.integers(10, 28))  # of a line, pixels
    font = ImageFont.load_default(height)
    for top in range(4, size[1], round(height * 1.3)):
        word = "".join(rng.choice(list("abcdefghijklmnoprstuvwz"), rng.integers(4, 14)))
        draw.text((6, top), word.title(), _colour(rng, 0, 60), font)
        price = f"{rng.integers(0, 100)}.{rng.integers(0, 100):02d}"
        draw.text((size[0] - 6, top), price, _colour(rng, 0, 60), font, anchor="ra")
    return image


def wall(size: Size, rng: np.random.Generator) -> Image.Image:
    """One colour, lit from one side, with a camera's grain; some have tiles."""
    x, y = _grid(size)
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 + rng.uniform(0.1, 0.4) * (x * np.cos(angle) + y * np.sin(angle))
    pixels = np.array(_colour(rng, 90, 220)) * light[..., None]
    if rng.random() < 0.5:
        tile = rng.uniform(0.1, 0.4)  # share of the width
        pixels[(x % tile < 0.01) | (y % tile < 0.01)] *= 0.7
    return _image((pixels + rng.normal(0, 3, pixels.shape)).clip(0, 255))


def shelf(size: Size, rng: np.random.Generator) -> Image.Image:
    """Rows of bottles with caps and labels."""
    width, height = size
    image = Image.new("RGB", size, _colour(rng, 120, 230))
    draw = ImageDraw.Draw(image)
    rows = int(rng.integers(1, 4))
    for row in range(1, rows + 1):
        floor, tall = row * height / rows - 6, height / rows - 12
        draw.rectangle((0, floor, width, floor + 6), _colour(rng, 60, 140))
        wide = tall * rng.uniform(0.25, 0.4)
        for left in np.arange(4, width, wide * 1.15):
            _bottle(draw, left, floor, wide, tall * rng.uniform(0.75, 1), rng)
    return image


def _bottle(
    draw: ImageDraw.ImageDraw,
    left: float,
    floor: float,
    wide: float,
    tall: float,
    rng: np.random.Generator,
) -> None:
    def box(x0: float, y0: float, x1: float, y1: float, colour: tuple[int, int, int]) -> None:
        """A box in shares of the bottle, from its left and its floor."""
        corners = (left + x0 * wide, floor - y1 * tall, left + x1 * wide, floor - y0 * tall)
        draw.rounded_rectangle(corners, wide / 8, colour)

    glass = _colour(rng, 10, 120)
    box(0.35, 0.5, 0.65, 0.95, glass)
    box(0.33, 0.93, 0.67, 1, _colour(rng))
    box(0, 0, 1, 0.65, glass)
    box(0.06, 0.15, 0.94, 0.5, _colour(rng, 150, 256))
    box(0.2, 0.25, 0.8, 0.4, _colour(rng))


def _grid(size: Size) -> tuple[np.ndarray, np.ndarray]:
    """The x and y of each pixel [height, width], as shares of the width."""
    y, x = np.mgrid[: size[1], : size[0]] / size[0]
    return x, y


def _between(way: np.ndarray, start: tuple[int, ...], end: tuple[int, ...]) -> Image.Image:
    share = (way - way.min())[..., None] / np.ptp(way)
    return _image(np.array(start) * (1 - share) + np.array(end) * share)


def _colour(rng: np.random.Generator, low: int = 0, high: int = 256) -> tuple[int, int, int]:
    red, green, blue = rng.integers(low, high, 3).tolist()
    return red, green, blue


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


DRAWN: dict[str, Callable[[Size, np.random.Generator], Image.Image]] = {
    "noise": noise,
    "flat colour": flat,
    "gradients": gradient,
    "text": text,
    "walls": wall,
    "shelves": shelf,
}


def drawn(kind: str, count: int) -> list[Image.Image]:
    """`count` pictures of a kind, one of DRAWN, in RGB."""
    rng = np.random.default_rng(0)
    return [DRAWN[kind](SIZES[i % len(SIZES)], rng) for i in range(count)]


def upside_down(photo: bytes) -> bytes:
    """The photo, turned by 180°, as a JPEG."""
    return jpeg(_open(photo).rotate(180))


def half(photo: bytes) -> bytes:
    """The right half of the photo, as a JPEG."""
    image = _open(photo)
    return jpeg(image.crop((image.width // 2, 0, image.width, image.height)))


def _open(photo: bytes) -> Image.Image:
    with Image.open(BytesIO(photo)) as image:
        return image.convert("RGB")


def jpeg(image: Image.Image) -> bytes:
    """The bytes of the picture as a JPEG."""
    out = BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()
