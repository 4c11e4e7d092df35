"""Runs one step of the pipeline in its pod:

    python -m pipeline.kubeflow.step --run-dir DIR STEP EXECUTOR_INPUT

STEP is `plan` (the first step), a node of the graph, `pushed` (it runs only after a push), or
`summary` (the exit handler). The plan compiles the graph from the run's parameters and gives each
node its part. The pod of a node runs this part and imports no other component.
"""  # noqa: D415

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from components import progress
from components.errors import UserError, one_line
from pipeline.kubeflow import records
from pipeline.kubeflow.launcher import Task


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one step; returns its exit status: 0, or 1 and one line on stderr."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    parser = argparse.ArgumentParser(prog="pipeline.kubeflow.step", description=__doc__)
    parser.add_argument("--run-dir", required=True, type=Path, help="folder of all runs")
    parser.add_argument("step", metavar="STEP")
    parser.add_argument("executor_input", metavar="EXECUTOR_INPUT", help="JSON")
    options = parser.parse_args(arguments)
    # TFX passes the command line on to Beam.
    del sys.argv[1:]
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    progress.logger.setLevel(logging.INFO)
    try:
        _run(options.step, Task(options.executor_input), options.run_dir)
    except Exception as error:
        if not isinstance(error, UserError):
            logging.exception("%s failed", options.step)
        hint = ""
        if isinstance(error, PermissionError):
            hint = f"; user {os.getuid()} of group {os.getgid()} must be allowed to write there"
        print(f"goodseed: {options.step}: {one_line(error)}{hint}", file=sys.stderr)
        return 1
    return 0


def _run(step: str, task: Task, run_dir: Path) -> None:
    task.begin()
    folder = records.run_folder(run_dir)
    if step == records.SUMMARY:
        from pipeline.kubeflow import report

        report.write(task, folder)
        return
    if step == records.PUSHED:
        print(f"pushed version {task.parameters[records.VERSION]}", flush=True)
        task.finish({}, {})
        return
    record = records.Record(step, folder)
    with record.recording():
        if step == records.PLAN:
            from pipeline.kubeflow import plan

            plan.write(task, run_dir, record)
        else:
            from pipeline.kubeflow import node

            node.run(step, task, record, folder)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # This skips the interpreter's shutdown. The shutdown waits for threads, and those of a failed
    # Beam job may never end.
    os._exit(status)
