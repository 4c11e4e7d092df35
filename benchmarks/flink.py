"""What the graph takes on a Flink cluster, compared with one machine.

    python -m benchmarks.flink --photos DIR --image IMAGE --beam-image IMAGE [--counts 300 6000]

It starts the cluster of k8s/beam in containers on this machine: a JobManager and two TaskManagers,
each with its pool of Python workers. For each number of photos, it runs the graph (32 pixels, one
epoch) in a container on one machine, up to 6,000 photos, and then on the cluster. On a machine with
few cores, both share the same cores, so the cluster can't be faster.

It measures the seconds of each Beam step, the bytes that each job moves between its tasks, and the
largest resident memory of a TaskManager and of its Python workers. The reference of the memory is
that at the first number of photos. It appends to results/flink.csv and ends with a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

from benchmarks.photo_example_gen import make_photos
from benchmarks.results import record
from tests.containers.conftest import POD
from tests.flink.cluster import Cluster, docker

STEPS = ("PhotoExampleGen", "StatisticsGen", "Transform", "Evaluator")
SMALL = (
    "transform.image_size=32", "transform.mirror=false", "trainer.epochs=1",
    "trainer.head_epochs=0", "evaluator.max_mae=100", "guard.max_refused_test=0.9",
)  # fmt: skip
_MOST_ALONE = 6000  # photos
_MIB = 2**20


class Memory(threading.Thread):
    """The largest resident memory, in MiB, of a TaskManager and of one pool's Python workers."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peaks = {"TaskManager": 0.0, "TaskManager's Python workers": 0.0}
        self._over = threading.Event()

    def run(self) -> None:
        """Samples twice a second."""
        while not self._over.wait(0.5):
            for number in (1, 2):
                for kind, name in zip(self.peaks, ("taskmanager", "workers"), strict=True):
                    self.peaks[kind] = max(self.peaks[kind], _resident(f"{name}-{number}"))

    def stop(self) -> None:
        """Ends the sampling."""
        self._over.set()
        self.join()


def _resident(container: str) -> float:
    _, *processes = docker("top", container, "-eo", "pid,rss").splitlines()
    return sum(int(process.split()[1]) for process in processes) / 1024


def run(image: str, volume: Path, count: int, name: str, *options: str) -> dict[str, float]:
    """Runs the graph on the photos of volume/COUNT; returns the seconds of each step."""
    run_dir = volume / f"{count}-{name}"
    flags = [one for one in options if one.startswith("--set")]
    command = [
        "docker", "run", "--rm", *POD, f"--volume={volume}:{volume}",
        *(one for one in options if one not in flags), image,
        "goodseed", "run", "--profile=demo", f"--photos={volume / str(count)}",
        f"--run-dir={run_dir}", *flags, *(f"--set={one}" for one in SMALL),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    summary = json.loads((run_dir / "summary.json").read_text("utf-8"))
    if summary["failure"]:
        sys.exit(f"the run failed: {summary['failure']}\n{done.stderr[-2000:]}")
    return dict(summary["seconds"])


def moved_bytes(cluster: Cluster) -> Counter[str]:
    """The bytes that the cluster's jobs have moved between their tasks, by step."""
    moved: Counter[str] = Counter()
    for job in cluster.ask("/jobs/overview")["jobs"]:
        vertices = cluster.ask(f"/jobs/{job['jid']}")["vertices"]
        step = job["name"].rpartition("-")[2]
        moved[step] += sum(vertex["metrics"]["write-bytes"] for vertex in vertices)
    return moved


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos")
    parser.add_argument("--image", required=True, help="of make image")
    parser.add_argument("--beam-image", required=True, help="of make beam-image")
    parser.add_argument("--counts", type=int, nargs="+", default=[300, 6000, 24000])
    options = parser.parse_args()
    figures = []
    first: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        volume = Path(folder)
        volume.chmod(0o777)
        images = {"goodseed": options.image, "goodseed-beam": options.beam_image}
        for count in options.counts:
            make_photos(options.photos, count, volume / str(count))
            alone = {}
            if count <= _MOST_ALONE:
                alone = run(options.image, volume, count, "alone", "--network=none")
            with Cluster(images, volume) as cluster:
                memory = Memory()
                memory.start()
                there = run(
                    options.image, volume, count, "flink", *cluster.client,
                    "--set=beam.runner=flink", f"--set=beam.endpoint={cluster.endpoint}",
                )  # fmt: skip
                memory.stop()
                moved = moved_bytes(cluster)
            for step in STEPS:
                name = f"{step} of {count:,} photos on Flink; reference: on one machine"
                figures.append(record(name, there[step], "s", alone.get(step)))
                name = f"{step} of {count:,} photos: moved between tasks"
                figures.append(record(name, moved[step] / _MIB, "MiB"))
            for kind, peak in memory.peaks.items():
                name = f"peak of a {kind} at {count:,} photos; reference: at {options.counts[0]:,}"
                figures.append(record(name, peak, "MiB", first.setdefault(kind, peak)))
            print(f"{count:,} photos", there, alone, dict(moved), memory.peaks, flush=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
