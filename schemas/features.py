"""The names of all features, splits and age bands.

PhotoExampleGen writes raw examples. Transform writes transformed examples, and the Trainer reads
them. The CSV may have extra columns beside the file name and the age: gender, group, store … In raw
examples, they are string features under their own names in lower case; a name of ours becomes
csv_NAME, and numbers are cut into bands.
"""

from __future__ import annotations

import bisect
from itertools import pairwise

# Raw examples.
IMAGE = "image"  # bytes: an upright RGB JPEG
AGE = "age"  # float: years
AGE_BAND = "age_band"  # bytes: the band of AGE, one of AGE_BANDS
FILE_NAME = "file_name"  # bytes: path of the photo in the photos folder, separated by "/"
PHOTO_ID = "photo_id"  # bytes: SHA-256 in hex of the decoded, upright RGB pixels and their size
WIDTH = "width"  # int: pixels of the file on disk
HEIGHT = "height"  # int: pixels of the file on disk
SQUARENESS = "squareness"  # float: shorter side ÷ longer side of the file on disk, 0 to 1
FORMAT = "format"  # bytes: Pillow's name (JPEG, PNG …)
MODE = "mode"  # bytes: Pillow's name (RGB, L, P, CMYK …)
BRIGHTNESS = "brightness"  # float: mean luma, 0 to 1
SHARPNESS = "sharpness"  # float: variance of the Laplacian of luma (luma 0 to 255)

RAW_FEATURES = (
    IMAGE, AGE, AGE_BAND, FILE_NAME, PHOTO_ID, WIDTH, HEIGHT, SQUARENESS, FORMAT, MODE, BRIGHTNESS,
    SHARPNESS,
)  # fmt: skip

# An extra column, if the photos are in span-N folders: N as text.
SPAN = "span"

# Transformed examples. Their IMAGE is a JPEG of image_size × image_size pixels.
OBJECTION = "objection"  # bytes: one of OBJECTIONS; empty if there is none
TRANSFORMED_FEATURES = (IMAGE, AGE, FILE_NAME, PHOTO_ID, OBJECTION)

# Outputs of a served model, beside AGE and OBJECTION.
VALID = "valid"  # bool: whether the bytes are a photo; if not, AGE is NaN
AGE_LOW = "age_low"  # float: years; with AGE_HIGH the interval that holds nine of ten ages
AGE_HIGH = "age_high"  # float: years
P_MINOR = "p_minor"  # float: probability of being below the legal age, 0 to 1
CHALLENGE = "challenge"  # bool: whether the model itself asks for ID
OUTPUTS = (AGE, VALID, OBJECTION, AGE_LOW, AGE_HIGH, P_MINOR, CHALLENGE)

# The Evaluator's models: the new one, and the live one. Its table of predictions has a column of
# ages for each, and one for each further output, MODEL_OUTPUT.
MODELS = ("candidate", "baseline")

# An extra column of the CSV can't have one of these names: `count_all` is PyArrow's for a count.
OUR_NAMES = frozenset(
    {
        *RAW_FEATURES, SPAN, *TRANSFORMED_FEATURES, *OUTPUTS, *MODELS, "count_all",
        *(f"{model}_{output}" for model in MODELS for output in OUTPUTS),
    }
)  # fmt: skip

# Why nobody should rely on the age of a photo.
NO_PHOTO = "no_photo"  # the bytes are not a photo
NO_FACE = "no_face"
SEVERAL_FACES = "several_faces"  # of like size
SMALL_FACE = "small_face"
TURNED_FACE = "turned_face"  # by 45° or more: the photo lies on its side or upside down
CUT_FACE = "cut_face"  # partly outside the photo
UNLIKE_TRAINING = "unlike_training"  # the network was trained on other pictures
OBJECTIONS = (
    NO_PHOTO, NO_FACE, SEVERAL_FACES, SMALL_FACE, TURNED_FACE, CUT_FACE, UNLIKE_TRAINING,
)  # fmt: skip

# Splits.
TRAIN = "train"
EVAL = "eval"
TEST = "test"
SPLITS = (TRAIN, EVAL, TEST)

MAX_AGE = 120.0  # years; a label above this is a mistake

# Age bands of the reports: the first age of each band, in years. 18 and 21 are legal ages for
# alcohol.
AGE_BAND_STARTS = (0, 13, 18, 21, 25, 35, 45, 55, 65)
AGE_BANDS = (
    *(f"{a}–{b - 1}" for a, b in pairwise(AGE_BAND_STARTS)),
    f"{AGE_BAND_STARTS[-1]}+",
)


def age_band(age: float) -> str:
    """The band of an age in years, 0 or more: "18–20"."""
    return AGE_BANDS[bisect.bisect_right(AGE_BAND_STARTS, age) - 1]
