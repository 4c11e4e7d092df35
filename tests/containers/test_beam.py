"""A job service and workers from the image give the same results as Beam inside the step."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
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
from pipeline.summary import GATE_SHUT, PUSHED
from tests.containers.conftest import POD, Run

JOBS, WORKERS = 8099, 50000  # ports in the network of the containers

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
PORTABLE = [
    "beam.runner=PortableRunner",
    f"beam.options=[--job_endpoint=localhost:{JOBS}, --environment_type=EXTERNAL,"
    f" --environment_config=localhost:{WORKERS}, --sdk_container_image=none]",
]


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos. Every container mounts it at the same path."""
    folder = tmp_path_factory.mktemp("volume")
    folder.chmod(0o777)
    draw_sample(folder / "photos", count=120)
    return folder


@contextlib.contextmanager
def container(*arguments: str, says: str) -> Iterator[str]:
    """Starts a container in the background; gives its id after it has printed `says`."""
    started = subprocess.run(
        ["docker", "run", "--detach", *POD, *arguments],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    id_ = started.stdout.strip()
    try:
        end = time.monotonic() + 60
        while says not in logs(id_):
            assert time.monotonic() < end, logs(id_)
            time.sleep(0.2)
        yield id_
    finally:
        subprocess.run(["docker", "rm", "--force", id_], capture_output=True, check=True)


def logs(id_: str) -> str:
    done = subprocess.run(["docker", "logs", id_], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def goodseed_run(
    in_pod: Run, volume: Path, name: str, sets: list[str], network: str, *statuses: int
) -> Path:
    run_dir = volume / name
    in_pod(
        "goodseed", "run", "--profile=demo", f"--photos={volume / 'photos'}",
        f"--run-dir={run_dir}", f"--set=serving.root={volume / 'serving'}",
        *(f"--set={one}" for one in [*SMALL, *sets]),
        options=[f"--volume={volume}:{volume}", f"--network={network}"],
        statuses=statuses,
    )  # fmt: skip
    return run_dir


@pytest.fixture(scope="module")
def direct(in_pod: Run, volume: Path) -> Path:
    return goodseed_run(in_pod, volume, "direct", [], "none", PUSHED)


@pytest.fixture(scope="module")
def portable(image: str, in_pod: Run, volume: Path) -> Path:
    """A run by a job service with two workers. All of them run in containers of the image."""
    script = Path(__file__).with_name("job_service.py")
    seen = f"--volume={volume}:{volume}"
    with container(
        # Beam tells the workers the host name. Without a network, only localhost can be resolved.
        "--network=none", "--hostname=localhost", seen, f"--volume={script}:/job_service.py:ro",
        image, "python", "/job_service.py", str(JOBS), says="listening at",
    ) as service:  # fmt: skip
        network = f"container:{service}"
        with container(
            f"--network={network}", seen, image, "python", "-c",
            "import logging; logging.basicConfig(level=logging.INFO);"
            "from apache_beam.runners.worker import worker_pool_main;"
            f"worker_pool_main.main(['--service_port={WORKERS}'])",
            says="Listening for workers",
        ):  # fmt: skip
            # The second model may be a little worse than the first.
            run_dir = goodseed_run(in_pod, volume, "portable", PORTABLE, network, PUSHED, GATE_SHUT)
            requested = logs(service).count("Requesting worker at")
    assert requested >= 2
    return run_dir


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


def test_same_examples(direct: Path, portable: Path) -> None:
    for split in ("train", "eval", "test"):
        for made in ("PhotoExampleGen/examples", "Transform/transformed_examples"):
            pattern = f"{made}/*/Split-{split}/*"
            assert records(direct, pattern) == records(portable, pattern), pattern


def test_same_statistics(direct: Path, portable: Path) -> None:
    for split in ("train", "eval", "test"):
        # Sums of floats depend on the order of the workers' results.
        assert statistics(portable, split) == pytest.approx(statistics(direct, split)), split


def test_same_metrics(direct: Path, portable: Path) -> None:
    # Two trainings differ a little, because threads add in different orders. So this compares the
    # metrics of the same model: the first run pushed it, and it is the baseline of the second.
    one, other = (
        tfma.load_eval_result(str(only(run_dir, "Evaluator/evaluation/*")), model_name=model)
        for run_dir, model in ((direct, ""), (portable, BASELINE))
    )
    slices = one.get_slice_names()
    assert sorted(other.get_slice_names()) == sorted(slices) and () in slices
    for key in slices:
        expected, found = one.get_metrics_for_slice(key), other.get_metrics_for_slice(key)
        for name in METRICS:
            # TFMA writes NaN as a string. A slice whose photos are all refused has no mean.
            one_value, other_value = (float(m[name]["doubleValue"]) for m in (expected, found))
            # The last bit of an age (float32) depends on the batch of the photo.
            assert other_value == pytest.approx(one_value, rel=1e-5, nan_ok=True), (key, name)
