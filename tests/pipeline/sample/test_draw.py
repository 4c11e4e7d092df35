"""The drawn sample: reproducible, with signs of age, and with files that must be rejected."""

from __future__ import annotations

import csv
import io
import itertools
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from components.errors import UserError
from pipeline.sample import draw as sample_photos
from pipeline.sample.draw import draw_photo, draw_sample
from schemas.features import AGE_BAND_STARTS, MAX_AGE

COUNT = 240  # photos of `drawn_photos`: the smallest sample with every kind of broken row
BROKEN = {"truncated", "text", "empty", "missing", "no_number", "conflict"}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as labels:
        return list(csv.DictReader(labels))


def good_rows(folder: Path) -> list[dict[str, str]]:
    return [row for row in rows(folder) if Path(row["file_name"]).stem.isdigit()]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_layout_and_columns(drawn_photos: Path) -> None:
    assert list(rows(drawn_photos)[0]) == ["file_name", "real_age", "gender", "store"]
    named = {row["file_name"] for row in rows(drawn_photos)}
    on_disk = {file.name for file in (drawn_photos / "final_files").iterdir()}
    assert named - on_disk == {"missing.jpg"}
    assert on_disk <= named
    assert {row["gender"] for row in rows(drawn_photos)} == {"female", "male"}
    assert {row["store"] for row in rows(drawn_photos)} == set(sample_photos.STORES)
    assert len(good_rows(drawn_photos)) == COUNT


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, count, seed in (("one", 40, 3), ("two", 40, 3), ("other", 1, 4)):
        draw_sample(tmp_path / name, count, seed)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    photo = "final_files/000000.jpg"
    assert contents(tmp_path / "one")[photo] != contents(tmp_path / "other")[photo]
    assert len(rows(tmp_path / "one")) == 40 + 1  # fewer photos, fewer broken rows


def test_many_formats_modes_and_sizes(drawn_photos: Path) -> None:
    kinds, orientations, sizes = set(), set(), set()
    for row in good_rows(drawn_photos):
        with Image.open(drawn_photos / "final_files" / row["file_name"]) as image:
            image.load()
            kinds.add((image.format, image.mode))
            orientations.add(image.getexif().get(0x0112))
            sizes.add(image.size)
    assert kinds == {
        *(("JPEG", mode) for mode in ("RGB", "L", "CMYK")),
        *(("PNG", mode) for mode in ("RGB", "L", "P", "RGBA")),
        *((name, "RGB") for name in ("WEBP", "BMP", "TIFF")),
        ("GIF", "P"),
    }
    assert orientations == {None, 3, 6, 8}
    assert all(160 <= min(size) <= 320 for size in sizes)
    assert any(width != height for width, height in sizes)


def test_a_turned_photo_is_upright_by_its_exif_orientation() -> None:
    upright = draw_photo(np.random.default_rng(0), 30, female=True)
    for seed in range(8):
        file = sample_photos._encode(np.random.default_rng(seed), upright, "jpg", "EXIF")
        with Image.open(io.BytesIO(file)) as stored:
            shown = ImageOps.exif_transpose(stored)
        assert np.abs(np.asarray(shown, float) - np.asarray(upright)).mean() < 8


def test_one_broken_row_of_each_kind(drawn_photos: Path) -> None:
    unreadable, ages = set(), defaultdict(set)
    for row in rows(drawn_photos):
        file = drawn_photos / "final_files" / row["file_name"]
        try:
            with Image.open(file) as image:
                ages[image.size, image.convert("RGB").tobytes()].add(row["real_age"])
        except OSError:
            unreadable.add(file.stem)
    assert unreadable == {"truncated", "text", "empty", "missing"}
    assert {row["file_name"] for row in rows(drawn_photos) if not row["real_age"].isdigit()} == {
        "no_number.jpg"
    }
    conflicts = [sorted(map(int, found)) for found in ages.values() if len(found) > 1]
    assert len(conflicts) == 1
    assert conflicts[0][1] - conflicts[0][0] > 3
    assert (len(BROKEN) + 1) / len(rows(drawn_photos)) < 0.04  # a conflict rejects both of its rows


def test_the_median_of_the_ages_fails_the_gate(drawn_photos: Path) -> None:
    ages = np.array([int(row["real_age"]) for row in good_rows(drawn_photos)])
    assert np.abs(ages - np.median(ages)).mean() > 12
    bands = np.histogram(ages, [*AGE_BAND_STARTS, MAX_AGE])[0]
    assert bands.min() >= 0.05 * COUNT
    assert ages.min() >= 1
    assert ages.max() <= 90


def test_gender_and_store_tell_nothing_about_age(drawn_photos: Path) -> None:
    by_value = defaultdict(list)
    for row in good_rows(drawn_photos):
        for column in ("gender", "store"):
            by_value[row[column]].append(int(row["real_age"]))
    means = [np.mean(ages) for ages in by_value.values()]
    assert max(means) - min(means) < 8


SEEDS = range(12)


def luma(age: int, seed: int) -> np.ndarray:
    """The photo's luma, the middle square of 100 × 100 pixels, 0 to 255."""
    image = draw_photo(np.random.default_rng(seed), age, female=seed % 2 == 0).convert("L")
    return np.asarray(ImageOps.fit(image, (100, 100)), float)


def hair_brightness(photo: np.ndarray) -> float:
    return float(photo[15:21, 40:60].mean())


def forehead_lines(photo: np.ndarray) -> float:
    return float(np.abs(np.diff(photo[26:44, 42:58], axis=0)).mean())


def pupil_row(photo: np.ndarray) -> float:
    """The row of the darkest pixel in the region of an eye."""
    return float(np.argmin(photo[45:66, 30:45].min(axis=1)) + 45)


@pytest.mark.parametrize(
    ("sign", "ages"),
    [(hair_brightness, (25, 50, 75)), (forehead_lines, (18, 35, 60, 85))],
)
def test_signs_of_ageing_grow_with_age(sign, ages) -> None:
    means = [np.mean([sign(luma(age, seed)) for seed in SEEDS]) for age in ages]
    assert all(later > 1.15 * earlier for earlier, later in itertools.pairwise(means)), means


def test_a_childs_eyes_are_lower_in_its_face() -> None:
    child, adult = (np.median([pupil_row(luma(age, seed)) for seed in SEEDS]) for age in (3, 25))
    assert child > adult + 4


def test_people_of_one_age_differ() -> None:
    brightness = [hair_brightness(luma(60, seed)) for seed in SEEDS]
    assert np.std(brightness) > 10


def test_progress_counts_the_photos(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    draw_sample(tmp_path / "photos", 3, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_drawing_the_same_sample_again_changes_nothing(tmp_path: Path) -> None:
    draw_sample(tmp_path / "photos", 2)
    before = (tmp_path / "photos/labels.csv").stat()
    draw_sample(tmp_path / "photos", 2, progress=lambda *_: pytest.fail("drew again"))
    assert (tmp_path / "photos/labels.csv").stat() == before


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    draw_sample(tmp_path, 1)
    assert len(rows(tmp_path)) == 1


@pytest.mark.parametrize("count", [2, 3])
def test_another_folder_is_never_overwritten(tmp_path: Path, count: int) -> None:
    mine = tmp_path / "mine"
    if count == 2:
        mine.mkdir()
        (mine / "labels.csv").write_text("file_name,real_age\n")
    else:
        draw_sample(mine, 2)
    before = contents(mine)
    with pytest.raises(UserError, match=r"mine exists and is not the sample of .*: name another"):
        draw_sample(mine, count)
    assert contents(mine) == before


def test_a_file_with_the_name_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").write_text("mine")
    with pytest.raises(UserError, match="photos exists"):
        draw_sample(tmp_path / "photos", 1)


def test_a_sample_of_no_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 1 photo"):
        draw_sample(tmp_path / "photos", 0)


def test_nothing_half_written_is_left(tmp_path: Path) -> None:
    def fail(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_sample(tmp_path / "photos", 4, progress=fail)
    assert not list(tmp_path.iterdir())
