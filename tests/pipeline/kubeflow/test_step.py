"""The whole graph step by step, as pods run it: one process for each step."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tensorflow as tf

from components.errors import UserError
from pipeline.kubeflow import plan, records, step
from pipeline.kubeflow.compile import compile_package
from pipeline.kubeflow.launcher import RUN_ID, Task
from tests.components.trainer.test_model import check_signatures
from tests.job_service import job_service
from tests.pipeline.conftest import First
from tests.pipeline.kubeflow.cluster import LOGS, Cluster, Ran
from tests.pipeline.kubeflow.conftest import configuration
from tests.pipeline.local.test_runner import STEPS

SPLITS = ["train", "eval", "test"]

Run = tuple[Cluster, dict[str, Ran], Path]


@pytest.fixture(scope="module")
def cluster(drawn_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    folder = tmp_path_factory.mktemp("kubeflow")
    compile_package(configuration(drawn_photos, folder / "volumes"), folder / "package.yaml")
    return Cluster(folder / "package.yaml", folder / "cluster")


@pytest.fixture(scope="module")
def run(cluster: Cluster) -> Run:
    return cluster, cluster.run("run-1"), cluster.store.parents[1] / "volumes"


def summary(volumes: Path, run_id: str) -> dict[str, Any]:
    return json.loads((volumes / "work" / "runs" / run_id / "summary.json").read_text())


@pytest.mark.e2e
def test_every_step_succeeds(run: Run) -> None:
    for name, ran in run[1].items():
        assert ran.finished and ran.finished.status == 0, f"{name}: {ran.finished}"
    assert len(run[1]) == len(STEPS) + 3
    pushed, version = run[1]["pushed"].finished, run[1]["pusher"].parameters["version"]
    assert pushed and pushed.out == f"pushed version {version}\n"


@pytest.mark.e2e
def test_the_results_are_those_of_a_local_run(run: Run, first: First) -> None:
    here, there = first[2], summary(run[2], "run-1")
    assert there["examples"] == here["examples"]
    assert {**there["gate"], "value": None} == {**here["gate"], "value": None}
    assert there["gate"]["value"] == pytest.approx(here["gate"]["value"], abs=0.5)
    assert there["failure"] is None
    assert there["versions"] == here["versions"]
    assert there["seconds"].keys() == here["seconds"].keys() | {"plan"}
    assert there["peak_rss_mb"].keys() == there["seconds"].keys()
    version = there["pushed_version"]
    check_signatures(tf.saved_model.load(str(run[2] / "serving" / "goodseed_age" / str(version))))


@pytest.mark.e2e
def test_properties_go_from_step_to_step(run: Run) -> None:
    examples = run[1]["photo-example-gen"].artifacts["examples"].metadata
    assert json.loads(json.loads(examples["properties"])["split_names"]) == SPLITS
    custom = json.loads(examples["custom_properties"])
    assert custom["span"] == 0 and json.loads(custom["extra_columns"]) == ["gender", "store"]
    seen = record(run[2], "run-1", "ServingCheck")["inputs"]["PhotoExampleGen.examples"]
    assert {name: seen[name] for name in custom} == custom


@pytest.mark.e2e
def test_the_ui_gets_metrics_and_reports(run: Run) -> None:
    cluster, ran, volumes = run
    metrics = ran["evaluator"].artifacts["metrics"].metadata
    value = summary(volumes, "run-1")["gate"]["value"]
    assert metrics["mean_absolute_error, all"] == pytest.approx(value)
    assert any(name.startswith("mean_absolute_error, age_band ") for name in metrics)
    assert any(name.startswith("pass without ID, ") for name in metrics)
    assert metrics["blessed"] == 1
    assert ran["pusher"].artifacts["metrics"].metadata["pushed"] == 1
    page = cluster.file(ran["evaluator"].artifacts["report"]).read_text()
    assert page.startswith("<!doctype html>") and "age_band" in page
    assert "Pushed: version" in cluster.file(ran["summary"].artifacts["report"]).read_text()
    assert "run-1" in cluster.file(ran["review"].artifacts["report"]).read_text()


@pytest.mark.e2e
def test_the_steps_do_not_change_the_launchers_logs(run: Run) -> None:
    logs = list(run[0].pods.rglob(LOGS))
    assert len(logs) == len(STEPS) + 3
    assert all(log.read_text() == "the launcher's" for log in logs)


@pytest.mark.e2e
def test_nothing_of_a_killed_attempt_is_left(run: Run) -> None:
    assert not list(run[0].store.rglob("half-written"))


@pytest.mark.e2e
def test_a_run_whose_model_does_not_pass_succeeds_and_pushes_nothing(
    run: Run, tmp_path: Path
) -> None:
    """Steps that depend neither on the bound nor on the live model come from the cache.

    The cache does not ask where Beam works, either: this run's only Beam step uses a job service.
    """
    cluster, _, volumes = run
    live = sorted((volumes / "serving" / "goodseed_age").iterdir())
    with job_service(tmp_path) as portable:
        config = {**cluster.defaults["config"], "beam": portable.model_dump(mode="json")}
        ran = cluster.run("run-2", {"max_mae": 0.5, "config": config})
    assert all(task.succeeded for task in ran.values()), ran
    assert not list((volumes / "work" / "runs" / "run-2" / "cluster").iterdir())
    fresh = {name for name, task in ran.items() if task.finished}
    assert fresh == {"plan", "served-model", "evaluator", "pusher", "review", "summary"}
    document, before = summary(volumes, "run-2"), summary(volumes, "run-1")
    assert document["pushed_version"] is None and document["failure"] is None
    assert document["gate"]["reasons"][0].endswith("is above the bound of 0.50")
    assert document["gate"]["baseline"] == pytest.approx(before["gate"]["value"], abs=1e-4)
    assert document["examples"] == before["examples"]
    assert ran["pusher"].artifacts["metrics"].metadata["pushed"] == 0
    assert "pushed" not in ran
    assert "Not pushed" in cluster.file(ran["pusher"].artifacts["report"]).read_text()
    assert "Succeeded, not pushed" in cluster.file(ran["summary"].artifacts["report"]).read_text()
    assert sorted((volumes / "serving" / "goodseed_age").iterdir()) == live


@pytest.mark.e2e
def test_a_failed_step_and_the_summary_give_the_reason(run: Run, tmp_path: Path) -> None:
    cluster, _, volumes = run
    (tmp_path / "photos" / "final_files").mkdir(parents=True)
    (tmp_path / "photos" / "labels.csv").write_text("file_name,years\na.jpg,3\n")
    ran = cluster.run("run-3", {"photos": str(tmp_path / "photos")})
    assert set(ran) == {"plan", "photo-example-gen", "served-model", "summary"}
    failed = ran["photo-example-gen"].finished
    assert failed and failed.status == 1
    last = failed.err.splitlines()[-1]
    assert last.startswith("goodseed: PhotoExampleGen: ") and "real_age" in last
    assert "Traceback" not in failed.err
    document = summary(volumes, "run-3")
    assert f"goodseed: {document['failure']}" == last
    assert document["gate"] is None and document["pushed_version"] is None
    page = cluster.file(ran["summary"].artifacts["report"]).read_text()
    assert "Failed" in page and "real_age" in page


def test_a_volume_of_another_user(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tests run as root, whom no folder refuses. So the refusal is made up."""

    def refused(run_dir: Path) -> Path:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(run_dir / "run-1"))

    monkeypatch.setattr(records, "run_folder", refused)
    monkeypatch.setattr(sys, "argv", ["step"])
    monkeypatch.setattr(step, "Task", lambda text: SimpleNamespace(begin=lambda: None))
    assert step.main(["--run-dir", "/work", "Trainer", "{}"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    user = f"user {os.getuid()} of group {os.getgid()}"
    assert last == (
        f"goodseed: Trainer: /work/run-1: Permission denied; {user} must be allowed to write there"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"config": {"trainer": {"epoch": 1}}}, "trainer.epoch: no such option"),
        ({"serving_root": "/no/such/folder"}, "serving_root: no folder /no/such/folder"),
        ({"photos": "/no/such/folder"}, "no folder /no/such/folder"),
        ({"config": {"evaluator": {"slice_columns": ["branch"]}}}, "has no extra column branch;"),
    ],
)
def test_a_mistake_in_the_parameters_ends_the_plan(
    cluster: Cluster,
    change: dict[str, Any],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(RUN_ID, "run-4")
    output = tmp_path / "output.json"
    parameters = {**cluster.defaults, **change}
    document = {
        "inputs": {"parameterValues": parameters}, "outputs": {"outputFile": str(output)},
    }  # fmt: skip
    with pytest.raises(UserError, match=said):
        plan.write(Task(json.dumps(document)), tmp_path, records.Record("plan", tmp_path))
    assert not output.exists()


def record(volumes: Path, run_id: str, step: str) -> dict[str, Any]:
    folder = volumes / "work" / "runs" / run_id / "steps"
    return json.loads((folder / f"{step}.json").read_text())
