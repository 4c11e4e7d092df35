"""`goodseed kfp run-local` with the real image gives the same results as `goodseed run`."""

from __future__ import annotations

import csv
import json
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from tensorflow.core.protobuf import saved_model_pb2

from tests.conftest import Finished, goodseed

# A fast run. The bound lets almost any network pass.
OPTIONS = (
    "transform.image_size=32", "trainer.epochs=2", "evaluator.max_mae=60",
    "guard.max_refused_test=0.9", "evaluator.min_test_photos=1",
)  # fmt: skip


def sets(*overrides: str) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


@pytest.fixture
def package(image: str, tmp_path: Path) -> Path:
    file = tmp_path / "goodseed.yaml"
    done = goodseed(
        "kfp", "compile", file, "--profile", "demo", *sets(f"kubeflow.image={image}", *OPTIONS)
    )
    assert done == Finished(0, f"{file}\n", "")
    return file


def first_1000(faces: Path, folder: Path) -> Path:
    """A folder with the first 1,000 of the real photos."""
    (folder / "final_files").mkdir(parents=True)
    with open(faces / "labels.csv") as source, open(folder / "labels.csv", "w") as target:
        rows = csv.DictReader(source)
        writer = csv.DictWriter(target, rows.fieldnames or [])
        writer.writeheader()
        for row in islice(rows, 1000):
            writer.writerow(row)
            shutil.copy(faces / "final_files" / row["file_name"], folder / "final_files")
    return folder


@pytest.mark.parametrize("which", ["drawn", "faces"])
def test_a_run_in_containers_gives_the_results_of_a_local_run(
    which: str, package: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if which == "faces":
        photos = first_1000(request.getfixturevalue("faces"), tmp_path / "photos")
    else:
        photos = request.getfixturevalue("drawn_photos")
    here, pods = tmp_path / "here", tmp_path / "pods"
    alone = goodseed(
        "run", "--photos", photos, "--run-dir", here, "--profile", "demo", *sets(*OPTIONS)
    )
    in_containers = goodseed("kfp", "run-local", package, "--photos", photos, "--run-dir", pods)
    assert in_containers.status == alone.status == 0, in_containers.out[-3000:] + in_containers.err

    expected = json.loads((here / "summary.json").read_text())
    (file,) = pods.glob("runs/*/summary.json")
    summary = json.loads(file.read_text())
    assert summary["examples"] == expected["examples"]
    assert summary["gate"]["blessed"] is expected["gate"]["blessed"] is True
    # Two trainings with one seed differ a little, because threads add in different orders.
    assert summary["gate"]["value"] == pytest.approx(expected["gate"]["value"], rel=0.1)
    versions = [
        run_dir / "serving" / "goodseed_age" / str(document["pushed_version"])
        for run_dir, document in ((here, expected), (pods, summary))
    ]
    assert signatures(versions[0]) == signatures(versions[1])


def test_a_model_that_does_not_pass_and_a_failed_step(
    package: Path, drawn_photos: Path, tmp_path: Path
) -> None:
    run = ("kfp", "run-local", package, "--photos", drawn_photos, "--run-dir", tmp_path / "pods")
    not_passed = goodseed(*run, *sets("evaluator.max_mae=0.01"))
    assert not_passed.status == 3 and "is above the bound of 0.01" in not_passed.out
    assert not list((tmp_path / "pods" / "serving").iterdir())

    failed = goodseed(*run, *sets("data.age_column=years"))
    assert failed.status == 1
    assert "years" in failed.err and len(failed.err.splitlines()) == 1


def signatures(version: Path) -> dict[str, Any]:
    """The inputs and outputs of the model's signatures, with their types and shapes."""
    model = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    return {
        name: [
            {key: (tensor.dtype, str(tensor.tensor_shape)) for key, tensor in sorted(side.items())}
            for side in (signature.inputs, signature.outputs)
        ]
        for name, signature in model.meta_graphs[0].signature_def.items()
    }
