"""The benchmark of the guard: its framings, its photos, and a run with a fake model."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from benchmarks import guard, results
from tests.components.trainer import tiny

FACE = Image.new("RGB", (40, 50), (200, 100, 20))
BACKGROUND = Image.new("RGB", (192, 108))


def bounds(picture: Image.Image) -> tuple[int, int, int, int] | None:
    """The box around all that is not black: left, top, right, bottom."""
    return picture.convert("L").getbbox()


@pytest.mark.parametrize(
    ("place", "left_top"), [((0, 0), (0, 0)), ((1, 1), (144, 48)), ((0.5, 0.25), (72, 12))]
)
def test_a_pasted_face_is_where_it_should_be(
    place: tuple[float, float], left_top: tuple[int, int]
) -> None:
    frame = guard.scene(FACE, 60, BACKGROUND, place)
    assert frame.size == BACKGROUND.size
    assert bounds(frame) == (*left_top, left_top[0] + 48, left_top[1] + 60)
    assert bounds(BACKGROUND) is None


def test_framings_differ_as_their_names_say() -> None:
    face = FACE.copy()
    face.paste((255, 255, 255), (0, 0, 40, 10))  # its top
    adult = Image.new("RGB", (100, 100), (20, 100, 200))
    found = guard.framings(face, adult, Image.new("RGB", guard.FULL_HD), (0.5, 0.5))
    assert found["as cropped"] is face
    assert found["half of the frame's height"].size == (80, 100)
    assert bounds(found["half of the frame's height"]) == (20, 25, 60, 75)
    assert bounds(found["a quarter of the frame's height"]) == (60, 75, 100, 125)
    assert found["upside down"].getpixel((20, 49)) == (255, 255, 255)
    assert found["turned by 90°"].size == (50, 40)
    both = found["beside an adult"]
    assert both.size == (90, 50)
    assert (both.getpixel((20, 40)), both.getpixel((60, 40))) == ((200, 100, 20), (20, 100, 200))
    assert found["red and blue swapped"].getpixel((20, 40)) == (20, 100, 200)
    for size in guard.PASTED:
        left, top, right, bottom = bounds(found[f"{size} pixels in 1920 × 1080"]) or (0, 0, 0, 0)
        assert (right - left, bottom - top) == (round(size * 0.8), size)


class DarkIsNoFace(tf.Module):
    """Everybody is 40 years old. A photo that is mostly black is no face."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def serve(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        means = tf.map_fn(
            lambda jpeg: tf.reduce_mean(tf.cast(tf.io.decode_jpeg(jpeg, 3), tf.float32)),
            image,
            tf.float32,
        )
        objection = tf.where(means > 60, "", "no_face")
        return {
            "age": tf.fill(tf.shape(image), 40.0),
            "valid": tf.fill(tf.shape(image), True),
            "objection": objection,
            "challenge": objection != "",
        }


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A version folder, photos with labels.csv, and a picture without a face."""
    servable = DarkIsNoFace()
    tf.saved_model.save(servable, str(tmp_path / "model"), {"serving_default": servable.serve})
    pictures = tmp_path / "photos" / "final_files"
    pictures.mkdir(parents=True)
    with (tmp_path / "photos" / "labels.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(("file_name", "real_age"))
        for i in range(60):
            age = 10 + 30 * (i % 2)
            (pictures / f"{i}.jpg").write_bytes(tiny.photo((100, 80), 60, seed=i))
            writer.writerow((f"{i}.jpg", age))
    (tmp_path / "others").mkdir()
    Image.new("RGB", guard.FULL_HD).save(tmp_path / "others" / "night.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "others" / "icon.png")  # too small
    (tmp_path / "others" / "README").write_text("no picture")
    return tmp_path


def test_the_split_is_that_of_the_pipeline(folders: Path) -> None:
    faces = guard.read_test_faces(folders / "photos")
    assert 0 < len(faces) < 20
    assert {face.age for face in faces} == {10, 40}
    assert all(face.image.size == (80, 100) for face in faces)


@pytest.mark.slow
def test_a_run_measures_every_part(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "RESULTS", folders)
    # The benchmark assumes frozen weights. In this process, other tests change theirs.
    monkeypatch.setenv("TF_ONEDNN_ASSUME_FROZEN_WEIGHTS", "0")
    model, photos, others = (str(folders / name) for name in ("model", "photos", "others"))
    options = ["--model", model, "--reference", model, "--photos", photos, "--others", others]
    monkeypatch.setattr(sys, "argv", ["guard.py", *options])
    guard.main()
    output = capsys.readouterr().out.splitlines()
    refused = next(line for line in output if line.startswith("refused with the client: "))
    assert "'dark': " in refused
    figures = {figure["name"]: figure["value"] for figure in json.loads(output[-1])}
    assert figures["test faces refused"] == 0
    assert figures["MAE on the test faces that are not refused; reference: the other model"] > 0
    assert figures["minors let through, as cropped"] == 100
    small = "minors let through, 90 pixels in 1920 × 1080; reference: as cropped"
    assert figures[small] == 0  # the background is dark
    assert figures["faces in a scene refused"] == 100
    assert np.isnan(figures["age of a face in a scene, off the age of the face alone: median"])
    assert len(results.read(folders / "guard.csv")) == len(figures)
