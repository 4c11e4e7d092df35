"""What each step of a run did: a file for each step in the run's folder, for the summary.

The exit handler needs these files, because Kubeflow passes nothing from the steps to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.errors import UserError, one_line
from pipeline.kubeflow.launcher import RUN_ID
from pipeline.system import resident_mb, write_whole

# The steps that are not nodes of the graph: the first one, the one that runs only after a push, and
# the exit handler.
PLAN, PUSHED, SUMMARY = "plan", "pushed", "summary"
VERSION, NO_VERSION = "version", "none"  # output parameter of the Pusher; its value without a push
LOG_LINE = "summary: "  # the start of the line of its log that has the summary
LOST = "it ended without an error message: killed, out of memory or evicted"

Properties = dict[str, Any]


def run_folder(run_dir: Path, run_id: str | None = None) -> Path:
    """The folder of a run; without a run_id, of this pod's run.

    Raises:
        UserError: the environment does not name the run.
    """
    run_id = run_id or os.environ.get(RUN_ID)
    if not run_id:
        raise UserError(f"the environment variable {RUN_ID} should hold the run's id")
    return run_dir / "runs" / run_id


class Record:
    """The record of one step.

    It also holds the properties of the step's inputs. Their producers may have no record of their
    own: KFP does not run a step that it takes from its cache.
    """

    def __init__(self, step: str, folder: Path):
        self.inputs: dict[str, Properties] = {}  # "Node.key" → the artifact's properties
        self.outputs: dict[str, Properties] = {}
        self.config: dict[str, Any] | None = None  # the run's configuration; the plan sets it
        self._file = folder / "steps" / f"{step}.json"
        self._started = time.time()
        self._peak_rss_mb = 0.0

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Records how the block ends. The record of a killed step says LOST."""
        over = threading.Event()
        meter = threading.Thread(target=self._measure, args=(over,), daemon=True)
        meter.start()
        self._write(LOST)
        try:
            yield
        except BaseException as error:
            self._write(one_line(error))
            raise
        else:
            self._write(None)
        finally:
            over.set()
            meter.join()

    def _measure(self, over: threading.Event) -> None:
        while not over.wait(0.2):
            self._peak_rss_mb = max(self._peak_rss_mb, resident_mb())

    def _write(self, failure: str | None) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(
            self._file,
            {
                "started": self._started,
                "ended": time.time(),
                "peak_rss_mb": max(self._peak_rss_mb, resident_mb()),
                "failure": failure,
                "config": self.config,
                "inputs": self.inputs,
                "outputs": self.outputs,
            },
        )


def run_config(folder: Path) -> dict[str, Any]:
    """The configuration of a run, which its plan has recorded; without the section `kubeflow`."""
    plan = json.loads((folder / "steps" / f"{PLAN}.json").read_text("utf-8"))
    return dict(plan["config"])


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """The records of a run by step, in the order in which they ended."""
    files = (folder / "steps").glob("*.json")
    found = {file.stem: json.loads(file.read_text("utf-8")) for file in files}
    return dict(sorted(found.items(), key=lambda item: item[1]["ended"]))
