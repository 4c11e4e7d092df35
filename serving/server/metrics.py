"""What the server counts, under TensorFlow Serving's names, as Prometheus reads it."""

from __future__ import annotations


def observe_request(model: str, entrypoint: str, status: str, seconds: float, api: str) -> None:
    """Counts one request."""


def observe_runtime(model: str, seconds: float) -> None:
    """Counts one run of a model's graph, `seconds` long."""


def observe_batch(
    model: str, signature: str, size: int, padding: int, queue_seconds: float
) -> None:
    """Counts one batch that was run."""


def observe_load(model: str, version: int, seconds: float, failed: bool) -> None:
    """Counts one attempt to load a version."""


def path_of(config: str) -> str | None:
    """Where a MonitoringConfig (text proto) wants the metrics, or None where it wants none."""
    return None
