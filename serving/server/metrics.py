"""What the server counts, under TensorFlow Serving's names, as Prometheus reads it.

Names, labels and buckets are those of TensorFlow Serving, so that a dashboard or an alert that was
made for it works here. The numbers start at zero when the server starts.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import Metric

DEFAULT_PATH = "/monitoring/prometheus/metrics"
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

# Names of models come from requests. Made-up names must not fill the memory: what comes after so
# many names is counted under the empty name.
MAX_NAMES = 1000

_registry = CollectorRegistry()
disable_created_metrics()  # TensorFlow Serving has no such series


class _Counter(Gauge):
    """A counter whose name does not end in `_total`, which prometheus-client's Counter adds."""

    def collect(self) -> Iterable[Metric]:
        for family in super().collect():
            family.type = "unknown"
            yield family


def _counter(name: str, *labels: str) -> _Counter:
    return _Counter(name, "as TensorFlow Serving counts it", labels, registry=_registry)


def _histogram(name: str, *labels: str, buckets: Sequence[float]) -> Histogram:
    text = "as TensorFlow Serving measures it"
    return Histogram(name, text, labels, buckets=buckets, registry=_registry)


def _bounds(first: float, factor: float, count: int) -> list[float]:
    return [first * factor**step for step in range(count)]


_MICROSECONDS = _bounds(10.0, 1.8, 33)

_request_count = _counter(":tensorflow:serving:request_count", "model_name", "status")
_request_latency = _histogram(
    ":tensorflow:serving:request_latency",
    "model_name", "API", "entrypoint",
    buckets=_MICROSECONDS,
)  # fmt: skip
_runtime_latency = _histogram(
    ":tensorflow:serving:runtime_latency",
    "model_name", "API", "runtime",
    buckets=_MICROSECONDS,
)  # fmt: skip
_queuing_latency = _histogram(
    ":tensorflow:serving:batching_session:queuing_latency",
    "thread_pool_name",
    buckets=_bounds(100.0, 1.2, 52),
)
_wrapped_run_count = _counter(":tensorflow:serving:batching_session:wrapped_run_count")
_batch_size = _histogram(
    ":tensorflow:serving:batching:batch_size",
    "model_name", "op_name",
    buckets=_bounds(1.0, 1.5, 20),
)  # fmt: skip
_load_attempt_count = _counter(
    ":tensorflow:cc:saved_model:load_attempt_count", "model_path", "status"
)
_load_latency = _counter(":tensorflow:cc:saved_model:load_latency", "model_path")

_names: set[str] = set()
_names_lock = threading.Lock()


def observe_request(model: str, method: str, status: str, seconds: float, api: str) -> None:
    """Counts one request; only one that succeeded has a latency.

    Args:
        model: the name in the request.
        method: "Predict" by gRPC, "predict" by REST: the label `API`.
        status: name of the status code, "OK" or e.g. "NOT_FOUND".
        seconds: from the whole request to the answer.
        api: "GRPC" or "REST": the label `entrypoint`.
    """
    model = _bounded(model)
    _request_count.labels(model, status).inc()
    if status == "OK":
        _request_latency.labels(model, method, api).observe(seconds * 1e6)


def observe_runtime(model: str, seconds: float) -> None:
    """Counts one run of a signature, `seconds` long."""
    _runtime_latency.labels(model, "Predict", "TF1").observe(seconds * 1e6)


def observe_batch(model: str, signature: str, size: int, waited: float) -> None:
    """Counts one batch.

    Args:
        model: the model's name.
        signature: the signature's name: the label `op_name`.
        size: rows.
        waited: seconds that the batch's first request waited.
    """
    _queuing_latency.labels("").observe(waited * 1e6)
    _wrapped_run_count.inc()
    _batch_size.labels(model, signature).observe(size)


def observe_load(model: str, version: int, seconds: float, failed: bool) -> None:
    """Counts one attempt to load a version; only one that succeeded has a latency."""
    path = f"{model}/{version}"
    _load_attempt_count.labels(path, "fail" if failed else "success").inc()
    if not failed:
        _load_latency.labels(path).inc(round(seconds * 1e6))


def render() -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(_registry)


def _bounded(name: str) -> str:
    with _names_lock:
        if name not in _names:
            if len(_names) >= MAX_NAMES:
                return ""
            _names.add(name)
    return name
