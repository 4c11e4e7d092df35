"""The names of every feature, split and age band, each said once.

A raw example is what PhotoExampleGen writes; a transformed example is what Transform writes and
the Trainer reads. The CSV's extra columns (gender, group, store …: all but the file's name and the
age) are string features of raw examples, under their own names in lower case.
"""

from __future__ import annotations

import bisect
from itertools import pairwise

# Raw examples.
IMAGE = "image"  # bytes: an upright RGB JPEG
AGE = "age"  # float: years
AGE_BAND = "age_band"  # bytes: the readable band of AGE, one of AGE_BANDS
FILE_NAME = "file_name"  # bytes: the photo's path inside the photos folder, '/'-separated
PHOTO_ID = "photo_id"  # bytes: SHA-256, in hex, of the decoded upright RGB pixels and their size
WIDTH = "width"  # int: pixels, as found on disk
HEIGHT = "height"  # int: pixels, as found on disk
SQUARENESS = "squareness"  # float: shorter side by longer side, as found, 0 to 1
FORMAT = "format"  # bytes: as Pillow names it (JPEG, PNG …)
MODE = "mode"  # bytes: as Pillow names it (RGB, L, P, CMYK …)
BRIGHTNESS = "brightness"  # float: mean luma, 0 to 1
SHARPNESS = "sharpness"  # float: variance of the Laplacian of luma (luma 0 to 255)

RAW_FEATURES = (
    IMAGE, AGE, AGE_BAND, FILE_NAME, PHOTO_ID, WIDTH, HEIGHT, SQUARENESS, FORMAT, MODE, BRIGHTNESS,
    SHARPNESS,
)  # fmt: skip

# An extra column, too, if the photos come in span-N folders: N, as text.
SPAN = "span"

# Transformed examples hold IMAGE (a JPEG of image_size × image_size pixels), AGE and PHOTO_ID.
TRANSFORMED_FEATURES = (IMAGE, AGE, PHOTO_ID)

# What a served model says of a photo, beside AGE.
VALID = "valid"  # bool: whether the bytes hold a photo; AGE is NaN where they do not

# Splits.
TRAIN = "train"
EVAL = "eval"
TEST = "test"
SPLITS = (TRAIN, EVAL, TEST)

MAX_AGE = 120.0  # years; the oldest age on record is 122, and no label above 120 is a checkout's

# Age bands of the reports: the first age of each, in years. 18 and 21 are legal ages for alcohol.
AGE_BAND_STARTS = (0, 13, 18, 21, 25, 35, 45, 55, 65)
AGE_BANDS = (
    *(f"{a}–{b - 1}" for a, b in pairwise(AGE_BAND_STARTS)),
    f"{AGE_BAND_STARTS[-1]}+",
)


def age_band(age: float) -> str:
    """The band of an age in years, 0 or more: "18–20"."""
    return AGE_BANDS[bisect.bisect_right(AGE_BAND_STARTS, age) - 1]
