"""What the server counts, under TensorFlow Serving's names, as Prometheus reads it.

Names, labels, kinds and buckets are those of TensorFlow Serving and TensorFlow's runtime
(tensorflow_serving/servables/tensorflow/util.cc, batching/batching_session.cc; tensorflow/core/
kernels/batching_util/batch_resource_base.cc, cc/saved_model/loader.cc), so that a dashboard or an
alert made for it works here. Its exporter (util/prometheus_exporter.cc) puts ":" for "/" and gives
counters no "_total", which prometheus_client can't write; hence this module.

Figures are kept for the process: as there, they start at zero when the server starts.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence

DEFAULT_PATH = "/monitoring/prometheus/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Model names come from requests: whoever makes names up must not fill the memory. A new set of
# labels beyond this many is not counted.
_MAX_SERIES = 1000


class _Counter:
    kind = "counter"

    def __init__(self, name: str, *labels: str) -> None:
        self.name = name
        self._labels = labels
        self._values: dict[tuple[str, ...], int] = {}
        self._lock = threading.Lock()

    def add(self, *values: str, by: int = 1) -> None:
        with self._lock:
            if values in self._values or len(self._values) < _MAX_SERIES:
                self._values[values] = self._values.get(values, 0) + by

    def lines(self) -> list[str]:
        with self._lock:
            series = sorted(self._values.items())
        return [f"{self.name}{_labels(self._labels, values)} {n}" for values, n in series]


class _Histogram:
    """A histogram with the bounds scale, scale·growth, … (`count` of them) and infinity."""

    kind = "histogram"

    def __init__(self, name: str, *labels: str, buckets: tuple[float, float, int]) -> None:
        scale, growth, count = buckets
        self.name = name
        self._labels = labels
        self._bounds = [scale * growth**step for step in range(count)]
        self._series: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}
        self._lock = threading.Lock()

    def observe(self, *values: str, value: float) -> None:
        with self._lock:
            if values not in self._series:
                if len(self._series) >= _MAX_SERIES:
                    return
                self._series[values] = [0] * (len(self._bounds) + 1), [0.0]
            counts, total = self._series[values]
            counts[bisect_left(self._bounds, value)] += 1
            total[0] += value

    def lines(self) -> list[str]:
        with self._lock:
            series = sorted((key, list(n), total[0]) for key, (n, total) in self._series.items())
        found = []
        for values, counts, total in series:
            reached = 0
            for bound, count in zip([*self._bounds, float("inf")], counts, strict=True):
                reached += count
                le = "+Inf" if bound == float("inf") else f"{bound:g}"
                labels = _labels((*self._labels, "le"), (*values, le))
                found.append(f"{self.name}_bucket{labels} {reached}")
            labels = _labels(self._labels, values)
            found += [f"{self.name}_sum{labels} {total}", f"{self.name}_count{labels} {reached}"]
        return found


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    escaped = (v.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") for v in values)
    return "{" + ",".join(f'{n}="{v}"' for n, v in zip(names, escaped, strict=True)) + "}"


# Microseconds from 10 to about 20 minutes, as TensorFlow Serving has them.
_LATENCY = (10.0, 1.8, 33)

_request_count = _Counter(":tensorflow:serving:request_count", "model_name", "status")
_request_latency = _Histogram(
    ":tensorflow:serving:request_latency", "model_name", "API", "entrypoint", buckets=_LATENCY
)
_example_counts = _Histogram(
    ":tensorflow:serving:request_example_counts", "model", buckets=(1.0, 2.0, 15)
)
_example_count_total = _Counter(":tensorflow:serving:request_example_count_total", "model")
_runtime_latency = _Histogram(
    ":tensorflow:serving:runtime_latency", "model_name", "API", "runtime", buckets=_LATENCY
)
_queuing_latency = _Histogram(
    ":tensorflow:serving:batching_session:queuing_latency",
    "thread_pool_name",
    buckets=(100.0, 1.2, 52),
)
_wrapped_run_count = _Counter(":tensorflow:serving:batching_session:wrapped_run_count")
_batch_size = _Histogram(
    ":tensorflow:serving:batching:batch_size", "model_name", "op_name", buckets=(1.0, 1.5, 20)
)
_processed_batch_size = _Counter(
    ":tensorflow:serving:batching:processed_batch_size_v2", "model_name", "op_name", "batch_size"
)
_padding_size = _Histogram(
    ":tensorflow:serving:batching:padding_size_v2",
    "model_name",
    "execution_batch_size",
    "op_name",
    buckets=(1.0, 2.0, 14),
)
_batch_delay = _Histogram(
    ":tensorflow:serving:batching:batch_delay_us_v2",
    "model_name",
    "op_name",
    "processed_batch_size",
    buckets=(1.0, 2.0, 27),
)
_load_attempt_count = _Counter(
    ":tensorflow:cc:saved_model:load_attempt_count", "model_path", "status"
)
_load_latency = _Counter(":tensorflow:cc:saved_model:load_latency", "model_path")

_ALL: Sequence[_Counter | _Histogram] = (
    _load_attempt_count,
    _load_latency,
    _batch_delay,
    _batch_size,
    _padding_size,
    _processed_batch_size,
    _queuing_latency,
    _wrapped_run_count,
    _request_count,
    _example_count_total,
    _example_counts,
    _request_latency,
    _runtime_latency,
)


def observe_request(model: str, entrypoint: str, status: str, seconds: float, api: str) -> None:
    """Counts one request; as in TensorFlow Serving, only an answered one has a latency.

    Args:
        model: the name in the request.
        entrypoint: what was asked for, "Predict" by gRPC and "predict" by REST: the label `API`.
        status: name of the status code, "OK" or e.g. "NOT_FOUND".
        seconds: from the whole request to the answer.
        api: "GRPC" or "REST": the label `entrypoint`.
    """
    _request_count.add(model, status)
    if status == "OK":
        _request_latency.observe(model, entrypoint, api, value=seconds * 1e6)


def observe_examples(model: str, count: int) -> None:
    """Counts the tf.Examples of one Classify, Regress or MultiInference that was answered."""
    _example_counts.observe(model, value=count)
    _example_count_total.add(model, by=count)


def observe_runtime(model: str, seconds: float) -> None:
    """Counts one run of a model's graph, `seconds` long."""
    _runtime_latency.observe(model, "Predict", "TF1", value=seconds * 1e6)


def observe_batch(
    model: str, signature: str, size: int, padding: int, queue_seconds: float
) -> None:
    """Counts one batch that was run.

    Args:
        model: the model's name.
        signature: name of the signature; there, the batching op's name.
        size: of the batch, in examples, without the padding.
        padding: examples added to reach an allowed batch size.
        queue_seconds: how long the batch's first request waited.
    """
    executed = str(size + padding)
    _queuing_latency.observe("", value=queue_seconds * 1e6)  # the name is empty there, too
    _wrapped_run_count.add()
    _batch_size.observe(model, signature, value=size)
    _processed_batch_size.add(model, signature, executed)
    _padding_size.observe(model, executed, signature, value=padding)
    _batch_delay.observe(model, signature, executed, value=queue_seconds * 1e6)


def observe_load(model: str, version: int, seconds: float, failed: bool) -> None:
    """Counts one attempt to load a version; only one that came up has a latency.

    The label `model_path` is the end of the path, `model/version`.
    """
    path = f"{model}/{version}"
    _load_attempt_count.add(path, "fail" if failed else "success")
    if not failed:
        _load_latency.add(path, by=round(seconds * 1e6))


def render() -> str:
    """All metrics that have a value, in Prometheus' text format."""
    found = []
    for metric in _ALL:
        if lines := metric.lines():
            found += [f"# TYPE {metric.name} {metric.kind}", *lines]
    return "\n".join(found) + "\n"
