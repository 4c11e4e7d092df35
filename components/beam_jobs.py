"""Where Beam's jobs run: in the step's process, or on a cluster.

TFX writes Beam's arguments into the compiled graph and into the key of its cache. But where a job
runs does not change its result. So the arguments are always the same, ARGUMENTS. They name
`StepRunner`, and a runner of the graph tells it the rest by `settings`, `run` and `step`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import apache_beam as beam
import grpc
from apache_beam.io.filebasedsink import FileBasedSink
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from apache_beam.runners import create_runner
from apache_beam.runners.runner import PipelineResult, PipelineRunner

from components import progress
from components.errors import UserError
from components.flink import Flink
from components.upstream import BEAM_WORKER
from pipeline import REVISION
from pipeline.config import Beam

settings: ContextVar[Beam] = ContextVar("settings")  # without it, direct
# The names of the run and of the step; a second try has the same.
run: ContextVar[str] = ContextVar("run", default="run")
step: ContextVar[str] = ContextVar("step", default="step")

# The port of the worker pool beside each TaskManager.
WORKERS = 50000
# How long a TaskManager keeps a Python worker that it does not use. This is less than Flink's delay
# before it tries again (k8s/beam/config/config.yaml), so a dead worker is never used again.
CACHE_SECONDS = 5

_PATIENCE = 15  # seconds
_NAMESPACE = "goodseed.check"


class StepRunner(PipelineRunner):
    """Beam's runner for every step: it does what `settings` say."""

    def run_pipeline(self, pipeline: beam.Pipeline, options: PipelineOptions) -> PipelineResult:
        """Runs a job to its end.

        If it fails, or this process gets a KeyboardInterrupt, nothing of it runs any longer.

        Raises:
            UserError: the cluster does not answer.
            RuntimeError: the job failed.
        """
        where = settings.get(Beam())
        if where.runner == "direct":
            local = PipelineOptions([*BEAM_WORKER, *where.options])
            return create_runner("FnApiRunner").run_pipeline(pipeline, local)
        cluster = _Cluster(where)
        cluster.cancel(_job_name())  # the job of a client that was killed
        result = create_runner("PortableRunner").run_pipeline(pipeline, cluster.options())
        try:
            with cluster.watching():
                result.wait_until_finish()
        except BaseException:
            with contextlib.suppress(grpc.RpcError):  # the job server may be what failed
                result.cancel()
            cluster.cancel(_job_name())
            raise
        finally:
            _remove_leftovers(pipeline)
        return result


# TFX would pack its own code for remote workers, if it did not find an image here.
ARGUMENTS = [f"--runner={__name__}.{StepRunner.__name__}", "--sdk_container_image=none"]


def use(where: Beam, run_name: str) -> None:
    """Says where the jobs of this run work; `step` names each of them.

    Args:
        where: the `beam` section of the configuration.
        run_name: the same for each try of this run, and for no other run.
    """
    settings.set(where)
    run.set(run_name)


def check(photos: Path, work: Path) -> None:
    """Checks with a small job that the cluster's workers see the same files and run this code.

    Before, it ends all jobs of this run: its client was killed, and they could use all task slots.

    Args:
        photos: the folder of photos.
        work: the folder where the steps write.

    Raises:
        UserError: the cluster does not answer, or its workers see other files or run other code.
    """
    where = settings.get(Beam())
    if where.runner == "direct":
        return
    step.set("check")
    _Cluster(where).cancel(_jobs_of_run())
    probe = work / f".probe-{uuid.uuid4().hex}"
    probe.mkdir(parents=True)
    # An empty folder is a mistake of another kind, which PhotoExampleGen reports.
    entry = next((entry.path for entry in os.scandir(photos)), str(photos))
    seen = {"photos": entry, "run folder": str(probe)}
    try:
        pipeline = beam.Pipeline(argv=ARGUMENTS)
        _ = (
            pipeline
            | beam.Create(range(2 * where.parallelism))
            | beam.Reshuffle()
            | beam.ParDo(_Look(seen, str(probe)))
        )
        result = pipeline.run()
    finally:
        shutil.rmtree(probe, ignore_errors=True)
    problems = {
        counter.key.metric.name
        for counter in result.metrics().query()["counters"]
        if counter.key.metric.namespace == _NAMESPACE
    }
    if problems:
        listed = "; they ".join(sorted(problems))
        raise UserError(f"beam.endpoint {where.endpoint}: Beam's workers there {listed}")


class _Look(beam.DoFn):
    """Counts, by its name, what a worker cannot do. An exception would make Flink try again."""

    def __init__(self, seen: Mapping[str, str], writable: str):
        self._seen = seen
        self._writable = writable
        self._revision = _revision()

    def process(self, _: int) -> None:
        for name, path in self._seen.items():
            if not os.path.exists(path):
                folder = os.path.dirname(path)
                self._count(f"do not see the {name} {folder}: mount the same volume at this path")
        if os.path.exists(self._writable) and not os.access(self._writable, os.W_OK):
            self._count(f"may not write to {os.path.dirname(self._writable)}: give them the right")
        if (theirs := _revision()) != self._revision:
            self._count(f"run revision {theirs}, not {self._revision}: give them the run's image")

    def _count(self, problem: str) -> None:
        Metrics.counter(_NAMESPACE, problem).inc()


def _revision() -> str:
    """The revision of the code, which its image knows."""
    return os.environ.get(REVISION, "unknown")


def _jobs_of_run() -> str:
    """What the names of all jobs of this run start with."""
    return f"goodseed-{run.get()}-"


def _job_name() -> str:
    return _jobs_of_run() + step.get()


class _Cluster:
    """A job service, and Flink behind it if it is one."""

    def __init__(self, where: Beam):
        self._where = where
        assert where.endpoint  # the configuration checks it
        self._flink = Flink(where.endpoint) if where.runner == "flink" else None
        _check_endpoint(where.endpoint)

    def options(self) -> PipelineOptions:
        """Beam's options for a job."""
        flink = [
            "--environment_type=EXTERNAL",
            f"--environment_config=localhost:{WORKERS}",
            f"--environment_cache_millis={CACHE_SECONDS * 1000}",
            f"--parallelism={self._where.parallelism}",
        ]
        return PipelineOptions(
            [
                f"--job_endpoint={self._where.endpoint}",
                f"--job_name={_job_name()}",
                "--sdk_container_image=none",
                "--experiments=beam_fn_api",
                *(flink if self._flink else ()),
                *self._where.options,
            ]
        )

    def cancel(self, names: str) -> None:
        """Ends the jobs whose names start with this, if the cluster can do that."""
        if self._flink:
            self._flink.cancel(names)

    def watching(self) -> contextlib.AbstractContextManager[None]:
        """Shows the progress of this step's job, if the cluster tells it."""
        if not self._flink:
            return contextlib.nullcontext()
        flink, name = self._flink, _job_name()

        def count() -> tuple[int, int, str] | None:
            with contextlib.suppress(UserError):  # the job itself will tell
                for job in flink.jobs(name):
                    return job.done, job.total, f"tasks of {job.page}"
            return None

        return progress.watching(count)


def _check_endpoint(endpoint: str) -> None:
    with grpc.insecure_channel(endpoint) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_PATIENCE)
        except grpc.FutureTimeoutError:
            raise UserError(
                f"beam.endpoint {endpoint}: no job server answers there; start it, or correct the "
                "address"
            ) from None


def _remove_leftovers(pipeline: beam.Pipeline) -> None:
    """Removes the temporary folders of the pipeline's sinks.

    If a worker dies, Beam starts the sink again in a new folder, and forgets the first one. TFX's
    readers would take it for a file of examples.
    """

    class Sinks(PipelineVisitor):
        def enter_composite_transform(self, node: AppliedPTransform) -> None:
            sink: Any = getattr(node.transform, "sink", None)
            if isinstance(sink, FileBasedSink):
                for left in Path(sink.file_path_prefix.get()).parent.glob("beam-temp-*"):
                    shutil.rmtree(left)

    pipeline.visit(Sinks())
