"""How fast PhotoExampleGen is compared with a bare loop, and how much memory it takes.

    python -m benchmarks.photo_example_gen --photos DIR [--count N]
    python -m benchmarks.photo_example_gen --photos DIR --memory 1000 6000 24000

The first command measures photos/s of the step's executor, from the CSV to the last shard, with
Beam's start. The reference is a bare loop that reads, decodes, resizes to 96 × 96 pixels and
encodes as JPEG, with a thread for each core. Both run once to warm up and then three times in
turns; the figures are medians.

The second command runs the executor on each number of photos in a process of its own, and measures
its peak memory. If the folder has fewer photos, copies that differ by one pixel are added.

Both append to results/photo_example_gen.csv and end with a line of JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.results import record

REPEATS = 3
SIDE = 96  # pixels


def make_photos(source: Path, count: int, folder: Path) -> None:
    """Fills a folder with `count` photos from another one. If it has fewer, adds changed copies."""
    with (source / "labels.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = [(row["file_name"], row["real_age"]) for row in csv.DictReader(file)]
    pictures = folder / "final_files"
    pictures.mkdir(parents=True)
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file_name", "real_age"))
        for i in range(count):
            copy, index = divmod(i, len(rows))
            name, age = rows[index]
            _copy(source / "final_files" / name, pictures / f"{copy}-{name}", copy)
            writer.writerow((f"{copy}-{name}", age))


def _copy(source: Path, target: Path, copy: int) -> None:
    if copy == 0:
        shutil.copyfile(source, target)
        return
    with Image.open(source) as image:
        image.putpixel((8 * copy, 8), (255, 0, 255))
        image.save(target, "JPEG", quality=95)


def beam_context() -> Any:
    """The context for an executor, with the default options of Beam in the pipeline."""
    from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor

    from components.beam_jobs import ARGUMENTS

    return BaseBeamExecutor.Context(beam_pipeline_args=ARGUMENTS)


def run_step(photos: Path) -> None:
    """Runs PhotoExampleGen's executor on a folder of photos, and deletes its output."""
    from tfx.types import standard_artifacts

    from components.photo_example_gen import Executor, PhotoExampleGen
    from pipeline.config import Data

    with tempfile.TemporaryDirectory() as out:
        artifact = standard_artifacts.Examples()
        artifact.uri = out
        properties = PhotoExampleGen(Data(photos=str(photos))).exec_properties
        Executor(beam_context()).Do({}, {"examples": [artifact]}, properties)


def run_loop(photos: Path) -> None:
    """Reads, decodes, resizes and encodes the same photos, with a thread for each core."""

    def one(path: Path) -> int:
        with Image.open(BytesIO(path.read_bytes())) as image:
            small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        out = BytesIO()
        small.save(out, "JPEG", quality=92)
        return len(out.getvalue())

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sum(pool.map(one, sorted((photos / "final_files").iterdir()), chunksize=32))


def seconds(run: Callable[[Path], None], photos: Path) -> float:
    """How long one run takes."""
    start = time.perf_counter()
    run(photos)
    return time.perf_counter() - start


def peak_mib() -> float:
    """Largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def compare(photos: Path, count: int) -> list[dict[str, Any]]:
    """Photos/s of the step and of the bare loop."""
    run_step(photos)
    run_loop(photos)
    pairs = [(seconds(run_step, photos), seconds(run_loop, photos)) for _ in range(REPEATS)]
    ours = count / statistics.median(step for step, _ in pairs)
    reference = count / statistics.median(loop for _, loop in pairs)
    print(f"PhotoExampleGen {ours:,.0f} photos/s, bare loop {reference:,.0f} photos/s")
    name = "photos through the step; reference: a bare loop"
    return [record(name, ours, "photos/s", reference)]


def record_peaks(step: str, peaks: Mapping[int, int]) -> list[dict[str, Any]]:
    """Records a step's peak memory, MiB, by number of photos; the first is the reference."""
    (first, reference), *others = peaks.items()
    return [
        record(f"{step} at {first:,} photos", reference, "MiB"),
        *(
            record(f"{step} at {count:,} photos; reference: at {first:,}", peak, "MiB", reference)
            for count, peak in others
        ),
    ]


def memory(source: Path, counts: list[int]) -> list[dict[str, Any]]:
    """Peak memory in MiB at each number of photos."""
    peaks = {}
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            make_photos(source, count, Path(folder, "photos"))
            command = [
                sys.executable,
                "-m",
                __spec__.name,
                "--photos",
                f"{folder}/photos",
                "--once",
            ]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[count] = json.loads(done.stdout.splitlines()[-1])["peak_mib"]
        print(f"{count:,} photos: peak {peaks[count]:,} MiB", flush=True)
    return record_peaks("peak memory", peaks)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder with labels.csv")
    parser.add_argument("--count", type=int, default=6000, help="photos to measure with")
    parser.add_argument("--memory", type=int, nargs="+", help="numbers of photos")
    parser.add_argument("--once", action="store_true", help="run the step once on all photos")
    options = parser.parse_args()
    if options.once:
        run_step(options.photos)
        print(json.dumps({"peak_mib": round(peak_mib())}))
        return
    if options.memory:
        figures = memory(options.photos, options.memory)
    else:
        with tempfile.TemporaryDirectory() as folder:
            make_photos(options.photos, options.count, Path(folder, "photos"))
            figures = compare(Path(folder, "photos"), options.count)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
