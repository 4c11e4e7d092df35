"""The whole graph on a folder as people have it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from components import predictions
from schemas import features
from tests.conftest import goodseed
from tests.pipeline.conftest import arguments

PEOPLE = 80


@pytest.fixture(scope="module")
def scanned(drawn_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the manner of FG-NET: grey scans of 80 people, named by person and age.

    Its table was written by a spreadsheet. It has columns with names of ours, dates, numbers and
    sentences. A part of the photos is linked from a cache.
    """
    photos = tmp_path_factory.mktemp("scans") / "my [old] photos*"
    cache = photos.parent / "cache"
    pictures = photos / "final_files"
    pictures.mkdir(parents=True)
    cache.mkdir()
    lines = ["sep=;", "File_Name;REAL AGE;Candidate;Objection;taken;weight;note"]
    with (drawn_photos / "labels.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["real_age"].replace(".", "").isdigit()]
    for number, row in enumerate(rows):
        age = float(row["real_age"])
        name = f"{number % PEOPLE:03d}A{age:02.0f}-{number}.JPG"
        picture = (cache if number % 5 == 0 else pictures) / name
        try:
            with Image.open(drawn_photos / "final_files" / row["file_name"]) as image:
                image.convert("L").save(picture, "JPEG")
        except OSError:  # some of the drawn files are missing or broken
            continue
        if number % 5 == 0:
            (pictures / name).symlink_to(picture)
        cells = [
            name.lower() if number % 2 else f"final_files\\{name}",
            f"{age:.1f}".replace(".", ","),
            "yes" if number % 3 else "no",
            "x",
            f"2024-05-{number % 28 + 1:02d}",
            f"{number / 7:.3f}".replace(".", ","),
            f"Vu à l'été, photo {number}",
        ]
        lines.append(";".join(cells))
    (photos / "labels.csv").write_bytes("\r\n".join(lines).encode("cp1252"))
    return photos


@pytest.mark.e2e
def test_a_folder_as_people_have_it(scanned: Path) -> None:
    run_dir = scanned.parent / "run 1 (of May), d'été"
    finished = goodseed(*arguments(scanned, run_dir))
    assert finished.status == 0, finished.err
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    assert summary["pushed_version"]
    assert set(summary["examples"]["rejected"]) <= {"age conflict", "duplicate picture"}
    (evaluation,) = (run_dir / "artifacts" / "Evaluator" / "evaluation").iterdir()
    columns = pq.read_schema(evaluation / predictions.FILE).names
    extra = {name for name in columns if name not in features.OUR_NAMES}
    assert {"csv_candidate", "csv_objection"} <= extra
