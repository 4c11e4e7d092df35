"""What a model says about pictures without a face, and about faces in any framing.

    python -m benchmarks.guard [others] [faces] [framings] [scenes] [speed]
        --model DIR --photos DIR --others DIR... [--reference DIR]

`--model` and `--reference` are version folders. `--photos` is a folder with labels.csv; only its
test split is used. Each picture goes through the client's `prepare`, the signature in this process,
and the client's `decide` with its default policy.

others    The share of pictures without a face that get NO_CHALLENGE: all files under `--others`
          with at least 64 × 64 pixels, and drawn pictures. Then the same pictures without the
          client, which refuses many as too bright or blurred: the share without an objection.
faces     The share of test faces that are refused, by reason, and the MAE of the others. The
          reference is the other model's MAE on the same faces, for example of a model that was
          trained with `transform.face: as_is`.
framings  The share of minors (8 to 17 years) that get NO_CHALLENGE, for each framing. The reference
          is the share as cropped. The backgrounds are the larger pictures under `--others`.
scenes    How far the age of a face of 120 pixels in a frame of 1920 × 1080 is off the age of the
          same pixels alone, where neither is refused.
speed     How long one photo takes with `prepare` and `decide`, cropped and in a frame of
          1920 × 1080. The reference is the other model; both take turns.

Pictures without a face are in these Debian packages: desktop-base, gnome-backgrounds,
gnome-icon-theme and oxygen-icon-theme (256 × 256), lomiri-wallpapers-16.04,
lomiri-wallpapers-20.04, mate-backgrounds, mypaint-data-extras, plasma-workspace-wallpapers,
sway-backgrounds, ukui-wallpapers; and in these of PyPI: matplotlib, scikit-image, scikit-learn.
Unpack them, and delete what shows a face: portraits, coins, smileys, icons of people.

It appends to results/guard.csv and ends with a line of JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from goodseed_client import Failure, Kind, Policy
from goodseed_client.photo import MIN_SIDE, Photo, prepare
from goodseed_client.policy import decide
from PIL import Image, ImageOps
from tensorflow_serving.apis.predict_pb2 import PredictResponse

from benchmarks.results import record
from components import no_faces
from components.photo_example_gen import labels, photos
from components.photo_example_gen.component import Picture, assign_splits
from components.photo_example_gen.rejects import Rejected
from pipeline.config import Data
from schemas import features

MODES = ("others", "faces", "framings", "scenes", "speed")
DRAWN = 20  # pictures of each kind
FULL_HD = (1920, 1080)
PASTED = (90, 120, 200, 400)  # heights of faces in FULL_HD, pixels
SCENE_FACE = 120  # pixels
SCENES = 300
BACKGROUNDS = 25
ADULT = 25  # years
BLOCK, TURNS = 25, 12  # photos one after the other, and how often the models change

Figures = list[dict[str, Any]]


class Answer(NamedTuple):
    """What a till gets."""

    kind: Kind
    age: float  # years; NaN if the client did not send the photo
    refused: str  # the model's objection, or why the client did not send it; "" if neither


class Face(NamedTuple):
    """A photo of the test split."""

    jpeg: bytes
    age: float  # years, from the CSV

    @property
    def image(self) -> Image.Image:
        return Image.open(BytesIO(self.jpeg))


class Model:
    """A version folder, asked as a till asks, without a server between them."""

    def __init__(self, folder: Path):
        self._loaded = tf.saved_model.load(str(folder))  # the signature does not keep it alive
        self._signature = self._loaded.signatures["serving_default"]
        self._policy = Policy.load()

    def ask(self, photo: Photo) -> Answer:
        """One photo, as `AgeClient.check` takes it."""
        try:
            jpeg = prepare(photo)
        except Failure as failure:
            return Answer(failure.reason.kind, np.nan, failure.reason.value)
        outputs = self._outputs(jpeg)
        response = PredictResponse()
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        kind = decide(response.SerializeToString(), self._policy).reason.kind
        return Answer(kind, float(outputs[features.AGE][0]), _objection(outputs))

    def objection(self, image: Image.Image) -> str:
        """What the model itself says about a picture, sent as it is."""
        return _objection(self._outputs(no_faces.jpeg(image)))

    def _outputs(self, jpeg: bytes) -> dict[str, np.ndarray]:
        """The signature's outputs for one photo, each of shape [1]."""
        outputs = self._signature(image=tf.constant([jpeg]))
        return {name: value.numpy() for name, value in outputs.items()}


def _objection(outputs: dict[str, np.ndarray]) -> str:
    """The objection to one photo; a model from before there were objections has none."""
    return str(outputs[features.OBJECTION][0].decode()) if features.OBJECTION in outputs else ""


def read_test_faces(folder: Path) -> list[Face]:
    """The photos that the pipeline puts into its test split, in its order."""
    data = Data(photos=str(folder))
    rows = labels.read(data).rows
    found: dict[str, Face] = {}

    def inspect(row: labels.Row) -> Picture | Rejected:
        try:
            photo = photos.read(str(folder / row.path), data.max_pixels)
        except Rejected as rejection:
            return rejection
        found[row.path] = Face(photo.jpeg, row.age)
        return Picture(photo.photo_id, row.path, 0, 0)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = dict(zip((row.path for row in rows), pool.map(inspect, rows), strict=True))
    splits, _ = assign_splits(rows, outcomes, data)
    return [found[picture.file] for picture in splits[features.TEST]]


def read_others(
    folders: Sequence[Path], size: tuple[int, int]
) -> Iterator[tuple[str, Image.Image]]:
    """The pictures under the folders that are not smaller than `size`: name, RGB on white.

    They are in random order, which is the same each time.
    """
    paths = sorted(path for folder in folders for path in folder.rglob("*"))
    random.Random(0).shuffle(paths)
    for path in paths:
        try:
            with Image.open(path) as image:
                if image.width < size[0] or image.height < size[1]:
                    continue
                whole = image.convert("RGBA")
        except (OSError, Image.DecompressionBombError):
            continue  # a folder, or no picture
        white = Image.new("RGBA", whole.size, "white")
        yield path.name, Image.alpha_composite(white, whole).convert("RGB")


def read_backgrounds(folders: Sequence[Path]) -> list[Image.Image]:
    """The first pictures that are large enough for a frame, as FULL_HD."""
    large = read_others(folders, (FULL_HD[0] // 2, FULL_HD[1] // 2))
    return [ImageOps.fit(image, FULL_HD) for _, image in itertools.islice(large, BACKGROUNDS)]


def resized(face: Image.Image, height: int) -> Image.Image:
    """A face with another height, pixels, and the same shape."""
    return face.resize((round(face.width * height / face.height), height))


def scene(
    face: Image.Image, height: int, background: Image.Image, place: tuple[float, float]
) -> Image.Image:
    """A background with a face on it.

    Args:
        face: the face.
        height: of the face on the background, pixels.
        background: as large as the result.
        place: where the face is between left and right, and between top and bottom, 0 to 1.
    """
    small = resized(face, height)
    free = background.width - small.width, background.height - small.height
    frame = background.copy()
    frame.paste(small, (round(place[0] * free[0]), round(place[1] * free[1])))
    return frame


def beside(face: Image.Image, other: Image.Image) -> Image.Image:
    """Two faces of the same height, side by side."""
    same = resized(other, face.height)
    both = Image.new("RGB", (face.width + same.width, face.height))
    both.paste(face, (0, 0))
    both.paste(same, (face.width, 0))
    return both


def swapped(face: Image.Image) -> Image.Image:
    """A face whose red is blue, and the other way round."""
    red, green, blue = face.split()
    return Image.merge("RGB", (blue, green, red))


def framings(
    face: Image.Image, adult: Image.Image, background: Image.Image, place: tuple[float, float]
) -> dict[str, Image.Image]:
    """A face in each framing; see `scene` for the place."""
    width, height = face.size

    def part(of: int) -> Image.Image:
        return scene(face, height, ImageOps.fit(background, (of * width, of * height)), place)

    return {
        "as cropped": face,
        "half of the frame's height": part(2),
        "a quarter of the frame's height": part(4),
        "upside down": face.rotate(180),
        "turned by 90°": face.rotate(90, expand=True),
        "beside an adult": beside(face, adult),
        "red and blue swapped": swapped(face),
        **{
            f"{size} pixels in 1920 × 1080": scene(face, size, background, place) for size in PASTED
        },
    }


def share(part: int, whole: int) -> float:
    """A share in percent."""
    return 100.0 * part / whole


def measure_others(model: Model, folders: Sequence[Path]) -> Figures:
    """Pictures without a face."""
    drawn = ((kind, image) for kind in no_faces.DRAWN for image in no_faces.drawn(kind, DRAWN))
    through: list[str] = []
    refused: Counter[str] = Counter()
    objections: Counter[str] = Counter()
    for name, image in itertools.chain(read_others(folders, (MIN_SIDE, MIN_SIDE)), drawn):
        answer = model.ask(image)
        if answer.kind is Kind.NO_CHALLENGE:
            through.append(name)
        refused[answer.refused or "none"] += 1
        objections[model.objection(image) or "none"] += 1
    print(f"NO_CHALLENGE: {', '.join(through) or 'none'}")
    print(f"refused with the client: {dict(refused.most_common())}")
    print(f"objections without the client: {dict(objections.most_common())}")
    count = objections.total()
    unit = f"% of {count:,}"
    return [
        record("pictures without a face with NO_CHALLENGE", share(len(through), count), unit),
        record(
            "pictures without a face and without an objection of the model",
            share(objections["none"], count),
            unit,
        ),
    ]


def measure_faces(model: Model, reference: Model | None, faces: Sequence[Face]) -> Figures:
    """Test faces: refusals by reason, and the MAE."""
    answers = [model.ask(face.jpeg) for face in faces]
    reasons = Counter(answer.refused for answer in answers if answer.refused)
    unit = f"% of {len(faces):,}"
    figures = [record("test faces refused", share(reasons.total(), len(faces)), unit)]
    for reason, count in reasons.most_common():
        figures.append(record(f"test faces refused: {reason}", share(count, len(faces)), unit))
    kept = [i for i, answer in enumerate(answers) if not answer.refused]
    mae = float(np.mean([abs(answers[i].age - faces[i].age) for i in kept]))
    other = None
    if reference:
        errors = [abs(reference.ask(faces[i].jpeg).age - faces[i].age) for i in kept]
        other = float(np.mean(errors))
    name = "MAE on the test faces that are not refused; reference: the other model"
    return [*figures, record(name, mae, "years", other)]


def measure_framings(
    model: Model, faces: Sequence[Face], backgrounds: Sequence[Image.Image]
) -> Figures:
    """Minors that are let through, by framing."""
    rng = np.random.default_rng(0)
    minors = [face for face in faces if 8 <= face.age < 18]
    adults = [face for face in faces if face.age >= ADULT]
    passed: Counter[str] = Counter()
    refused: dict[str, Counter[str]] = {}
    for i, minor in enumerate(minors):
        adult = adults[rng.integers(len(adults))]
        background = backgrounds[i % len(backgrounds)]
        place = rng.random(), rng.random()
        for name, picture in framings(minor.image, adult.image, background, place).items():
            answer = model.ask(picture)
            passed[name] += answer.kind is Kind.NO_CHALLENGE
            refused.setdefault(name, Counter())[answer.refused or "none"] += 1
    shares = {name: share(passed[name], len(minors)) for name in refused}
    for name, reasons in refused.items():
        print(f"{name}: {shares[name]:.1f} % let through; refused: {dict(reasons.most_common())}")
    unit = f"% of {len(minors):,}"
    cropped = shares.pop("as cropped")
    more = "minors let through, the worst framing: more than as cropped"
    return [
        record("minors let through, as cropped", cropped, unit),
        *(
            record(f"minors let through, {name}; reference: as cropped", value, unit, cropped)
            for name, value in shares.items()
        ),
        record(more, max(shares.values()) - cropped, "percentage points"),
    ]


def measure_scenes(
    model: Model, faces: Sequence[Face], backgrounds: Sequence[Image.Image]
) -> Figures:
    """The age of a face in a scene against its age alone."""
    rng = np.random.default_rng(0)
    off, refused = [], 0
    for i, face in enumerate(faces[:SCENES]):
        background, place = backgrounds[i % len(backgrounds)], (rng.random(), rng.random())
        alone = model.ask(resized(face.image, SCENE_FACE))
        within = model.ask(scene(face.image, SCENE_FACE, background, place))
        refused += bool(within.refused)
        if not alone.refused and not within.refused:
            off.append(abs(within.age - alone.age))
    median, p90 = np.percentile(off or [np.nan], [50, 90])
    off_median = "age of a face in a scene, off the age of the face alone: median"
    off_p90 = "age of a face in a scene, off the age of the face alone: 90th percentile"
    return [
        record(off_median, float(median), "years"),
        record(off_p90, float(p90), "years"),
        record("faces in a scene refused", share(refused, len(faces[:SCENES])), "%"),
    ]


def measure_speed(
    model: Model, reference: Model | None, faces: Sequence[Face], background: Image.Image
) -> Figures:
    """How long one photo takes."""
    cropped = [face.jpeg for face in faces[:BLOCK]]
    frames = [
        no_faces.jpeg(scene(face.image, SCENE_FACE, background, (0.5, 0.5)))
        for face in faces[:BLOCK]
    ]
    figures = []
    for name, more, block in (
        (
            "one photo, cropped, p50; reference: the other model",
            "one photo, cropped, p50: more than the other model",
            cropped,
        ),
        (
            "one photo of 1920 × 1080, p50; reference: the other model",
            "one photo of 1920 × 1080, p50: more than the other model",
            frames,
        ),
    ):
        p50, *other = p50s([model, reference] if reference else [model], block)
        figures.append(record(name, p50, "ms", *other))
        figures += [record(more, p50 - before, "ms") for before in other]
    return figures


def p50s(models: Sequence[Model], block: Sequence[bytes]) -> list[float]:
    """The median time of a photo with each model, ms. They take turns; the first does not count."""
    times: list[list[float]] = [[] for _ in models]
    for turn in range(TURNS + 1):
        for model, taken in zip(models, times, strict=True):
            for photo in block:
                start = time.perf_counter()
                model.ask(photo)
                if turn:
                    taken.append((time.perf_counter() - start) * 1e3)
    return [float(np.median(taken)) for taken in times]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modes", nargs="*", default=MODES, metavar="|".join(MODES))
    parser.add_argument("--model", type=Path, required=True, help="version folder")
    parser.add_argument("--reference", type=Path, help="version folder of another model")
    parser.add_argument("--photos", type=Path, required=True, help="folder with labels.csv")
    parser.add_argument(
        "--others", type=Path, nargs="+", required=True, help="folders of pictures without a face"
    )
    options = parser.parse_args()
    if unknown := set(options.modes) - set(MODES):
        parser.error(f"no mode of {', '.join(MODES)}: {', '.join(sorted(unknown))}")
    warnings.filterwarnings("ignore", module=r"PIL\.")
    os.environ.setdefault("TF_ONEDNN_ASSUME_FROZEN_WEIGHTS", "1")  # as the server sets it
    model = Model(options.model)
    reference = Model(options.reference) if options.reference else None
    faces = read_test_faces(options.photos)
    backgrounds = read_backgrounds(options.others)
    measure = {
        "others": lambda: measure_others(model, options.others),
        "faces": lambda: measure_faces(model, reference, faces),
        "framings": lambda: measure_framings(model, faces, backgrounds),
        "scenes": lambda: measure_scenes(model, faces, backgrounds),
        "speed": lambda: measure_speed(model, reference, faces, backgrounds[0]),
    }
    figures = [figure for mode in options.modes for figure in measure[mode]()]
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
