"""How long a step of the Kubeflow pipeline takes to start, from its process to its executor.

    python -m benchmarks.cold_start [--repeats 3] [--image IMAGE]

For each step it starts a process that imports what the step imports before its executor works, and
takes the time from the command to that point. The reference is a process that imports TensorFlow
alone, in the same rounds. With --image each process runs in a container with a pod's rights, and
`container` is the start of Python alone in one. The first round fills the page cache and does not
count; the figure is the median of the others.

It appends to results/cold_start.csv and ends with a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

from benchmarks.results import record
from tests.conftest import ROOT
from tests.containers.conftest import POD

STEP = "from pipeline.kubeflow import step"
NODE = f"""{STEP}, node
from tfx.orchestration.portable import {{operator}}
from tfx.utils import import_utils
import_utils.import_class_by_path("{{executor}}")"""


def programs() -> dict[str, str]:
    """What each step's process imports, by the step's name."""
    from tfx.dsl.compiler import compiler
    from tfx.proto.orchestration import executable_spec_pb2, pipeline_pb2

    from pipeline import config
    from pipeline.graph import create_pipeline

    loaded = config.load(profile="demo", photos="/photos", run_dir="/work")
    ir = compiler.Compiler().compile(create_pipeline(loaded))
    deployment = pipeline_pb2.IntermediateDeploymentConfig()
    ir.deployment_config.Unpack(deployment)
    imports = {"plan": f"{STEP}, plan", "summary": f"{STEP}, report"}
    for name, packed in sorted(deployment.executor_specs.items()):
        beam = executable_spec_pb2.BeamExecutableSpec()
        python = executable_spec_pb2.PythonClassExecutableSpec()
        if packed.Unpack(beam):
            operator, executor = "beam_executor_operator", beam.python_executor_spec.class_path
        else:
            packed.Unpack(python)
            operator, executor = "python_executor_operator", python.class_path
        imports[name] = NODE.format(operator=operator, executor=executor)
    return imports


def seconds(python: list[str], program: str) -> float:
    """Seconds until a process has run the program. It does not wait for the process's end."""
    command = [*python, "-c", f"{program}\nprint('ready', flush=True)\nimport os; os._exit(0)"]
    started = time.perf_counter()
    with subprocess.Popen(  # TensorFlow writes its greeting to stderr
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        if not any(line == "ready\n" for line in process.stdout):
            sys.exit(f"this failed: {command}")
        return time.perf_counter() - started


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count")
    parser.add_argument("--image", help="measure in containers of this image")
    options = parser.parse_args()
    python = [sys.executable]
    measured = {"tensorflow": "import tensorflow", **programs()}
    if options.image:
        python = ["docker", "run", "--rm", *POD, "--network=none", options.image, "python"]
        measured["container"] = ""
    taken: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(options.repeats + 1):
        for name, program in measured.items():
            taken[name].append(seconds(python, program))
    medians = {name: round(statistics.median(times[1:]), 2) for name, times in taken.items()}
    reference = medians.pop("tensorflow")
    for name, took in medians.items():
        print(f"{name:20} {took:5.2f} s, {took / reference:.2f} × import tensorflow")
    slowest = max(medians, key=lambda name: medians[name])
    print(f"the slowest is {slowest}")
    name = "the slowest step's start; reference: import tensorflow"
    print(json.dumps([record(name, medians[slowest], "s", reference)]))


if __name__ == "__main__":
    main()
