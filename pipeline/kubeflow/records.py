"""What each step of a run did: a file each in the run's folder, for the summary at its end.

The exit handler gets nothing from the steps through Kubeflow, least of all where one failed.
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
from components.review.inputs import RUN_ID
from pipeline.local.run_folder import write_whole
from pipeline.memory import resident_mb

PLAN = "plan"
LOST = "it ended without a word: killed, out of memory or evicted"

Properties = dict[str, Any]


def run_folder(run_dir: Path, run_id: str | None = None) -> Path:
    """The folder of a run: of this pod's, where none is named.

    Raises:
        UserError: nothing says which run it is.
    """
    run_id = run_id or os.environ.get(RUN_ID)
    if not run_id:
        raise UserError(f"the environment variable {RUN_ID} should hold the run's id")
    return run_dir / "runs" / run_id


class Record:
    """What one step does. Whatever it took in is told, too: its maker's record may be missing.

    A step that KFP takes from its cache makes no record.
    """

    def __init__(self, step: str, folder: Path):
        self.inputs: dict[str, Properties] = {}  # "Node.key" → the artifact's properties
        self.outputs: dict[str, Properties] = {}
        self.config: dict[str, Any] | None = None  # the plan's: the run's configuration
        self._file = folder / "steps" / f"{step}.json"
        self._started = time.time()
        self._peak_rss_mb = 0.0

    @contextlib.contextmanager
    def of(self) -> Iterator[None]:
        """Records what the block does, and how it ends. A killed step's record says that, too."""
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


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """The records of a run by step, in the order in which they ended."""
    found = {file.stem: json.loads(file.read_text()) for file in (folder / "steps").glob("*.json")}
    return dict(sorted(found.items(), key=lambda item: item[1]["ended"]))
