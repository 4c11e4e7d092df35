"""Runs the graph on this machine: TFX's LocalDagRunner, a SQLite metadata store, a run folder."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import logging
import threading
import time
from pathlib import Path
from typing import Any

import absl.logging
from ml_metadata.errors import StatusError
from rich.console import Console
from tfx.dsl.compiler import compiler, constants
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.portable import runtime_parameter_utils

from components import beam_jobs, progress
from components.errors import one_line
from pipeline import summary
from pipeline.config import Config
from pipeline.graph import NEVER_CACHED, check_columns, create_pipeline
from pipeline.local import artifacts
from pipeline.local.store import run_outputs
from pipeline.system import resident_mb, write_whole


def run(config: Config, console: Console) -> dict[str, Any]:
    """Runs every step, shows the steps on the console, and writes summary.json.

    The caller has locked the run folder (`run_folder.use`).

    Returns:
        The summary. If a step failed, the summary says so.

    Raises:
        UserError: the folder holds other files than those that its steps wrote, the photos lack a
            column that makes slices, or Beam's cluster does not answer or does not see the folders.
    """
    run_dir = Path(config.run_dir)
    check_columns(config)
    beam_jobs.use(config.beam, hashlib.sha256(config.run_dir.encode()).hexdigest()[:8])
    with console.status("asking where Beam works"):
        beam_jobs.check(Path(config.data.photos), run_dir)
    ir = compiler.Compiler().compile(create_pipeline(config))
    run_id = datetime.datetime.now().isoformat()
    runtime_parameter_utils.substitute_runtime_parameter(
        ir, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id}
    )
    nodes = {node.pipeline_node.node_info.id for node in ir.nodes}
    for node in ir.nodes:
        options = node.pipeline_node.execution_options.caching_options
        options.enable_cache = node.pipeline_node.node_info.id not in NEVER_CACHED
    artifacts.check(run_dir)
    if strange := artifacts.remove_unknown(run_dir, nodes):
        console.print(
            f"deleted {strange} artifacts that metadata.db does not know", highlight=False
        )
    failure = None
    with _Steps(console, len(ir.nodes)) as steps:
        try:
            LocalDagRunner().run_with_ir(ir)
        except Exception as error:
            logging.exception("%s failed", steps.current)
            failure = f"{steps.current}: {one_line(error)}"
        with contextlib.suppress(StatusError):  # on a full disk
            artifacts.record(run_dir, nodes - NEVER_CACHED)
    document = summary.summarise(
        config.evaluator,
        config.guard,
        run_outputs(run_dir / "metadata.db", run_id),
        failure=failure,
        seconds=steps.seconds,
        peak_rss_mb=steps.peak_rss_mb,
    )
    try:
        write_whole(run_dir / "summary.json", document)
    except OSError as error:
        document["failure"] = document["failure"] or f"summary.json: {error.strerror}"
    return document


class _Steps(logging.Handler):
    """Shows which step runs, its progress and its time, from the log lines of the runner.

    It also names the step's jobs on a cluster.

    LocalDagRunner has no hooks or callbacks. Its log lines "Component X is running." and
    "Component X is finished." are the only public sign of a step.
    """

    def __init__(self, console: Console, count: int):
        super().__init__(logging.INFO)
        self.current = "the run"
        self.seconds: dict[str, float] = {}
        self.peak_rss_mb: dict[str, float] = {}
        self._console = console
        self._count = count
        self._cached = False
        self._started = self._step_started = time.monotonic()
        self._status = console.status("starting")
        self._shown = 0.0
        self._over = threading.Event()
        self._meter = threading.Thread(target=self._measure_memory, daemon=True)

    def __enter__(self) -> _Steps:
        absl.logging.set_verbosity(absl.logging.INFO)
        for logger in (absl.logging.get_absl_logger(), progress.logger):
            logger.addHandler(self)
        self._status.start()
        self._meter.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._meter.join()
        self._status.stop()
        for logger in (absl.logging.get_absl_logger(), progress.logger):
            logger.removeHandler(self)
        self.seconds["total"] = round(time.monotonic() - self._started, 1)
        self.peak_rss_mb["total"] = max(self.peak_rss_mb.values(), default=0.0)

    def emit(self, record: logging.LogRecord) -> None:
        """Handles one log record, of TFX or of a step's progress."""
        if record.name == progress.logger.name:
            self._show(record.getMessage())
        elif record.msg == "Component %s is running.":
            self.current, self._cached = str(record.args[0]), False  # type: ignore[index]
            beam_jobs.step.set(self.current)
            self._step_started = self._shown = time.monotonic()
            self._show("")
        elif record.msg == "A cached execution %d is used.":
            self._cached = True
        elif record.msg == "Component %s is finished.":
            took = time.monotonic() - self._step_started
            self.seconds[self.current] = round(took, 1)
            how = "from the cache" if self._cached else f"{took:.1f} s"
            self._console.print(f"{self._place()} {self.current}: {how}", highlight=False)

    def _place(self) -> str:
        return f"({len(self.seconds)}/{self._count})"

    def _show(self, progressed: str) -> None:
        """Updates the status line; without a terminal, prints a line every ten seconds."""
        line = f"({len(self.seconds) + 1}/{self._count}) {self.current} … {progressed}"
        self._status.update(line)
        if not self._console.is_terminal and time.monotonic() - self._shown > 10:
            self._shown = time.monotonic()
            self._console.print(line, highlight=False, soft_wrap=True)

    def _measure_memory(self) -> None:
        while not self._over.wait(0.2):
            peak = self.peak_rss_mb.get(self.current, 0.0)
            self.peak_rss_mb[self.current] = max(peak, resident_mb())
