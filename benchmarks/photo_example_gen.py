"""How fast PhotoExampleGen is beside a bare loop, and how much memory it takes.

    python -m benchmarks.photo_example_gen --photos DIR [--count N]
    python -m benchmarks.photo_example_gen --photos DIR --memory 1000 6000 24000

The first prints the photos/s of the step's executor, everything from the CSV to the last shard and
Beam's own start included, and of the bare loop: read, decode, resize to 96 × 96 and encode as
JPEG, with a thread for each core. Both run once to warm up and three times in turn; medians count.
The second runs the executor on so many photos, each number in a process of its own, and prints its
peak memory; photos beyond those there are copies that differ by one pixel. Both end with JSON.
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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.config import Beam
from pipeline.graph import beam_args

BEAM_ARGS = beam_args(Beam())
REPEATS = 3
SIDE = 96  # pixels


def make_photos(source: Path, count: int, folder: Path) -> None:
    """Fills a folder with `count` photos of another and, beyond those, with changed copies."""
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


def run_step(photos: Path) -> None:
    """Runs PhotoExampleGen's executor on a folder of photos; its output is thrown away."""
    from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
    from tfx.types import standard_artifacts

    from components.photo_example_gen import Executor, PhotoExampleGen
    from pipeline.config import Data

    with tempfile.TemporaryDirectory() as out:
        artifact = standard_artifacts.Examples()
        artifact.uri = out
        properties = PhotoExampleGen(Data(photos=str(photos))).exec_properties
        executor = Executor(BaseBeamExecutor.Context(beam_pipeline_args=list(BEAM_ARGS)))
        executor.Do({}, {"examples": [artifact]}, properties)


def run_loop(photos: Path) -> None:
    """Reads, decodes, resizes and encodes the same photos with the same cores."""

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


def compare(photos: Path, count: int) -> dict[str, Any]:
    """Photos/s of the step and of the bare loop."""
    run_step(photos)
    run_loop(photos)
    pairs = [(seconds(run_step, photos), seconds(run_loop, photos)) for _ in range(REPEATS)]
    ours = count / statistics.median(step for step, _ in pairs)
    reference = count / statistics.median(loop for _, loop in pairs)
    print(f"PhotoExampleGen {ours:,.0f} photos/s, bare loop {reference:,.0f} photos/s")
    figures = {"ours": ours, "reference": reference, "ratio": ours / reference}
    return {name: round(value, 2) for name, value in figures.items()} | {"count": count}


def memory(source: Path, counts: list[int]) -> dict[str, Any]:
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
    return {"peak_mib": peaks}


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder with labels.csv")
    parser.add_argument("--count", type=int, default=6000, help="photos that are compared on")
    parser.add_argument("--memory", type=int, nargs="+", help="numbers of photos to run on")
    parser.add_argument("--once", action="store_true", help="run the step once on all photos")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    if options.once:
        run_step(options.photos)
    elif options.memory:
        figures = memory(options.photos, options.memory)
    else:
        with tempfile.TemporaryDirectory() as folder:
            make_photos(options.photos, options.count, Path(folder, "photos"))
            figures = compare(Path(folder, "photos"), options.count)
    print(json.dumps({"peak_mib": round(peak_mib())} | figures))


if __name__ == "__main__":
    main()
