"""Draws the demo's photos: faces at a checkout, from 1 to 90 years old, with labels.csv.

    draw_sample(Path("runs/demo-photos"))

The pictures show no real people. SIGNS lists what changes with age. Gender, skin tone, hair style,
background, light, pose and file format do not depend on age. Each photo has its own random
generator with the seed (seed, number of the photo). So the same seed gives the same bytes with the
same versions of Pillow and numpy.
"""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import ExifTags, Image, ImageDraw, ImageFilter

from components.errors import UserError

Array = NDArray[np.float64]
Pair = tuple[float, float]
Row = tuple[str, ...]  # of labels.csv, as COLUMNS

COLUMNS = ("file_name", "real_age", "gender", "store")
MARKER = "sample.json"  # in the sample's folder: its count and seed
STORES = ("airport", "harbour", "market", "station")
SUPERSAMPLING = 3  # photos are drawn larger by this factor, for smooth edges

# The distribution of ages: every age band of the reports has some people.
AGE_QUANTILES = (0.0, 0.14, 0.22, 0.28, 0.36, 0.50, 0.62, 0.73, 0.84, 0.95, 1.0)
AGE_KNOTS = (1, 13, 18, 21, 25, 35, 45, 55, 65, 78, 91)  # years

# Lengths are in half heads: the top of the skull is at y = -1, the chin at y = 1.
SIGN_AGES = (1, 5, 10, 15, 20, 30, 40, 50, 60, 75, 90)  # years
SIGNS = {
    "width": (0.97, 0.93, 0.89, 0.85, 0.82, 0.79, 0.76, 0.73, 0.70, 0.66, 0.62),
    "jaw": (0.16, 0.19, 0.23, 0.28, 0.31, 0.30, 0.28, 0.25, 0.22, 0.20, 0.20),  # its narrowing
    "eye_y": (0.27, 0.22, 0.16, 0.10, 0.05, 0.03, 0.02, 0.01, 0.00, -0.01, -0.02),
    "eye": (0.185, 0.168, 0.152, 0.138, 0.127, 0.117, 0.108, 0.100, 0.092, 0.081, 0.072),
    "openness": (0.85, 0.80, 0.73, 0.66, 0.60, 0.56, 0.52, 0.48, 0.44, 0.38, 0.33),
    "nose": (0.15, 0.20, 0.25, 0.29, 0.32, 0.35, 0.38, 0.41, 0.44, 0.48, 0.51),
    "mouth_y": (0.68, 0.66, 0.63, 0.61, 0.60, 0.60, 0.60, 0.60, 0.60, 0.61, 0.62),
    "lips": (0.075, 0.075, 0.075, 0.075, 0.075, 0.070, 0.064, 0.057, 0.050, 0.040, 0.030),
    "brow": (0.012, 0.017, 0.023, 0.030, 0.036, 0.038, 0.039, 0.038, 0.036, 0.033, 0.030),
    "blush": (0.70, 0.58, 0.44, 0.32, 0.24, 0.15, 0.08, 0.04, 0.02, 0.00, 0.00),
    "shoulders": (0.90, 1.05, 1.25, 1.48, 1.70, 1.78, 1.80, 1.78, 1.72, 1.60, 1.45),
    "grey": (0.00, 0.00, 0.00, 0.00, 0.00, 0.08, 0.24, 0.42, 0.60, 0.85, 1.00),
    "recession": (0.00, 0.00, 0.00, 0.00, 0.03, 0.16, 0.30, 0.45, 0.60, 0.80, 1.00),
    "wrinkles": (0.00, 0.00, 0.00, 0.02, 0.08, 0.22, 0.36, 0.50, 0.64, 0.83, 1.00),
    "spots": (0.00, 0.00, 0.00, 0.00, 0.00, 0.02, 0.08, 0.20, 0.40, 0.72, 1.00),
}
# People look older or younger than they are: standard deviations of the logarithm of the age.
LOOKS = 0.04  # for the whole person
SIGN_NOISE = 0.06  # in addition, for each sign of ageing

CIRCLE = np.stack([f(np.linspace(0, 2 * np.pi, 65)) for f in (np.cos, np.sin)], 1)
ALONG = np.linspace(0, 1, 14)[:, None]  # positions on a stroke

SKINS = (
    (250, 220, 198), (240, 200, 172), (224, 178, 142),
    (198, 146, 106), (158, 106, 72), (112, 74, 52),
)  # fmt: skip
HAIRS = ((32, 26, 24), (58, 40, 30), (92, 60, 36), (140, 92, 50), (190, 150, 92), (150, 70, 36))
IRISES = ((70, 46, 30), (96, 70, 40), (86, 112, 70), (78, 110, 150))
WHITE_HAIR = (226, 226, 230)
SHADOW = (60, 30, 24)  # folds and shadows mix this colour into the skin

# The kind of a photo's file, in turn: its suffix, and its mode or a special property.
KINDS = (
    *[("jpg", "")] * 19,
    ("jpg", "L"), ("jpg", "CMYK"), ("jpg", "EXIF"), ("png", ""), ("png", "P"), ("png", "L"),
    ("png", "RGBA"), ("webp", ""), ("bmp", ""), ("gif", "P"), ("tif", ""),
)  # fmt: skip
TURNED = {3: 180, 6: 90, 8: 270}  # EXIF orientation → rotation of the stored picture, degrees

PHOTOS_PER_BROKEN = 40  # so that broken rows stay below the bound `max_rejected`


@dataclass(frozen=True)
class Pen:
    """Draws translucent shapes onto a picture; their unit of length is half a head.

    Attributes:
        draw: the picture, in Pillow's RGBA blending mode.
        centre: of the head, in pixels, shape [2].
        unit: half a head, in pixels.
        tilt: of the head, in radians.
        turn: how far the middle of the face is shifted sideways, in half heads.
        side: 1, or -1 for mirrored drawing.
    """

    draw: ImageDraw.ImageDraw
    centre: Array
    unit: float
    tilt: float
    turn: float = 0.0
    side: int = 1

    def sides(self) -> tuple[Pen, Pen]:
        """This pen and its mirror image: for eyes, ears and other pairs."""
        return self, replace(self, side=-1)

    def blob(self, points: ArrayLike, colour: ArrayLike, alpha: float = 1.0) -> None:
        """Fills the polygon through points, shape [n, 2]."""
        x, y = np.asarray(points, float).T
        x = self.side * x + self.turn * np.maximum(0, 1 - x**2)
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        pixels = self.centre + self.unit * np.stack([cos * x - sin * y, sin * x + cos * y], 1)
        self.draw.polygon(pixels.ravel().tolist(), (*_rgb(colour), round(255 * min(alpha, 1))))

    def oval(self, at: Pair, radii: Pair, colour: ArrayLike, alpha: float = 1.0) -> None:
        """Fills an ellipse."""
        self.blob(at + radii * CIRCLE, colour, alpha)

    def soft(self, at: Pair, radii: Pair, colour: ArrayLike, alpha: float) -> None:
        """Fills an ellipse that becomes transparent towards its edge."""
        for scale in (1.0, 0.8, 0.6, 0.4):
            self.blob(at + np.multiply(radii, scale) * CIRCLE, colour, alpha / 4)

    def stroke(self, bend: ArrayLike, width: float, colour: ArrayLike, alpha: float = 1.0) -> None:
        """Draws a line with thin ends along the Bézier curve of three points, shape [3, 2]."""
        one, two, three = np.asarray(bend, float)
        line = (1 - ALONG) ** 2 * one + 2 * ALONG * (1 - ALONG) * two + ALONG**2 * three
        ahead = np.gradient(line, axis=0)
        across = ahead[:, ::-1] * (-1, 1) / (np.linalg.norm(ahead, axis=1, keepdims=True) + 1e-9)
        edge = across * width / 2 * np.sqrt(np.sin(np.pi * ALONG).clip(0.05))
        self.blob(np.concatenate([line + edge, (line - edge)[::-1]]), colour, alpha)


@dataclass(frozen=True)
class Person:
    """One customer; colours are RGB, shape [3].

    Attributes:
        signs: values of SIGNS, and eye_x, the distance of the eyes from the middle.
        bald: how far the hair line has moved back, 0 to 1.
        beard: its density, 0 to 1.
        fringe: its length, in half heads.
        smile: how far the middle of the mouth is below its corners, in half heads.
    """

    female: bool
    signs: dict[str, float]
    skin: Array
    hair: Array
    iris: Array
    long_hair: bool
    glasses: bool
    bald: float
    beard: float
    fringe: float
    smile: float


def _mix(one: ArrayLike, other: ArrayLike, share: float) -> Array:
    return np.asarray(one, float) * (1 - share) + np.asarray(other, float) * share


def _rgb(colour: ArrayLike) -> tuple[int, ...]:
    return tuple(int(c) for c in np.clip(colour, 0, 255))


def _person(rng: np.random.Generator, age: int, female: bool) -> Person:
    looks = age * np.exp(rng.normal(0, LOOKS))
    seen = {name: looks * np.exp(rng.normal(0, SIGN_NOISE)) for name in SIGNS}
    signs = {name: float(np.interp(seen[name], SIGN_AGES, SIGNS[name])) for name in SIGNS}
    skin = _mix(rng.choice(SKINS), rng.choice(SKINS), 0.3) + rng.normal(0, 4, 3)
    dyed = female and rng.random() < 0.06
    return Person(
        female=female,
        signs={**signs, "eye_x": 0.43 * signs["width"]},
        skin=_mix(skin, skin.mean(), 0.4 * signs["wrinkles"]),  # old skin is paler
        hair=_mix(rng.choice(HAIRS), WHITE_HAIR, 0 if dyed else signs["grey"]),
        iris=rng.choice(IRISES),
        long_hair=bool(rng.random() < (0.75 if female else 0.08)),
        glasses=bool(rng.random() < 0.12),
        bald=signs["recession"] * (0.5 if female else float(rng.uniform(0.6, 1))),
        beard=float(rng.uniform(0.5, 0.95) * (not female and age >= 18 and rng.random() < 0.3)),
        fringe=float(rng.choice([0, 0, 0, 0.12, 0.2])),
        smile=float(rng.uniform(-0.02, 0.08)),
    )


def _outline(person: Person, scale: float = 1.0) -> Array:
    """The outline of the head, shape [65, 2]: clockwise, index 0 is at the right."""
    x, y = CIRCLE.T
    narrowing = 1 - person.signs["jaw"] * np.maximum(y, 0) ** 2
    wide = np.sign(x) * np.abs(x) ** 0.85 * person.signs["width"] * narrowing
    return np.stack([wide, y], 1) * scale


def _body(pen: Pen, person: Person, shirt: Array) -> None:
    s = person.signs
    if person.long_hair:
        pen.blob(_outline(person, 1.14), person.hair * 0.8)
        x = s["width"] * 1.13
        pen.blob([(-x, -0.1), (x, -0.1), (x, 1.35), (-x, 1.35)], person.hair * 0.8)
    neck = s["width"] * (0.38 + 0.1 * (s["shoulders"] - 1) * (1 - 0.5 * person.female))
    pen.blob([(-neck, 0.5), (neck, 0.5), (neck, 1.5), (-neck, 1.5)], person.skin * 0.8)
    for y in (1.08, 1.18, 1.28):
        pen.stroke([(-neck, y), (0, y + 0.05), (neck, y)], 0.02, SHADOW, 0.5 * s["wrinkles"])
    for half in pen.sides():
        x = s["shoulders"]
        half.blob(
            [(-0.01, 1.44), (neck, 1.28), (x * 0.8, 1.48), (x, 1.78), (x, 5), (-0.01, 5)], shirt
        )


def _head(pen: Pen, person: Person) -> None:
    s, skin = person.signs, person.skin
    for half in pen.sides():
        half.oval((s["width"], s["eye_y"] + 0.15), (0.09, s["nose"] * 0.5), skin * 0.9)
    pen.blob(_outline(person), skin * 0.93)
    pen.blob(_outline(person, 0.95), skin)
    for half in pen.sides():
        cheek = (s["width"] * 0.55, s["mouth_y"] - 0.18)
        half.soft(cheek, (0.22, 0.2), (226, 84, 80), s["blush"])


def _eyes(pen: Pen, person: Person) -> None:
    s = person.signs
    x, y, rx, ry = s["eye_x"], s["eye_y"], s["eye"], s["eye"] * s["openness"]
    sag = 0.06 * s["wrinkles"]  # the outer ends of lids and brows hang lower in old age
    lid = [(x - rx * 1.1, y), (x, y - ry * 2.1 + sag), (x + rx * 1.2, y + sag)]
    high = y - ry - 0.13
    brow = [(x - rx * 1.1, high + 0.02), (x, high - 0.07), (x + rx * 1.4, high + 0.04 + sag)]
    for half in pen.sides():
        half.soft((x, y - 0.02), (rx * 1.5, ry * 2), person.skin * 0.7, 0.3)
        half.oval((x, y), (rx, ry), (246, 244, 240))
        half.oval((x, y), (ry * 0.86, ry * 0.95), person.iris)
        half.oval((x, y), (ry * 0.42, ry * 0.48), (16, 12, 12))
        half.oval((x + ry * 0.3, y - ry * 0.35), (ry * 0.2, ry * 0.2), (255, 255, 255))
        half.stroke(lid, 0.035 + 0.02 * person.female, (40, 28, 26))
        thickness = s["brow"] * (1.6 if person.female else 2.2)
        half.stroke(brow, thickness, _mix(person.hair * 0.75, SHADOW, 0.25))


def _nose_and_mouth(pen: Pen, person: Person) -> None:
    s, skin = person.signs, person.skin
    tip, wing = s["eye_y"] + s["nose"], 0.05 + 0.16 * s["nose"]
    bridge = [(wing / 2, tip - s["nose"] * 0.75), (wing / 2, tip - 0.1), (wing, tip)]
    pen.soft((0, tip - 0.05), (wing * 1.2, wing * 1.3), skin * 1.1, 0.5)
    pen.stroke(bridge, 0.03, skin * 0.75, 0.25 + s["nose"])
    pen.stroke([(-wing, tip), (0, tip + 0.08), (wing, tip)], 0.035, skin * 0.6, 0.9)
    for half in pen.sides():
        half.oval((wing / 2, tip + 0.01), (0.022, 0.014), skin * 0.4)
    x, y, smile = 0.16 + 0.12 * s["nose"], s["mouth_y"], person.smile
    mouth = [(-x, y - smile), (0, y + smile), (x, y - smile)]
    lips = _mix(skin * 0.8, (196, 60, 70), 0.55 if person.female else 0.35)
    thick = s["lips"] * (1.25 if person.female else 1.0)
    pen.stroke(np.add(mouth, (0, thick * 0.35)), thick * 2.0, lips)
    pen.stroke(np.add(mouth, (0, -thick * 0.3)), thick * 1.4, lips * 0.9)
    pen.stroke(mouth, 0.022, lips * 0.45)


def _wrinkles(pen: Pen, person: Person, rng: np.random.Generator) -> None:
    s, depth = person.signs, person.signs["wrinkles"]
    x, y, tip, mouth = s["eye_x"], s["eye_y"], s["eye_y"] + s["nose"], s["mouth_y"]
    under, corner = y + s["eye"] * 0.9, x + s["eye"] * 1.2
    folds = [
        [(x - 0.12, under), (x, under + 0.13), (x + 0.12, under)],  # under the eyes
        [(0.13, tip - 0.04), (0.3, tip + 0.06), (0.3, mouth + 0.02)],  # from nose to mouth
        [(0.27, mouth + 0.05), (0.31, mouth + 0.12), (0.28, mouth + 0.24)],  # below the mouth
    ]
    for rise in (-0.1, 0.0, 0.1):  # crow's feet
        first = y + rise * 0.4
        folds.append(
            [(corner, first), (corner + 0.07, first + rise / 2), (corner + 0.13, first + rise)]
        )
    width, colour, alpha = (
        0.025 + 0.035 * depth,
        _mix(person.skin * 0.45, SHADOW, 0.3),
        0.75 * depth,
    )
    for half in pen.sides():
        half.soft((x, under + 0.02), (0.17, 0.1), person.skin * 0.45, 0.8 * depth)  # eye bags
        hollow = (s["width"] * 0.6, mouth - 0.1)  # of the cheeks
        half.soft(hollow, (0.12, 0.24), person.skin * 0.45, 0.6 * depth)
        for fold in folds:
            half.stroke(fold, width, colour, alpha)
    for high in y - 0.34 - 0.1 * np.arange(4):  # forehead lines
        end, middle = s["width"] * rng.uniform(0.4, 0.62), rng.normal(0, 0.1)
        pen.stroke([(-end, high), (middle, high - 0.05), (end, high)], width, colour, alpha)


def _complexion(pen: Pen, person: Person, rng: np.random.Generator) -> None:
    """Grain on the whole face, and age spots on the forehead and the cheeks."""
    s, skin = person.signs, person.skin
    reach = s["width"] * 0.7
    for _ in range(60):
        radius, tone = rng.uniform(0.01, 0.03), skin * rng.choice([0.6, 1.15])
        at = (rng.uniform(-reach, reach), rng.uniform(-0.75, 0.8))
        pen.oval(at, (radius, radius), tone, 0.45 * s["wrinkles"])
    for _ in range(round(18 * s["spots"])):
        at = (rng.uniform(-reach, reach), rng.choice([-1, 1]) * rng.uniform(0.3, 0.75))
        pen.oval(at, tuple(rng.uniform(0.02, 0.045, 2)), skin * 0.55, 0.55)


def _beard(pen: Pen, person: Person) -> None:
    jaw = _outline(person, 1.01)[2:31]  # from ear to ear over the chin
    high, low = person.signs["mouth_y"] - 0.2, person.signs["mouth_y"] - 0.13
    above = [(-0.5, high), (-0.24, low), (0.24, low), (0.5, high)]
    pen.blob(np.concatenate([jaw, above]), person.hair * 0.9, person.beard)


def _hair(pen: Pen, person: Person, rng: np.random.Generator) -> None:
    """Hair between the skull and the hair line. Age moves the line back and makes hair thinner."""
    width, bald = person.signs["width"], person.bald
    top = -0.62 - person.signs["eye_y"] * 0.2 + person.fringe * (1 - bald) - 0.5 * bald
    ear = 0.15 if person.long_hair else -0.1
    skull = _outline(person, 1.07)[33:64]
    x = np.linspace(-1, 1, 31)
    height = top + (ear - top) * np.abs(x) ** (3.5 - 1.5 * bald)
    line = np.stack([x * width * 0.93, height.clip(-1.2)], 1)
    sides = (width * 1.04, ear) * np.array([[[-1, 1]], [[1, 1]]])
    edge = np.concatenate([sides[0], skull, sides[1], line[::-1]])
    pen.blob(edge, person.hair, 1 - 0.45 * bald)
    for start, end in zip(skull[3:-3:2], line[3:-3:2], strict=True):
        lock = [start * 0.99, start * 0.9 + end * 0.1, end]
        pen.stroke(lock, 0.04, person.hair * rng.uniform(0.75, 1.25), 0.5 * (1 - bald))


def _glasses(pen: Pen, person: Person, frame: Array) -> None:
    x, y, r = person.signs["eye_x"], person.signs["eye_y"], 0.2
    for half in pen.sides():
        rim = [(r, r * 0.9) * CIRCLE, (r * 0.87, r * 0.77) * CIRCLE[::-1]]
        half.blob(np.add(np.concatenate(rim), (x, y)), frame)
        half.stroke([(x + r, y), (x + r, y - 0.02), (person.signs["width"], y)], 0.03, frame)
    pen.stroke([(-0.15, y), (0, y - 0.06), (0.15, y)], 0.035, frame)


def _background(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """A plain colour, a gradient, shelves or blurred noise; width and height in pixels."""
    one, other = _mix(rng.uniform(50, 235, (2, 3)), 150, 0.45)
    style = rng.integers(4)
    if style < 2:
        ramp = np.linspace(0, style, height)[:, None, None] * np.ones((1, width, 1))
        return Image.fromarray((one + (other - one) * ramp).astype(np.uint8))
    if style == 2:
        coarse = one + rng.normal(0, 20, (int(rng.integers(6, 40)), 30, 3))
        small = Image.fromarray(coarse.clip(0, 255).astype(np.uint8))
        return small.resize((width, height), Image.Resampling.BICUBIC)
    image = Image.new("RGB", (width, height), _rgb(one * 0.6))
    draw, shelf = ImageDraw.Draw(image), height // int(rng.integers(4, 7))
    for bottom in range(shelf, height + shelf, shelf):
        x = 0
        while x < width:
            wide, tall = (int(shelf * rng.uniform(low, 0.85)) for low in (0.25, 0.5))
            fill = _rgb(_mix(one, rng.uniform(40, 240, 3), 0.6))
            draw.rectangle((x, bottom - tall, x + wide, bottom), fill)
            x += wide + shelf // 12
        draw.rectangle((0, bottom, width, bottom + shelf // 12), _rgb(other))
    return image.filter(ImageFilter.BoxBlur(shelf / 20))


def _light(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Adds brightness, light from one side, a colour cast and the noise of a camera."""
    pixels = np.asarray(image, np.float32)
    height, width, _ = pixels.shape
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.25)
    x, y = np.linspace(-1, 1, width)[None, :], np.linspace(-1, 1, height)[:, None]
    field = 1 + strength * (np.cos(angle) * x + np.sin(angle) * y)
    gain = rng.uniform(0.75, 1.1) * rng.uniform(0.95, 1.05, 3)
    noise = rng.normal(0, rng.uniform(1, 6), (height, width, 1))
    lit = pixels * field[:, :, None] * gain + noise
    return Image.fromarray(lit.clip(0, 255).astype(np.uint8))


def draw_photo(rng: np.random.Generator, age: int, female: bool) -> Image.Image:
    """An RGB picture of a customer of this age in years; its short side has 160 to 320 pixels."""
    person = _person(rng, age, female)
    short, aspect = int(rng.integers(160, 321)), float(rng.choice([1, 1, 1.25, 1.33, 0.75]))
    width, height = int(short * max(1, 1 / aspect)), int(short * max(1, aspect))
    size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
    image = _background(rng, width, height).resize(size, Image.Resampling.NEAREST)
    unit = short * SUPERSAMPLING * rng.uniform(0.37, 0.41)
    centre = np.array(image.size) / 2 + rng.uniform(-0.1, 0.1, 2) * unit
    pen = Pen(ImageDraw.Draw(image, "RGBA"), centre, unit, float(rng.normal(0, 0.06)))
    face = replace(pen, turn=float(rng.uniform(-0.1, 0.1)))
    _body(pen, person, _mix(rng.uniform(30, 230, 3), 120, 0.4))
    _head(pen, person)
    _eyes(face, person)
    _wrinkles(face, person, rng)
    _complexion(face, person, rng)
    _beard(pen, person)
    _nose_and_mouth(face, person)
    _hair(pen, person, rng)
    if person.glasses:
        _glasses(face, person, rng.uniform(10, 90, 3))
    return _light(rng, image.reduce(SUPERSAMPLING))


def _encode(rng: np.random.Generator, image: Image.Image, suffix: str, special: str) -> bytes:
    """The picture as a file of one of KINDS."""
    options: dict[str, object] = {"quality": int(rng.integers(60, 96))}
    if special == "EXIF":
        orientation, exif = int(rng.choice(list(TURNED))), Image.Exif()
        image = image.rotate(TURNED[orientation], expand=True)
        exif[ExifTags.Base.Orientation] = orientation
        options["exif"] = exif
    elif special == "P":
        image = image.quantize(128)
    elif special == "RGBA":  # transparent towards the corners
        inside = Image.radial_gradient("L").point(lambda far: min(255, 4 * (255 - far)))
        image.putalpha(inside.resize(image.size))
    elif special:
        image = image.convert(special)
    file = io.BytesIO()
    image.save(file, Image.registered_extensions()[f".{suffix}"], **options)
    return file.getvalue()


def _ages(count: int, seed: int) -> list[int]:
    """Shuffled ages in years: one from each of `count` equal shares of the distribution."""
    rng = np.random.default_rng(seed)
    shares = (np.arange(count) + rng.random(count)) / count
    return [int(age) for age in rng.permutation(np.interp(shares, AGE_QUANTILES, AGE_KNOTS))]


def _labelled(seed: int, number: int, age: int) -> tuple[Row, bytes]:
    """A photo's row of labels.csv and its file, from its number and its age in years."""
    rng = np.random.default_rng((seed, number))
    female = bool(rng.random() < 0.5)
    suffix, special = KINDS[number % len(KINDS)]
    photo = _encode(rng, draw_photo(rng, age, female), suffix, special)
    gender, store = "female" if female else "male", STORES[rng.integers(len(STORES))]
    return (f"{number:06d}.{suffix}", str(age), gender, store), photo


def _broken(good: Row, photo: bytes, other: bytes) -> dict[str, tuple[str, bytes | None]]:
    """Labels and files that the pipeline must reject, by name; `photo` is the JPEG of `good`."""
    age = good[1]
    return {
        "truncated": (age, photo[: len(photo) // 2]),
        "text": (age, b"Receipt 4711: no photo.\n"),
        "empty": (age, b""),
        "missing": (age, None),
        "no_number": ("adult", other),
        "conflict": (str(int(age) + 30), photo),  # `good` has the same picture and is rejected too
    }


def _write(folder: Path, count: int, seed: int, progress: Callable[[int, int], None]) -> None:
    """Writes the whole sample into an empty folder."""
    photos = folder / "final_files"
    photos.mkdir()
    rows: list[Row] = []
    # Spawned, because a fork copies a process without its threads and may deadlock.
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        drawn = pool.map(_labelled, repeat(seed), range(count), _ages(count, seed), chunksize=8)
        for row, photo in drawn:
            (photos / row[0]).write_bytes(photo)
            rows.append(row)
            progress(len(rows), count)
    _, other = _labelled(seed, count, 40)
    broken = _broken(rows[0], (photos / rows[0][0]).read_bytes(), other)
    for kind, (label, file) in list(broken.items())[: count // PHOTOS_PER_BROKEN]:
        if file is not None:
            (photos / f"{kind}.jpg").write_bytes(file)
        rows.append((f"{kind}.jpg", label, *rows[0][2:]))
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as labels:
        csv.writer(labels, lineterminator="\n").writerows([COLUMNS, *rows])
    (folder / MARKER).write_text(_marker(count, seed), "utf-8")


def _marker(count: int, seed: int) -> str:
    return json.dumps({"count": count, "seed": seed}) + "\n"


def draw_sample(
    folder: Path,
    count: int = 900,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Draws a sample: `count` photos and a few broken ones, with their labels.csv.

    If the folder holds this sample already, nothing changes. A new sample appears whole or not at
    all. Processes draw it, and they import the main script. So a script that calls this function
    needs `if __name__ == "__main__"`.

    Args:
        folder: gets labels.csv and final_files/; its parents are made if missing.
        count: number of photos without the broken ones.
        seed: of the random generators.
        progress: called after each photo with the number of photos so far, and of all photos.

    Raises:
        UserError: count is below 1, or the folder holds something else.
    """
    if count < 1:
        raise UserError(f"a sample needs at least 1 photo, not {count}")
    folder = folder.absolute()
    if (marker := folder / MARKER).is_file() and marker.read_text("utf-8") == _marker(count, seed):
        return
    if folder.exists() and not (folder.is_dir() and next(folder.iterdir(), None) is None):
        raise UserError(
            f"{folder} exists and is not the sample of {count} photos with seed {seed}:"
            " name another folder or delete this one"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as aside:
        sample = Path(aside) / "sample"
        sample.mkdir()
        _write(sample, count, seed, progress)
        os.replace(sample, folder)
