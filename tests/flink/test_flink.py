"""The graph on Flink gives the results of one machine, also if a worker or a client dies.

The cluster is the one of k8s/beam, with its images, commands and configuration.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
import tensorflow_model_analysis as tfma
from google.protobuf import json_format

from components.evaluator import BASELINE
from components.gate import MAE
from pipeline.sample.draw import draw_sample
from pipeline.summary import GATE_SHUT, PUSHED, USER_MISTAKE
from tests.containers.conftest import POD, Run
from tests.flink.cluster import Cluster, container

METRICS = (MAE, "mean_squared_error", "example_count", "mean_prediction", "calibration")

SMALL = [
    "transform.image_size=32",
    "trainer.epochs=1",
    "trainer.head_epochs=0",
    "evaluator.max_mae=100",
    "guard.max_refused_test=0.9",
    "evaluator.min_test_photos=1",
    "evaluator.max_mae_increase=100",
]
_LONG = 600  # seconds


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos. Every container that works mounts it at the same path."""
    folder = tmp_path_factory.mktemp("volume")
    folder.chmod(0o777)
    draw_sample(folder / "photos", count=120)
    return folder


@pytest.fixture(scope="module")
def cluster(image: str, beam_image: str, volume: Path) -> Iterator[Cluster]:
    with Cluster({"goodseed": image, "goodseed-beam": beam_image}, volume) as started:
        yield started


def command(volume: Path, name: str, *sets: str) -> list[str]:
    """The command of a run; each has a serving root of its own."""
    return [
        "goodseed", "run", "--profile=demo", f"--photos={volume / 'photos'}",
        f"--run-dir={volume / name}", f"--set=serving.root={volume / f'serving-{name}'}",
        *(f"--set={one}" for one in [*SMALL, *sets]),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def direct(in_pod: Run, volume: Path) -> Path:
    """A run on one machine, which pushes the model."""
    options = [f"--volume={volume}:{volume}", "--network=none"]
    in_pod(*command(volume, "direct"), options=options, statuses=[PUSHED])
    return volume / "direct"


class Client:
    """A run on the cluster. The live model is that of the direct run."""

    def __init__(self, image: str, cluster: Cluster, direct: Path, name: str):
        volume = direct.parent
        self.run_dir = volume / name
        self._name = f"client-{name}"
        self._arguments = [
            *cluster.client, f"--volume={volume}:{volume}", image,
            *command(volume, name, "beam.runner=flink", f"beam.endpoint={cluster.endpoint}"),
        ]  # fmt: skip
        served = volume / f"serving-{name}"
        shutil.copytree(volume / "serving-direct", served)
        for path in (served, *served.rglob("*")):
            path.chmod(0o777)

    def run(self, *events: Callable[[], None]) -> str:
        """Runs to the end, while events happen, one after the other; returns the output."""
        with container(self._name, *self._arguments) as process:
            for event in events:
                event()
            out, _ = process.communicate(timeout=_LONG)
        # The second model may be a little worse than the first.
        assert process.returncode in (PUSHED, GATE_SHUT), out
        return out

    def run_until(self, event: Callable[[], None]) -> None:
        """Runs until an event; then the client is killed, but not its job."""
        with container(self._name, *self._arguments):
            event()


def wait_for(happened: Callable[[], Any]) -> None:
    end = time.monotonic() + _LONG
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture(scope="module")
def harmed(image: str, cluster: Cluster, direct: Path) -> Path:
    """A run in which a Python worker dies in StatisticsGen and a TaskManager in Transform."""
    client = Client(image, cluster, direct, "harmed")

    restarts = r"goodseed-\w+-{} .* from state RUNNING to RESTARTING"

    def worker_dies() -> None:
        def with_its_task() -> bool:
            cluster.kill_workers()
            time.sleep(6)  # a new worker needs some seconds before it works
            return cluster.logged(restarts.format("StatisticsGen"))

        wait_for(lambda: cluster.done("StatisticsGen") > 0)
        wait_for(with_its_task)

    def task_manager_dies() -> None:
        examples = client.run_dir / "artifacts" / "Transform" / "transformed_examples"
        wait_for(lambda: any(examples.glob("*/Split-*/beam-temp-*")))
        cluster.kill_task_manager()

    out = client.run(worker_dies, task_manager_dies)
    assert cluster.logged(restarts.format("Transform"))
    page = "http://goodseed-flink:8081/#/job/running/"
    assert re.search(rf"Transform … \d+/\d+ tasks of {page}\w+\n", out), out
    return client.run_dir


@pytest.fixture(scope="module")
def resumed(image: str, cluster: Cluster, direct: Path) -> Path:
    """A run whose client is killed in Transform, and then started again."""
    client = Client(image, cluster, direct, "resumed")
    client.run_until(lambda: wait_for(lambda: cluster.done("Transform") > 0))
    assert cluster.done("Transform") > 0
    client.run()
    assert cluster.logged(r"goodseed-\w+-Transform .* from state \w+ to CANCELL?ING")
    return client.run_dir


@pytest.fixture(params=["harmed", "resumed"])
def other(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(f"artifacts/{pattern}")
    return found


def records(run_dir: Path, pattern: str) -> list[bytes]:
    """The examples of a split in a fixed order, also of their features."""
    files = [str(file) for file in run_dir.glob(f"artifacts/{pattern}")]
    assert files
    return sorted(
        tf.train.Example.FromString(record).SerializeToString(deterministic=True)
        for record in tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator()
    )


def statistics(run_dir: Path, split: str) -> dict[str, Any]:
    """All values of a split's statistics by their paths."""
    file = only(run_dir, f"StatisticsGen/statistics/*/Split-{split}/FeatureStats.pb")
    (dataset,) = tfdv.load_stats_binary(str(file)).datasets
    leaves: dict[str, Any] = {"num_examples": dataset.num_examples}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict | list):
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            for key, inner in pairs:
                walk(inner, f"{path}/{key}")
        else:
            leaves[path] = value

    for feature in dataset.features:
        walk(json_format.MessageToDict(feature), "/".join(feature.path.step))
    return leaves


def test_same_examples(direct: Path, other: Path) -> None:
    for split in ("train", "eval", "test"):
        for made in ("PhotoExampleGen/examples", "Transform/transformed_examples"):
            pattern = f"{made}/*/Split-{split}/*"
            assert records(direct, pattern) == records(other, pattern), pattern


def test_same_statistics(direct: Path, other: Path) -> None:
    for split in ("train", "eval", "test"):
        # Sums of floats depend on the order of the workers' results.
        assert statistics(other, split) == pytest.approx(statistics(direct, split)), split


def test_same_metrics(direct: Path, other: Path) -> None:
    # Two trainings differ a little, because threads add in different orders. So this compares the
    # metrics of the same model: the first run pushed it, and it is the baseline of the second.
    one, two = (
        tfma.load_eval_result(str(only(run_dir, "Evaluator/evaluation/*")), model_name=model)
        for run_dir, model in ((direct, ""), (other, BASELINE))
    )
    slices = one.get_slice_names()
    assert sorted(two.get_slice_names()) == sorted(slices) and () in slices
    for key in slices:
        expected, found = one.get_metrics_for_slice(key), two.get_metrics_for_slice(key)
        for name in METRICS:
            # TFMA writes NaN as a string. A slice whose photos are all refused has no mean.
            one_value, other_value = (float(m[name]["doubleValue"]) for m in (expected, found))
            # The last bit of an age (float32) depends on the batch of the photo.
            assert other_value == pytest.approx(one_value, rel=1e-5, nan_ok=True), (key, name)


def test_nothing_is_left_over(other: Path) -> None:
    assert not list(other.rglob("beam-temp-*")) and not list(other.glob(".probe-*"))


def test_workers_that_do_not_see_the_files(
    image: str, cluster: Cluster, volume: Path, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    run_dir = tmp_path / "run"
    done = subprocess.run(
        [
            "docker", "run", "--rm", *POD, *cluster.client,
            f"--volume={volume}:{volume}", f"--volume={tmp_path}:{tmp_path}", image,
            "goodseed", "run", f"--photos={volume / 'photos'}", f"--run-dir={run_dir}",
            "--profile=demo", "--set=beam.runner=flink", f"--set=beam.endpoint={cluster.endpoint}",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == USER_MISTAKE
    assert done.stderr.endswith(
        f"do not see the run folder {run_dir}: mount the same volume at this path\n"
    )
