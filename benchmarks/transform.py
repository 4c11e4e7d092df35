"""How fast Transform is compared with a bare loop, and how much memory and disk it takes.

    python -m benchmarks.transform --photos DIR [--count N] [--image-size 96]
    python -m benchmarks.transform --photos DIR --memory 1000 6000 24000

The first command measures photos/s of the step's executor, with transform.face `as_is` and `find`.
The reference of `as_is` is a bare loop that decodes, resizes to the same square and encodes as JPEG
the photos that are in memory, with a thread for each core. The reference of `find` is `as_is`.
Everything runs once to warm up and then three times in turns; the figures are medians.

The executor starts Beam and traces its graph in each run, even for one photo. The speed after this
start is therefore measured as the time of all photos minus the time of a sixteenth of them. The
speed of the whole step is recorded too.

The second command runs Transform and StatisticsGen on each number of photos, in processes of their
own, and measures their peak memory. If the folder has fewer photos, copies that differ by one pixel
are added.

Both append to results/transform.csv and end with a line of JSON.
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

from benchmarks.photo_example_gen import beam_context, make_photos, peak_mib, record_peaks
from benchmarks.results import record

REPEATS = 3
QUALITY = 92  # of JPEG, as the pipeline's configuration has it
STEPS = ("Transform", "StatisticsGen")


def make_examples(photos: Path, folder: Path) -> None:
    """Writes raw examples in three splits, with PhotoExampleGen."""
    from tfx.types import standard_artifacts

    from components.photo_example_gen import Executor, PhotoExampleGen
    from pipeline.config import Data

    artifact = standard_artifacts.Examples()
    artifact.uri = str(folder)
    properties = PhotoExampleGen(Data(photos=str(photos))).exec_properties
    Executor(beam_context()).Do({}, {"examples": [artifact]}, properties)


def inputs(examples: Path) -> dict[str, list[Any]]:
    """The artifacts that both steps read: raw examples, and the curated schema beside them."""
    from tfx.types import artifact_utils, standard_artifacts

    from schemas import features

    raw, schema = standard_artifacts.Examples(), standard_artifacts.Schema()
    raw.uri, schema.uri = str(examples), f"{examples}-schema"
    raw.split_names = artifact_utils.encode_split_names(list(features.SPLITS))
    curated = Path(__file__).parents[1] / "schemas" / "curated.pbtxt"
    Path(schema.uri).mkdir(exist_ok=True)
    shutil.copy(curated, Path(schema.uri, "schema.pbtxt"))
    return {"examples": [raw], "schema": [schema]}


def run_transform(examples: Path, image_size: int, out: Path, face: str = "find") -> None:
    """Runs Transform's executor on a folder of raw examples; `face` is its knob."""
    from tfx.types import Channel, standard_artifacts

    from components.transform import transform
    from pipeline.config import Transform as Settings

    step = transform(
        Channel(type=standard_artifacts.Examples),
        Channel(type=standard_artifacts.Schema),
        Settings(image_size=image_size, jpeg_quality=QUALITY, face=face),
    )
    graph, transformed = standard_artifacts.TransformGraph(), standard_artifacts.Examples()
    graph.uri, transformed.uri = str(out / "graph"), str(out / "examples")
    step.executor_spec.executor_class(beam_context()).Do(
        inputs(examples),
        {"transform_graph": [graph], "transformed_examples": [transformed]},
        step.exec_properties,
    )


def run_statistics(examples: Path, image_size: int, out: Path) -> None:
    """Runs StatisticsGen's executor on a folder of raw examples."""
    from tfx.types import Channel, standard_artifacts

    from components.statistics_gen import statistics_gen

    step = statistics_gen(
        Channel(type=standard_artifacts.Examples), Channel(type=standard_artifacts.Schema)
    )
    found = standard_artifacts.ExampleStatistics()
    found.uri = str(out / "statistics")
    step.executor_spec.executor_class(beam_context()).Do(
        inputs(examples),
        {"statistics": [found]},
        step.exec_properties,
    )


RUN: dict[str, Callable[[Path, int, Path], None]] = dict(
    zip(STEPS, (run_transform, run_statistics), strict=True)
)


def run_loop(jpegs: Sequence[bytes], image_size: int) -> None:
    """Decodes, resizes and encodes the same photos, with a thread for each core."""

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


def compare(source: Path, count: int, image_size: int, folder: Path) -> list[dict[str, Any]]:
    """Photos/s of the step and of the bare loop, and how much disk the result takes."""
    few = count // 16
    for number, name in ((few, "few"), (count, "all")):
        make_photos(source, number, folder / f"{name}-photos")
        make_examples(folder / f"{name}-photos", folder / name)
    jpegs = [file.read_bytes() for file in (folder / "all-photos" / "final_files").iterdir()]

    def step(name: str, face: str) -> float:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            return seconds(lambda: run_transform(folder / name, image_size, Path(out), face))

    def after_start(face: str) -> tuple[float, float]:
        """Photos/s after the step's start, and of the whole step."""
        some, whole = step("few", face), step("all", face)
        return (count - few) / (whole - some), count / whole

    after_start("find")
    run_loop(jpegs, image_size)
    turns = [
        (
            *after_start("as_is"),
            *after_start("find"),
            count / seconds(lambda: run_loop(jpegs, image_size)),
        )
        for _ in range(REPEATS)
    ]
    as_is, as_is_whole, find, find_whole, loop = map(statistics.median, zip(*turns, strict=True))
    run_transform(folder / "all", image_size, folder / "out")
    raw, transformed = size(folder / "all-photos/final_files"), size(folder / "out" / "examples")
    print(f"find {find:,.0f} photos/s, as_is {as_is:,.0f} photos/s, bare loop {loop:,.0f} photos/s")
    after, whole_step = "photos through the step after its start", "photos through the whole step"
    loop_too, disk = "reference: a bare loop", "transformed examples on disk; reference: raw photos"
    return [
        record(f"{after}; {loop_too}", as_is, "photos/s", loop),
        record(f"{whole_step}; {loop_too}", as_is_whole, "photos/s", loop),
        record(f"{after}, finding faces; reference: as_is", find, "photos/s", as_is),
        record(
            f"{whole_step}, finding faces; reference: as_is", find_whole, "photos/s", as_is_whole
        ),
        record(disk, transformed / 1e6, "MB", raw / 1e6),
    ]


def memory(
    source: Path, counts: Sequence[int], image_size: int, folder: Path
) -> list[dict[str, Any]]:
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
    return [
        figure
        for step, by_count in peaks.items()
        for figure in record_peaks(f"{step}'s peak memory", by_count)
    ]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder with labels.csv")
    parser.add_argument("--count", type=int, default=6000, help="photos to measure with")
    parser.add_argument("--image-size", type=int, default=96, help="side of the result, pixels")
    parser.add_argument("--memory", type=int, nargs="+", help="numbers of photos")
    parser.add_argument(
        "--once", choices=STEPS, help="run one step once; --photos is a folder of raw examples"
    )
    options = parser.parse_args()
    # TFX gives the command line to Beam, which would read our options as its own.
    del sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        if options.once:
            RUN[options.once](options.photos, options.image_size, Path(folder))
            print(json.dumps({"peak_mib": round(peak_mib())}))
            return
        if options.memory:
            figures = memory(options.photos, options.memory, options.image_size, Path(folder))
        else:
            figures = compare(options.photos, options.count, options.image_size, Path(folder))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
