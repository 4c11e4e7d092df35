"""How fast Transform is beside a bare loop, and how much memory and disk it takes.

    python -m benchmarks.transform --photos DIR [--count N] [--image-size 96]
    python -m benchmarks.transform --photos DIR --memory 1000 6000 24000

The first prints photos/s of the step's executor and of the bare loop: decode, resize to the same
square and encode as JPEG the photos that are in memory, with a thread for each core. The executor
starts Beam and traces its graph anew each time, whatever the number of photos: its steady state is
the time that all photos take beyond a sixteenth of them. Both figures are printed, `ratio` is that
of the steady state and `ratio_with_start` that of the whole; the start itself is among the seconds
of benchmarks/graph.py. Everything runs once to warm up and three times in turn; medians
count.

The second runs Transform and StatisticsGen on so many photos, each in a process of its own, and
prints its peak memory; photos beyond those there are copies that differ by one pixel. Both end
with JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.photo_example_gen import BEAM_ARGS, make_photos, peak_mib

REPEATS = 3
QUALITY = 92  # of JPEG, as the pipeline's configuration has it
STEPS = ("Transform", "StatisticsGen")


def make_examples(photos: Path, folder: Path) -> None:
    """Writes raw examples in three splits, with the step that writes them in the pipeline."""
    from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
    from tfx.types import standard_artifacts

    from components.photo_example_gen import Executor, PhotoExampleGen
    from pipeline.config import Data

    artifact = standard_artifacts.Examples()
    artifact.uri = str(folder)
    executor = Executor(BaseBeamExecutor.Context(beam_pipeline_args=list(BEAM_ARGS)))
    executor.Do(
        {}, {"examples": [artifact]}, PhotoExampleGen(Data(photos=str(photos))).exec_properties
    )


def inputs(examples: Path) -> dict[str, list[Any]]:
    """The artifacts of raw examples and of the curated schema, beside each other on disk."""
    from tfx.types import artifact_utils, standard_artifacts

    from schemas import features

    raw, schema = standard_artifacts.Examples(), standard_artifacts.Schema()
    raw.uri, schema.uri = str(examples), f"{examples}-schema"
    raw.split_names = artifact_utils.encode_split_names(list(features.SPLITS))
    curated = Path(__file__).parents[1] / "schemas" / "curated.pbtxt"
    Path(schema.uri).mkdir(exist_ok=True)
    shutil.copy(curated, Path(schema.uri, "schema.pbtxt"))
    return {"examples": [raw], "schema": [schema]}


def run_transform(examples: Path, image_size: int, out: Path) -> None:
    """Runs Transform's executor on a folder of raw examples."""
    from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
    from tfx.types import Channel, standard_artifacts

    from components.transform import Executor, transform
    from pipeline.config import Transform as Settings

    step = transform(
        Channel(type=standard_artifacts.Examples),
        Channel(type=standard_artifacts.Schema),
        Settings(image_size=image_size, jpeg_quality=QUALITY),
    )
    graph, transformed = standard_artifacts.TransformGraph(), standard_artifacts.Examples()
    graph.uri, transformed.uri = str(out / "graph"), str(out / "examples")
    Executor(BaseBeamExecutor.Context(beam_pipeline_args=list(BEAM_ARGS))).Do(
        inputs(examples),
        {"transform_graph": [graph], "transformed_examples": [transformed]},
        step.exec_properties,
    )


def run_statistics(examples: Path, image_size: int, out: Path) -> None:
    """Runs StatisticsGen's executor, with the pipeline's options, on a folder of raw examples."""
    from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
    from tfx.types import Channel, standard_artifacts

    from components.statistics_gen import Executor, StatisticsGen

    step = StatisticsGen(
        Channel(type=standard_artifacts.Examples), Channel(type=standard_artifacts.Schema)
    )
    found = standard_artifacts.ExampleStatistics()
    found.uri = str(out / "statistics")
    Executor(BaseBeamExecutor.Context(beam_pipeline_args=list(BEAM_ARGS))).Do(
        inputs(examples),
        {"statistics": [found]},
        step.exec_properties,
    )


RUN: dict[str, Callable[[Path, int, Path], None]] = dict(
    zip(STEPS, (run_transform, run_statistics), strict=True)
)


def run_loop(jpegs: Sequence[bytes], image_size: int) -> None:
    """Decodes, resizes and encodes the same photos with the same cores."""

    def one(jpeg: bytes) -> int:
        with Image.open(BytesIO(jpeg)) as image:
            pixels = image.convert("RGB")
        side = min(pixels.size)
        left, top = (pixels.width - side) // 2, (pixels.height - side) // 2
        small = pixels.resize(
            (image_size, image_size),
            Image.Resampling.BILINEAR,
            box=(left, top, left + side, top + side),
        )
        out = BytesIO()
        small.save(out, "JPEG", quality=QUALITY, subsampling=0)
        return len(out.getvalue())

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sum(pool.map(one, jpegs, chunksize=32))


def seconds(run: Callable[[], None]) -> float:
    """How long one run takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def size(folder: Path) -> int:
    """Bytes of all files in a folder and its subfolders."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def compare(source: Path, count: int, image_size: int, folder: Path) -> dict[str, Any]:
    """Photos/s of the step and of the bare loop, and the disk that its outcome takes."""
    few = count // 16
    for number, name in ((few, "few"), (count, "all")):
        make_photos(source, number, folder / f"{name}-photos")
        make_examples(folder / f"{name}-photos", folder / name)
    jpegs = [file.read_bytes() for file in (folder / "all-photos" / "final_files").iterdir()]

    def step(name: str) -> float:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            return seconds(lambda: run_transform(folder / name, image_size, Path(out)))

    step("few")
    run_loop(jpegs, image_size)
    times = [
        (step("few"), step("all"), seconds(lambda: run_loop(jpegs, image_size)))
        for _ in range(REPEATS)
    ]
    start, whole, loop = (statistics.median(column) for column in zip(*times, strict=True))
    run_transform(folder / "all", image_size, folder / "out")
    ours, reference = (count - few) / (whole - start), count / loop
    raw, transformed = size(folder / "all-photos/final_files"), size(folder / "out" / "examples")
    print(f"Transform {ours:,.0f} photos/s, bare loop {reference:,.0f} photos/s")
    print(f"{few:,} photos took {start:.1f} s, {count:,} photos {whole:.1f} s, loop {loop:.1f} s")
    print(f"raw photos {raw:,} bytes, transformed examples {transformed:,} bytes")
    figures = {
        "ours": ours,
        "reference": reference,
        "ratio": ours / reference,
        "ratio_with_start": count / whole / reference,
        "disk_ratio": transformed / raw,
    }
    rounded = {name: round(value, 3) for name, value in figures.items()}
    return rounded | {"count": count, "image_size": image_size}


def memory(
    source: Path, counts: Sequence[int], image_size: int, folder: Path
) -> dict[str, dict[int, int]]:
    """Each step's peak memory in MiB at each number of photos."""
    peaks: dict[str, dict[int, int]] = {step: {} for step in STEPS}
    for count in counts:
        make_photos(source, count, folder / "photos")
        make_examples(folder / "photos", folder / "raw")
        for step in STEPS:
            command = [sys.executable, "-m", __spec__.name, "--photos", str(folder / "raw")]
            command += ["--once", step, "--image-size", str(image_size)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks[step][count] = json.loads(done.stdout.splitlines()[-1])["peak_mib"]
            print(f"{step}, {count:,} photos: peak {peaks[step][count]:,} MiB", flush=True)
        for name in ("photos", "raw"):
            shutil.rmtree(folder / name)
    return peaks


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder with labels.csv")
    parser.add_argument("--count", type=int, default=6000, help="photos that are compared on")
    parser.add_argument("--image-size", type=int, default=96, help="side of the result, pixels")
    parser.add_argument("--memory", type=int, nargs="+", help="numbers of photos to run on")
    parser.add_argument(
        "--once", choices=STEPS, help="run one step once; --photos is a folder of raw examples"
    )
    options = parser.parse_args()
    # TFX hands the command line on to Beam.
    del sys.argv[1:]
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if options.once:
            RUN[options.once](options.photos, options.image_size, Path(folder))
        elif options.memory:
            figures["step_peak_mib"] = memory(
                options.photos, options.memory, options.image_size, Path(folder)
            )
        else:
            figures = compare(options.photos, options.count, options.image_size, Path(folder))
    print(json.dumps(figures | {"peak_mib": round(peak_mib())}))


if __name__ == "__main__":
    main()
