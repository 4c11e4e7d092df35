"""The step PhotoExampleGen: its examples, its rejects, its splits and its cache."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tfx.components import StatisticsGen
from tfx.orchestration import metadata, pipeline
from tfx.orchestration.local.local_dag_runner import LocalDagRunner

from components.errors import UserError
from components.photo_example_gen import PhotoExampleGen
from components.photo_example_gen.component import Picture, assign_splits
from components.photo_example_gen.labels import Row, Table
from components.photo_example_gen.rejects import Reason, Rejected
from pipeline.config import Data
from schemas import features
from tests.components.photo_example_gen.pictures import decoded, noise, smooth
from tests.pictures import encoded, exif

MULTI_THREADING = ("--direct_running_mode=multi_threading", "--direct_num_workers=3")


def test_each_photo_becomes_an_example(make_faces, run):
    turned = encoded(smooth(), "PNG", exif=exif(6))
    output = run(make_faces(40, [("turned.png", "23,5")], {"turned.png": turned}))
    assert output.rejects == []
    examples = {example["file_name"]: example for example in output.examples()}
    assert len(examples) == 41
    for i in range(40):
        example = examples[f"final_files/{i}.jpg".encode()]
        assert example.keys() == set(features.RAW_FEATURES)
        assert (example["image"], example["age"]) == (encoded(noise(i)), i)
    example = examples[b"final_files/turned.png"]
    assert (example["age"], example["format"], example["mode"]) == (23.5, b"PNG", b"RGB")
    assert (example["width"], example["height"]) == smooth().size
    assert tf.io.decode_jpeg(example["image"]).shape == (*smooth().size, 3)
    assert 0 < example["brightness"] < 1 < example["sharpness"] + 1

    assert output.artifact.split_names == '["train", "eval", "test"]'
    assert output.artifact.span == 0
    assert output.property("examples") == {k: len(v) for k, v in output.records.items()}
    assert output.property("rejects") == {}
    assert output.property("extra_columns") == []
    leftovers = {path.name for path in Path(output.artifact.uri).iterdir()}
    assert leftovers == {"Split-train", "Split-eval", "Split-test", "rejects.csv"}


def test_the_folder_of_pictures_may_be_a_link(make_faces, run):
    pictures = make_faces(40) / "final_files"
    elsewhere = pictures.rename(pictures.parents[1] / "elsewhere")
    pictures.symlink_to(elsewhere)
    assert run(pictures.parent).rejects == []


def test_extra_columns_become_features_and_empty_cells_do_not(make_folder, run):
    pictures = {f"{i}.jpg": encoded(noise(i)) for i in range(40)}
    rows = [(name, 30, "жен" if i % 2 else "", "x") for i, name in enumerate(pictures)]
    output = run(make_folder(rows, pictures, header=("file_name", "real_age", " Gender", "Group")))
    assert output.property("extra_columns") == ["gender", "group"]
    genders = Counter(example.get("gender") for example in output.examples())
    assert genders == {"жен".encode(): 20, None: 20}
    assert {example["group"] for example in output.examples()} == {b"x"}


def test_numbers_of_a_column_become_bands(make_folder, run):
    pictures = {f"{i}.jpg": encoded(noise(i)) for i in range(40)}
    rows = [(name, 30, 20 + i / 2, f"id {i}") for i, name in enumerate(pictures)]
    output = run(make_folder(rows, pictures, header=("file_name", "real_age", "apparent", "id")))
    found = Counter(example["apparent"] for example in output.examples())
    assert found == dict.fromkeys(
        [b"20 to 23.5", b"24 to 27.5", b"28 to 31.5", b"32 to 35.5", b"36 to 39.5"], 8
    )
    assert output.property("extra_values") == {"apparent": 5, "id": 40}


def test_every_reason_is_counted_and_listed(make_faces, run):
    picture = encoded(noise(1000))
    bad = {
        "absent.jpg": (30, Reason.MISSING),
        "n" * 300 + ".jpg": (30, Reason.MISSING),
        "nul\0.jpg": (30, Reason.MISSING),
        "": (30, Reason.NO_FILE_NAME),
        "../labels.csv": (30, Reason.OUTSIDE),
        "/etc/hostname": (30, Reason.OUTSIDE),
        "link.jpg": (30, Reason.UNREADABLE),
        "text.jpg": (30, Reason.UNREADABLE),
        "cut.jpg": (30, Reason.UNREADABLE),
        "large.png": (30, Reason.TOO_MANY_PIXELS),
        "ageless.jpg": ("", Reason.AGE_MISSING),
        "old.jpg": ("old", Reason.AGE_NOT_A_NUMBER),
        "unborn.jpg": (-1, Reason.AGE_OUT_OF_RANGE),
        "ancient.jpg": (121, Reason.AGE_OUT_OF_RANGE),
        "young.jpg": (20, Reason.CONFLICT),
        "aged.png": (24, Reason.CONFLICT),
        "same.png": (3, Reason.DUPLICATE_PICTURE),
    }
    pictures = {
        "text.jpg": b"no picture",
        "cut.jpg": picture[:-50],
        "large.png": encoded(noise(0, 50, 50), "PNG"),
        "young.jpg": picture,
        "aged.png": encoded(decoded(picture), "PNG"),
        "same.png": encoded(decoded(encoded(noise(3))), "PNG"),
    }
    rows = [(name, age) for name, (age, _) in bad.items()]
    photos = make_faces(60, rows, pictures)
    (photos / "final_files" / "link.jpg").symlink_to("/etc/hostname")
    with (photos / "labels.csv").open("ab") as csv_file:
        csv_file.write(b"caf\xe9.jpg,30\r\n7.jpg,8\r\nabsent.jpg,31\r\n8.jpg,25,5\r\n")
        csv_file.write(b"TWICE.jpg,30\r\n")
    for name in ("twice.jpg", "Twice.jpg"):
        (photos / "final_files" / name).touch()
    output = run(photos, max_pixels=2000, max_rejected=0.5)

    expected = [(name, reason) for name, (_, reason) in bad.items()]
    expected += [("café.jpg", Reason.MISSING), ("7.jpg", Reason.DUPLICATE_ROW)]
    expected += [("absent.jpg", Reason.DUPLICATE_ROW), ("8.jpg", Reason.CELLS)]
    expected += [("TWICE.jpg", Reason.AMBIGUOUS)]
    assert {reason for _, reason in expected} == {*Reason} - {Reason.EXCLUDED}
    listed = [(reject["file_name"], reject["reason"]) for reject in output.rejects]
    assert listed == expected
    assert [int(reject["row"]) for reject in output.rejects] == list(range(62, 84))
    assert {reject["csv"] for reject in output.rejects} == {"labels.csv"}
    assert output.property("rejects") == Counter(reason for _, reason in expected)
    assert sum(output.property("examples").values()) == 60
    assert all(example["image"].startswith(b"\xff\xd8") for example in output.examples())


def test_too_many_rejects_stop_the_step_and_leave_nothing(make_faces, run, tmp_path):
    photos = make_faces(60, [("absent.jpg", 1), ("gone.jpg", 2), ("0.jpg", ""), ("lost.jpg", 3)])
    with pytest.raises(UserError) as info:
        run(photos)
    assert str(info.value).startswith(
        "4 of 64 rows (6.2%) are rejected, more than max_rejected allows (5.0%): "
        "3 missing file (first: labels.csv row 62, 'absent.jpg'); "
        "1 age missing (first: labels.csv row 64, '0.jpg'); "
    )
    assert "\n" not in str(info.value)
    assert list((tmp_path / "examples-1").iterdir()) == []
    assert run(photos, max_rejected=4 / 64)


def test_copies_of_a_picture_do_not_count_as_errors(make_faces, run):
    copies = {f"copy-{i}.jpg": encoded(noise(i)) for i in range(20)}
    rows = [(name, i) for i, name in enumerate(copies)]
    output = run(make_faces(60, rows, copies), max_rejected=0)
    assert output.property("rejects") == {"duplicate picture": 20}
    assert output.rejects[0]["detail"] == "same as labels.csv row 2"


def test_excluded_photos_do_not_count_as_errors(make_faces, run, tmp_path):
    listed = tmp_path / "suspects.csv"
    listed.write_text("file_name\n" + "".join(f"final_files/{i}.jpg\n" for i in range(20)))
    output = run(make_faces(80), max_rejected=0, exclude=str(listed))
    assert sum(output.property("examples").values()) == 60
    assert output.property("rejects") == {"excluded": 20}
    assert output.rejects[0]["detail"] == "row 2 of suspects.csv"


def test_too_few_photos_for_three_splits(make_faces, run):
    with pytest.raises(UserError, match="2 photos are too few: none is left for"):
        run(make_faces(2))
    with pytest.raises(UserError, match="more than max_rejected"):
        run(make_faces(0, [("absent.jpg", 3)], name="none"))


def test_a_picture_is_in_one_split_and_stays_there(make_faces, run):
    copies = {f"copy-{i}.jpg": encoded(noise(i)) for i in range(3)}
    few = run(make_faces(80, name="few"))
    many = run(make_faces(400, [(name, 1) for name in copies], copies, name="many"))
    ids = {split: {e["photo_id"] for e in many.examples(split)} for split in features.SPLITS}
    assert sum(map(len, ids.values())) == len(set().union(*ids.values())) == 400
    for split in features.SPLITS:
        assert {example["photo_id"] for example in few.examples(split)} <= ids[split]
    assert {split: round(len(found) / 400, 1) for split, found in ids.items()} == {
        "train": 0.7,
        "eval": pytest.approx(0.15, abs=0.051),
        "test": pytest.approx(0.15, abs=0.051),
    }


def test_shares_are_as_configured(make_faces, run):
    photos = make_faces(300)
    output = run(photos, train_share=0.4, eval_share=0.5)
    shares = {split: count / 300 for split, count in output.property("examples").items()}
    expected = {"train": 0.4, "eval": 0.5, "test": 0.1}
    assert shares == {split: pytest.approx(share, abs=0.08) for split, share in expected.items()}


def test_the_result_depends_on_the_photos_only(make_faces, run):
    photos = make_faces(150, [("broken.jpg", 3), ("5.jpg", 5)], {"broken.jpg": b"broken"})
    first, second = run(photos), run(photos, beam_args=MULTI_THREADING)
    assert first.records == second.records
    assert first.rejects == second.rejects
    files = [
        {str(path.relative_to(output.artifact.uri)): path.read_bytes() for path in _files(output)}
        for output in (first, second)
    ]
    assert files[0] == files[1]


def _files(output):
    return [path for path in Path(output.artifact.uri).rglob("*") if path.is_file()]


def test_spans_are_read_together(make_faces, run):
    for span in (1, 2, 3):
        make_faces(40, seed=30 * span, name=f"photos/span-{span}")
    root = make_faces(0, name="photos/other").parent
    output = run(root, conflict_years=80)
    assert output.artifact.span == output.artifact.get_int_custom_property("span") == 3
    assert sum(output.property("examples").values()) == 100  # ten are in two spans each
    assert output.property("rejects") == {"duplicate picture": 20}
    assert sum(run(root, span_window=1).property("examples").values()) == 40


def test_appa_real_keeps_its_splits(make_faces, run):
    folders = {"train": (0, 30), "valid": (29, 10), "test": (0, 12)}
    for name, (seed, count) in folders.items():
        photos = make_faces(
            count, name="appa", seed=seed, csv_name=f"gt_avg_{name}.csv", folder=name
        )
    output = run(photos, conflict_years=80)
    # Pictures 0 to 11 are in train and test, picture 29 in train and valid.
    assert output.property("examples") == {"train": 17, "eval": 10, "test": 12}
    assert {example["file_name"].split(b"/")[0] for example in output.examples("eval")} == {
        b"valid"
    }
    assert output.property("rejects") == {"duplicate picture": 13}
    assert {reject["csv"] for reject in output.rejects} == {"gt_avg_train.csv"}


def row(line: int, age: float, path: str = "", split: str | None = None) -> Row:
    table = Table("labels.csv", "final_files", split, 0)
    return Row(table, line, path, path or f"{line}.jpg", age, {})


def settled(rows, outcomes, conflict_years=3.0):
    data = Data(photos="photos", conflict_years=conflict_years)
    splits, rejected = assign_splits(rows, outcomes, data)
    kept = {split: [picture.file for picture in pictures] for split, pictures in splits.items()}
    return kept, {(reject.row, str(reject.reason)) for reject in rejected}


def one_picture(*paths: str, photo_id: str = "0" * 64) -> dict[str, Picture | Rejected]:
    return {path: Picture(photo_id, path, 0, 1) for path in paths}


def test_ages_may_differ_by_as_much_as_is_configured():
    rows = [row(2, 20), row(3, 22), row(4, 23)]
    outcomes = one_picture("2.jpg", "3.jpg", "4.jpg")
    kept, rejected = settled(rows, outcomes)
    assert kept == {"train": ["2.jpg"], "eval": [], "test": []}
    assert rejected == {(3, "duplicate picture"), (4, "duplicate picture")}
    kept, rejected = settled(rows, outcomes, conflict_years=2.5)
    assert kept == {"train": [], "eval": [], "test": []}
    assert rejected == {(line, "age conflict") for line in (2, 3, 4)}


def test_a_file_listed_twice():
    rows = [row(2, 20, "a.jpg"), row(3, 21, "a.jpg"), row(4, 20, "b.jpg"), row(5, 60, "b.jpg")]
    outcomes = one_picture("a.jpg") | one_picture("b.jpg", photo_id="f" * 64)
    kept, rejected = settled(rows, outcomes)
    assert kept["train"] == ["a.jpg"]
    assert rejected == {(3, "duplicate row"), (4, "age conflict"), (5, "age conflict")}


@pytest.mark.parametrize("splits", [("train", "eval", "test"), ("test", "train", "eval")])
def test_the_copy_in_the_last_split_is_kept(splits):
    rows = [row(line, 20, split, split) for line, split in enumerate(splits, 2)]
    kept, rejected = settled(rows, one_picture(*splits))
    assert kept == {"train": [], "eval": [], "test": ["test"]}
    assert len(rejected) == 2


def run_pipeline(photos: Path, home: Path, *, statistics: bool = False) -> list[Path]:
    """Runs the step in a pipeline, with StatisticsGen or without; returns all of its artifacts."""
    step = PhotoExampleGen(Data(photos=str(photos)))
    database = metadata.sqlite_metadata_connection_config(str(home / "metadata.db"))
    LocalDagRunner().run(
        pipeline.Pipeline(
            "photos",
            str(home / "artifacts"),
            components=[step, *[StatisticsGen(step.outputs["examples"])] * statistics],
            enable_cache=True,
            metadata_connection_config=database,
            beam_pipeline_args=["--runner=FnApiRunner", "--sdk_container_image=none"],
        )
    )
    return sorted((home / "artifacts" / "PhotoExampleGen" / "examples").iterdir())


def test_statistics_gen_reads_the_examples(make_faces, tmp_path):
    run_pipeline(make_faces(60), tmp_path, statistics=True)
    counts = [
        tfdv.load_stats_binary(str(path)).datasets[0].num_examples
        for path in (tmp_path / "artifacts" / "StatisticsGen").rglob("FeatureStats.pb")
    ]
    assert len(counts) == 3
    assert sum(counts) == 60


def test_the_step_runs_again_when_the_photos_change(make_faces, tmp_path):
    photos = make_faces(60)
    (first,) = run_pipeline(photos, tmp_path)
    assert run_pipeline(photos, tmp_path) == [first]  # from the cache
    os.utime(photos / "final_files" / "3.jpg", ns=(1, 1))
    assert len(run_pipeline(photos, tmp_path)) == 2


def test_a_failed_run_leaves_nothing_and_the_next_one_succeeds(make_faces, tmp_path):
    photos = make_faces(60, [("absent", 3)] * 9)
    with pytest.raises(UserError, match="more than max_rejected"):
        run_pipeline(photos, tmp_path)
    shutil.rmtree(photos / "final_files")
    with pytest.raises(UserError, match="lacks the folder final_files/"):
        run_pipeline(photos, tmp_path)
    assert len(run_pipeline(make_faces(60), tmp_path)) == 1
