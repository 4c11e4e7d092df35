"""Metrics have TensorFlow Serving's names, labels and buckets; Prometheus can read them."""

from __future__ import annotations

import uuid

import pytest
from prometheus_client import parser

from serving.server import metrics


@pytest.fixture
def model() -> str:
    """A model that no other test counts: metrics are kept for the process."""
    return f"model-{uuid.uuid4().hex}"


def samples(**labels: str) -> dict[str, float]:
    """Value by name and remaining labels, of the samples with these labels."""
    found = {}
    for family in parser.text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            if labels.items() <= sample.labels.items():
                rest = [v for k, v in sorted(sample.labels.items()) if k not in labels]
                found[" ".join([sample.name, *rest])] = sample.value
    return found


def test_requests(model: str) -> None:
    metrics.observe_request(model, "Predict", "OK", 0.0015, "GRPC")
    metrics.observe_request(model, "Predict", "NOT_FOUND", 0.001, "GRPC")
    metrics.observe_request(model, "predict", "OK", 5000.0, "REST")
    found = samples(model_name=model)
    assert found[":tensorflow:serving:request_count OK"] == 2
    assert found[":tensorflow:serving:request_count NOT_FOUND"] == 1
    latency = ":tensorflow:serving:request_latency"
    assert found[f"{latency}_count Predict GRPC"] == 1
    assert found[f"{latency}_sum Predict GRPC"] == pytest.approx(1500)
    buckets = {name: n for name, n in found.items() if f"{latency}_bucket Predict GRPC" in name}
    assert len(buckets) == 34
    assert sum(buckets.values()) == 25  # 1,500 µs is above the first nine bounds
    assert found[f"{latency}_bucket predict REST +Inf"] == 1


def test_runs_batches_and_loads(model: str) -> None:
    metrics.observe_runtime(model, 0.25)
    metrics.observe_batch(model, "serving_default", 5, 0.0025)
    metrics.observe_load(model, 3, 1.25, failed=False)
    metrics.observe_load(model, 4, 0.5, failed=True)
    assert samples(model_name=model)[":tensorflow:serving:runtime_latency_sum Predict TF1"] == 25e4
    batches = samples(model_name=model, op_name="serving_default")
    assert batches[":tensorflow:serving:batching:batch_size_sum"] == 5
    assert ":tensorflow:serving:batching_session:queuing_latency_count" in samples(
        thread_pool_name=""
    )
    loads = ":tensorflow:cc:saved_model:load_attempt_count"
    assert samples(model_path=f"{model}/3") == {
        f"{loads} success": 1,
        ":tensorflow:cc:saved_model:load_latency": 1.25e6,
    }
    assert samples(model_path=f"{model}/4") == {f"{loads} fail": 1}


def test_made_up_names_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    metrics.observe_request(model, "Predict", "OK", 0.001, "GRPC")
    monkeypatch.setattr(metrics, "MAX_NAMES", 0)
    for name in (model, f"{model}-1", f"{model}-2"):
        metrics.observe_request(name, "Predict", "OK", 0.001, "GRPC")
    count = ":tensorflow:serving:request_count OK"
    assert samples(model_name=model)[count] == 2
    assert samples(model_name="")[count] >= 2
    assert not samples(model_name=f"{model}-1")


def test_strange_names(model: str) -> None:
    strange = f'{model}\\ "x"\nä'
    metrics.observe_request(strange, "Predict", "OK", 0.0015, "GRPC")
    assert samples(model_name=strange)[":tensorflow:serving:request_count OK"] == 1
