"""Beam's own job service, in this process; a stand-in for that of a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from apache_beam.runners.portability.local_job_service import LocalJobServicer

from pipeline.config import Beam
from tests.ports import free_port


@contextlib.contextmanager
def job_service(folder: Path) -> Iterator[Beam]:
    """Starts it, and gives the configuration that uses it.

    The workers run in the process of a step. Those of a cluster may see other files.

    Args:
        folder: for the files that jobs stage.
    """
    port = free_port()
    service = LocalJobServicer(str(folder))
    service.start_grpc_server(port)
    loopback = ("--environment_type=LOOPBACK",)
    yield Beam(runner="portable", endpoint=f"127.0.0.1:{port}", options=loopback)
    service.stop()
