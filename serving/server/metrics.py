"""The metrics for Prometheus, with TensorFlow Serving's names, labels and buckets."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

import prometheus_client
from prometheus_client import Histogram
from prometheus_client.metrics_core import Metric

DEFAULT_PATH = "/monitoring/prometheus/metrics"
CONTENT_TYPE = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4

# Names of models come from requests. Made-up names must not fill the memory: after so many names,
# all further ones are counted under the empty name.
MAX_NAMES = 1000

_registry = prometheus_client.CollectorRegistry()
prometheus_client.disable_created_metrics()  # TensorFlow Serving has no such series


class _Counter(prometheus_client.Gauge):
    """A counter whose name does not end in `_total`, which prometheus-client's Counter adds."""

    def collect(self) -> Iterable[Metric]:
        for family in super().collect():
            family.type = "unknown"
            yield family


def _counter(name: str, *labels: str) -> _Counter:
    return _Counter(name, name, labels, registry=_registry)


def _histogram(name: str, buckets: Sequence[float], *labels: str) -> Histogram:
    return Histogram(name, name, labels, registry=_registry, buckets=buckets)


_MICROSECONDS = [10 * 1.8**step for step in range(33)]
_SERVING = ":tensorflow:serving"

_request_count = _counter(f"{_SERVING}:request_count", "model_name", "status")
_request_latency = _histogram(
    f"{_SERVING}:request_latency", _MICROSECONDS, "model_name", "API", "entrypoint"
)
_runtime_latency = _histogram(
    f"{_SERVING}:runtime_latency", _MICROSECONDS, "model_name", "API", "runtime"
)
_queuing_latency = _histogram(
    f"{_SERVING}:batching_session:queuing_latency",
    [100 * 1.2**step for step in range(52)],
    "thread_pool_name",
)
_batch_size = _histogram(
    f"{_SERVING}:batching:batch_size",
    [1.5**step for step in range(20)],
    "model_name",
    "op_name",
)
_load_attempt_count = _counter(
    ":tensorflow:cc:saved_model:load_attempt_count", "model_path", "status"
)
_load_latency = _counter(":tensorflow:cc:saved_model:load_latency", "model_path")

_names: set[str] = set()
_names_lock = threading.Lock()


def observe_request(model: str, method: str, status: str, seconds: float, api: str) -> None:
    """Counts one request. If it succeeded, also its latency.

    Args:
        model: the name in the request.
        method: "Predict" by gRPC, "predict" by REST: the label `API`.
        status: name of the status code, for example "OK" or "NOT_FOUND".
        seconds: from the whole request to the answer.
        api: "GRPC" or "REST": the label `entrypoint`.
    """
    with _names_lock:
        if len(_names) < MAX_NAMES:
            _names.add(model)
        name = model if model in _names else ""
    _request_count.labels(name, status).inc()
    if status == "OK":
        _request_latency.labels(name, method, api).observe(seconds * 1e6)


def observe_runtime(model: str, seconds: float) -> None:
    """Counts one run of a signature."""
    _runtime_latency.labels(model, "Predict", "TF1").observe(seconds * 1e6)


def observe_batch(model: str, signature: str, rows: int, waited: float) -> None:
    """Counts one batch, whose first request waited so many seconds."""
    _queuing_latency.labels("").observe(waited * 1e6)
    _batch_size.labels(model, signature).observe(rows)


def observe_load(model: str, version: int, seconds: float, failed: bool) -> None:
    """Counts one attempt to load a version. If it succeeded, also its latency."""
    path = f"{model}/{version}"
    _load_attempt_count.labels(path, "fail" if failed else "success").inc()
    if not failed:
        _load_latency.labels(path).inc(round(seconds * 1e6))


def render() -> bytes:
    """All metrics in Prometheus' text format."""
    return prometheus_client.generate_latest(_registry)
