"""A whole run, as a user starts it: what it prints and writes, and how it fails."""

from __future__ import annotations

import base64
import fcntl
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from goodseed_client import AgeClient, Reason

from components import predictions
from pipeline.local.store import metadata_store
from tests.conftest import PRIVATE, ROOT, Finished, goodseed, goodseed_command
from tests.disks import small_disk
from tests.pipeline.conftest import Command, First, arguments
from tests.serving.client.test_photo import BOMB_WARNING, fuzzed, is_sound
from tests.serving.server.test_main import process

STEPS = [
    "PhotoExampleGen",
    "ServedModel",
    "CuratedSchema",
    "StatisticsGen",
    "ExampleValidator",
    "SchemaGen",
    "Transform",
    "Trainer",
    "Evaluator",
    "ServingCheck",
    "Pusher",
    "Review",
]


def summary(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "summary.json").read_text())


def versions(run_dir: Path) -> list[str]:
    return sorted(p.name for p in (run_dir / "serving" / "goodseed_age").iterdir())


def cached(finished: Finished) -> set[str]:
    return {step for step in STEPS if f"{step}: from the cache" in finished.out}


@pytest.fixture
def run_dir(first: First, tmp_path: Path) -> Iterator[Path]:
    """The folder of the first run; after the test it is restored."""
    shutil.copytree(first[0], tmp_path / "before", symlinks=True)
    yield first[0]
    shutil.rmtree(first[0])
    shutil.move(tmp_path / "before", first[0])


def test_a_run_pushes(first: First) -> None:
    run_dir, finished, document = first
    assert finished.status == 0, finished.err
    assert versions(run_dir) == [str(document["pushed_version"])]
    assert [step for step in STEPS if f" {step}: " in finished.out] == STEPS
    assert "age not a number 1" in finished.out and "age conflict 2" in finished.out
    assert f"{document['gate']['value']:.2f} years (bound 150.00)" in finished.out
    assert finished.err == ""
    assert not any((run_dir / "resume").iterdir())


def test_the_summary_is_complete(first: First) -> None:
    document = first[2]
    examples = document["examples"]
    assert sum(examples[s] for s in ("train", "eval", "test")) == 239
    assert sum(examples["rejected"].values()) == 7
    gate = document["gate"]
    objections = gate["objections"]
    refused, test = sum(objections.values()), examples["test"]
    assert gate == {
        "metric": "mean_absolute_error", "value": gate["value"], "bound": 150.0,
        "baseline": None, "measured": test - refused, "measured_bound": 1, "refused": refused,
        "refused_share": pytest.approx(refused / test, abs=1e-5), "refused_bound": 0.9,
        "objections": objections, "challenge": gate["challenge"], "comparison": None,
        "blessed": True, "reasons": [],
    }  # fmt: skip
    # Some 40 eval photos show too few minors to prove anything.
    assert gate["challenge"]["age"] is None and not gate["challenge"]["certified"]
    assert set(document["seconds"]) == {*STEPS, "total"}
    assert (
        document["seconds"]["total"]
        >= sum(document["seconds"][s] for s in STEPS) - len(STEPS) * 0.1
    )
    assert 100 < document["peak_rss_mb"]["total"] < 5000  # measuring the coverage takes some
    assert document["versions"]["tfx"] == "1.21.0"
    assert document["failure"] is None


def test_every_test_photo_is_in_the_evaluation(
    first: First,
) -> None:
    (folder,) = (first[0] / "artifacts" / "Evaluator" / "evaluation").iterdir()
    rows = pq.read_table(folder / predictions.FILE).to_pandas()
    result = tfma.load_eval_result(str(folder))
    assert len(rows) == first[2]["examples"]["test"] == rows["photo_id"].nunique()
    answered = rows["candidate_objection"] == ""
    assert (~answered).sum() == first[2]["gate"]["refused"]
    errors = (rows["candidate"] - rows["age"]).abs()
    assert errors[answered].mean() == pytest.approx(first[2]["gate"]["value"], rel=1e-5)
    for key, metrics in result.slicing_metrics:
        inside = np.full(len(rows), True)
        for column, value in key:
            inside &= rows[column] == value
        found = metrics[""][""]
        assert found["all_photos"]["doubleValue"] == inside.sum(), key
        assert found["refused"]["doubleValue"] == pytest.approx((~answered)[inside].mean()), key
        if (inside & answered).any():
            mae = found["mean_absolute_error"]["doubleValue"]
            assert errors[inside & answered].mean() == pytest.approx(mae, rel=1e-5), key
    assert {tuple(column for column, _ in key) for key in result.get_slice_names()} == {
        (), ("age_band",), ("gender",), ("store",), ("age_band", "gender"), ("age_band", "store"),
    }  # fmt: skip


def test_the_pushed_model_answers(first: First, drawn_photos: Path) -> None:
    run_dir, _, document = first
    version = run_dir / "serving" / "goodseed_age" / str(document["pushed_version"])
    model = tf.saved_model.load(str(version))
    photos = [p.read_bytes() for p in sorted((drawn_photos / "final_files").glob("*.jpg"))]
    jpegs = [p for p in photos if p.startswith(b"\xff\xd8") and p.endswith(b"\xff\xd9")][:3]
    ages = model.signatures["serving_default"](image=tf.constant(jpegs))["age"]
    assert ages.shape == (3,) and ages.dtype == tf.float32
    assert np.isfinite(ages).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:PIL", BOMB_WARNING)
def test_damaged_photos_get_an_advice_from_the_pushed_model(
    first: First,
) -> None:
    """benchmarks/client.py does this with more photos."""
    model = first[0] / "serving" / "goodseed_age"
    photos = fuzzed(300)
    with (
        process(f"--model_base_path={model}", "--model_name=goodseed_age") as server,
        AgeClient(f"127.0.0.1:{server.port}", timeout=30) as client,
    ):
        advices = [client.check(photo) for photo in photos]
        predictions = [client.predict([photo], 30)[0][0] for photo in photos]  # not prepared
    assert all(map(is_sound, advices))
    reasons = {advice.reason for advice in advices}
    assert {Reason.BAD_PHOTO} < reasons
    faults = {Reason.INTERNAL_ERROR, Reason.NO_SERVER, Reason.SERVER_ERROR, Reason.TIMEOUT}
    assert not reasons & faults
    assert {prediction.valid for prediction in predictions} == {True, False}


def test_the_artifacts_hold_pixels_only(first: First, drawn_photos: Path) -> None:
    photos = [photo.read_bytes() for photo in (drawn_photos / "final_files").iterdir()]
    assert sum(PRIVATE in photo for photo in photos) > 200
    read = {".gz": lambda file: gzip.decompress(file.read_bytes()), ".parquet": parquet_text}
    files = [file for file in first[0].rglob("*") if file.is_file()]
    assert {".gz", ".parquet", ".html", ".pb", ".db"} <= {file.suffix for file in files}
    for file in files:
        data = read.get(file.suffix, Path.read_bytes)(file)
        assert PRIVATE not in data, file
        pictures = re.findall(rb"data:image/jpeg;base64,([^\"]+)", data)
        assert bool(pictures) == (file.suffix == ".html")
        assert not any(PRIVATE in base64.b64decode(picture) for picture in pictures)


def parquet_text(file: Path) -> bytes:
    return pq.read_table(file).to_pandas().to_csv().encode()


def test_a_run_ends_with_its_page(first: First) -> None:
    page = Path(first[2]["review"])
    assert str(page) in first[1].out
    assert {file.name for file in page.parent.iterdir()} == {
        "index.html", "model_card.md", "suspects.csv",
    }  # fmt: skip
    assert page.stat().st_size < 5_000_000
    card = (page.parent / "model_card.md").read_text()
    assert f"version: {first[2]['pushed_version']}".lower() in card.lower()
    assert not re.search(r"\bNone\b|\bnan\b", card)


@pytest.mark.e2e
def test_another_run_uses_the_cache(run_dir: Path, drawn_photos: Path) -> None:
    before = summary(run_dir)
    finished = goodseed(*arguments(drawn_photos, run_dir))
    again = summary(run_dir)
    assert finished.status == 0, finished.err
    assert cached(finished) == set(STEPS) - {"ServedModel", "Evaluator", "Pusher", "Review"}
    mae = pytest.approx(before["gate"]["value"], abs=1e-4)  # the rounding depends on the batches
    assert again["gate"]["value"] == mae and again["gate"]["baseline"] == mae
    decision = Path(again["review"]).read_text().split('id="slices"')[0]
    assert decision.count(">MAE, years, this model minus the live model<") == 1
    assert again["pushed_version"] == before["pushed_version"]  # it is the live model already
    assert versions(run_dir) == [str(before["pushed_version"])]


@pytest.mark.e2e
def test_a_run_without_its_metadata_store_starts_anew(run_dir: Path, drawn_photos: Path) -> None:
    """The numbers of the artifacts are given out again; no step may read what was there before."""
    (shard, *_) = sorted((run_dir / "artifacts").glob("PhotoExampleGen/examples/1/Split-train/*"))
    stale = shard.with_name("data_tfrecord-00007-of-00009.gz")
    shutil.copy(shard, stale)
    before = summary(run_dir)
    (run_dir / "metadata.db").unlink()
    finished = goodseed(*arguments(drawn_photos, run_dir))
    assert finished.status == 0, finished.err
    assert "artifacts that metadata.db does not know" in finished.out
    assert shard.exists() and not stale.exists()
    assert not cached(finished)
    assert summary(run_dir)["examples"] == before["examples"]


@pytest.mark.e2e
def test_a_model_above_the_bound_is_not_pushed(run_dir: Path, drawn_photos: Path) -> None:
    live = versions(run_dir)
    finished = goodseed(*arguments(drawn_photos, run_dir, "evaluator.max_mae=0.5"))
    document = summary(run_dir)
    assert finished.status == 3
    assert document["pushed_version"] is None
    assert not document["gate"]["blessed"]
    assert document["gate"]["reasons"][0].endswith("is above the bound of 0.50")
    assert "not pushed: MAE" in finished.out
    assert versions(run_dir) == live


@pytest.mark.e2e
def test_a_model_worse_than_the_live_one_is_not_pushed(run_dir: Path, drawn_photos: Path) -> None:
    push_a_model_that_knows_the_ages(run_dir / "serving" / "goodseed_age" / "99999999999")
    finished = goodseed(*arguments(drawn_photos, run_dir))
    document = summary(run_dir)
    assert finished.status == 3
    assert document["gate"]["baseline"] == pytest.approx(0, abs=1e-5)
    assert "worse than the live model's 0.00 by more than 0.25" in finished.out
    assert document["pushed_version"] is None


def push_a_model_that_knows_the_ages(folder: Path) -> None:
    class Oracle(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
            return tf.io.parse_example(examples, {"age": tf.io.FixedLenFeature([], tf.float32)})

    oracle = Oracle()
    tf.saved_model.save(oracle, str(folder), signatures={"examples": oracle.examples})


@pytest.mark.e2e
def test_the_median_does_not_pass_the_gate(run_dir: Path, drawn_photos: Path) -> None:
    """A network that learns nothing gives the same age for every photo."""
    live = versions(run_dir)
    overrides = ("trainer.learning_rate=1e-12", "evaluator.max_mae=8")
    finished = goodseed(*arguments(drawn_photos, run_dir, *overrides))
    assert finished.status == 3, finished.err
    assert summary(run_dir)["gate"]["value"] > 12
    assert versions(run_dir) == live


def test_a_column_that_makes_slices_is_missed_at_once(
    drawn_photos: Path, tmp_path: Path, command: Command
) -> None:
    chosen = "evaluator.slice_columns=[store, branch]"
    finished = command(*arguments(drawn_photos, tmp_path / "run", chosen))
    assert finished.status == 2
    (line,) = finished.err.splitlines()
    assert line.endswith("no extra column branch; choose from those that it has: gender, store")


@pytest.mark.parametrize(
    ("csv", "said"),
    [
        ("file_name,real_age\n", "no row"),
        ("file_name,years\na.jpg,3\n", "real_age"),
        ("file_name,real_age\nnone.jpg,33\n", "rejected"),
    ],
)
def test_a_failed_step_is_one_line(csv: str, said: str, tmp_path: Path, command: Command) -> None:
    (tmp_path / "photos" / "final_files").mkdir(parents=True)
    (tmp_path / "photos" / "labels.csv").write_text(csv)
    finished = command(*arguments(tmp_path / "photos", tmp_path / "run"))
    assert finished.status == 1
    first_line, log_line = finished.err.splitlines()
    assert first_line.startswith("goodseed: PhotoExampleGen: ") and said in first_line
    assert log_line.endswith("run.log")
    assert summary(tmp_path / "run")["failure"] in first_line
    assert not list((tmp_path / "run" / "artifacts").glob("PhotoExampleGen/examples/*"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--photos": "/no/such/folder"}, "/no/such/folder: no such folder"),
        ({"--profile": "tpu"}, "unknown profile 'tpu'"),
        ({"--set": "trainer.epoch=1"}, "trainer.epoch: no such option"),
        ({"--run-dir": "/proc/run"}, "give a --run-dir that you may write to"),
        ({"--set": "review.population=/no.csv"}, "review.population: /no.csv: No such file"),
    ],
)
def test_a_mistake_is_one_line(
    change: dict[str, str], said: str, tmp_path: Path, command: Command
) -> None:
    options = {"--photos": str(tmp_path), "--run-dir": str(tmp_path / "run"), **change}
    finished = command("run", *(word for option in options.items() for word in option))
    assert finished.status == 2
    assert said in finished.err
    assert finished.err.count("\n") == 1
    assert finished.out == ""


def test_a_second_run_in_the_same_folder_refuses(tmp_path: Path, command: Command) -> None:
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        finished = command(*arguments(tmp_path, tmp_path))
    assert finished.status == 2
    assert "another run is using it" in finished.err


@pytest.mark.slow
@pytest.mark.e2e
def test_a_killed_step_runs_again(drawn_photos: Path, tmp_path: Path) -> None:
    """SIGKILL in each step, one after the other; then a last run completes."""
    run_dir = tmp_path / "run"
    for step in STEPS:
        kill_in(step, arguments(drawn_photos, run_dir), run_dir / "run.log")
        assert not (run_dir / "serving").exists() or versions_are_whole(run_dir)
    finished = goodseed(*arguments(drawn_photos, run_dir))
    assert finished.status == 0, finished.err
    assert {"PhotoExampleGen", "StatisticsGen", "Transform"} <= cached(finished)
    assert str(summary(run_dir)["pushed_version"]) in versions(run_dir)
    store = metadata_store(run_dir / "metadata.db")
    complete = {str(e.id) for e in store.get_executions() if e.last_known_state == 3}
    leftovers = {p.name for p in (run_dir / "artifacts").glob("*/*/*") if p.name.isdecimal()}
    assert leftovers <= complete


def kill_in(step: str, command: list[str], log: Path) -> None:
    log.unlink(missing_ok=True)
    with subprocess.Popen(
        goodseed_command(*command), cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True
    ) as process:
        started = f"Component {step} is running."
        while not (log.exists() and started in log.read_text(errors="replace")):
            assert process.poll() is None, f"ended before {step}"
            time.sleep(0.02)
        time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)


def versions_are_whole(run_dir: Path) -> bool:
    base = run_dir / "serving" / "goodseed_age"
    loadable = [p for p in base.iterdir() if p.name.isdecimal()] if base.exists() else []
    return all((p / "saved_model.pb").exists() for p in loadable)


@pytest.mark.e2e
@pytest.mark.parametrize(("megabytes", "step"), [(2, "PhotoExampleGen"), (40, "Trainer")])
def test_a_full_disk_is_one_line(
    megabytes: int, step: str, drawn_photos: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path, f"{megabytes}m"):
        finished = goodseed(*arguments(drawn_photos, tmp_path / "run"))
        assert finished.status == 1
        assert "No space left on device" in finished.err
        assert "Traceback" not in finished.out + finished.err
        assert finished.err.startswith(f"goodseed: {step}: ")


@pytest.mark.e2e
def test_real_faces(faces: Path, tmp_path: Path) -> None:
    """Real photos with groups: sliced by group, none rejected, in bounded memory."""
    photos = tmp_path / "photos"
    (photos / "final_files").mkdir(parents=True)
    rows = (faces / "labels_with_groups.csv").read_text().splitlines()[:241]
    (photos / "labels.csv").write_text("\n".join(rows))
    for row in rows[1:]:
        name = row.split(",")[0]
        shutil.copyfile(faces / "final_files" / name, photos / "final_files" / name)
    finished = goodseed(*arguments(photos, tmp_path / "run"))
    document = summary(tmp_path / "run")
    assert finished.status == 0, finished.err
    assert document["examples"]["rejected"] == {}
    assert document["peak_rss_mb"]["total"] < 5000
    (evaluation,) = (tmp_path / "run" / "artifacts" / "Evaluator" / "evaluation").iterdir()
    result = tfma.load_eval_result(str(evaluation))
    assert {key[0][0] for key, _ in result.slicing_metrics if key} == {
        "age_band", "gender", "group",
    }  # fmt: skip
    transformed = size(tmp_path / "run" / "artifacts" / "Transform" / "transformed_examples")
    assert transformed <= size(photos / "final_files")


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
