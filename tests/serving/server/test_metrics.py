"""Metrics have TensorFlow Serving's names, labels, kinds and buckets; Prometheus can read them."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import parser

from serving.server import metrics


@pytest.fixture
def model() -> str:
    """A model that no other test counts: metrics are kept for the process."""
    return f"model-{uuid.uuid4().hex}"


def lines_with(text: str) -> list[str]:
    return [line for line in metrics.render().splitlines() if text in line]


def test_requests(model: str) -> None:
    metrics.observe_request(model, "Predict", "OK", 0.0015, "GRPC")
    metrics.observe_request(model, "predict", "OK", 5000.0, "REST")
    metrics.observe_request(model, "predict", "NOT_FOUND", 0.001, "REST")
    name = ":tensorflow:serving:request_count"
    assert lines_with(f"TYPE {name}") == [f"# TYPE {name} counter"]
    assert lines_with(f'{name}{{model_name="{model}"') == [
        f'{name}{{model_name="{model}",status="NOT_FOUND"}} 1',
        f'{name}{{model_name="{model}",status="OK"}} 2',
    ]
    name = ":tensorflow:serving:request_latency"
    assert lines_with(f"TYPE {name}") == [f"# TYPE {name} histogram"]
    of = f'model_name="{model}",API="Predict",entrypoint="GRPC"'
    buckets = lines_with(f"{name}_bucket{{{of}")
    assert len(buckets) == 34
    assert buckets[:3] == [f'{name}_bucket{{{of},le="{le}"}} 0' for le in ("10", "18", "32.4")]
    reached = [line for line in buckets if line.endswith(" 1")]
    assert reached[0] == f'{name}_bucket{{{of},le="1983.59"}} 1'  # 1,500 µs, and no bucket below
    assert len(reached) == 25
    assert lines_with(f"{name}_sum{{{of}") == [f"{name}_sum{{{of}}} 1500.0"]
    assert lines_with(f"{name}_count{{{of}") == [f"{name}_count{{{of}}} 1"]
    slow = lines_with(f'{name}_bucket{{model_name="{model}",API="predict"')
    assert [line.rsplit(" ")[-1] for line in slow] == ["0"] * 33 + ["1"]  # above 20 minutes


def test_examples(model: str) -> None:
    metrics.observe_examples(model, 3)
    metrics.observe_examples(model, 1)
    name = ":tensorflow:serving:request_example_count"
    assert lines_with(f'{name}_total{{model="{model}"}}')[0].endswith("} 4")
    assert lines_with(f'{name}s_sum{{model="{model}"}}')[0].endswith("} 4.0")
    buckets = lines_with(f'{name}s_bucket{{model="{model}"')
    assert [line.rsplit(" ")[-1] for line in buckets] == ["1", "1"] + ["2"] * 14


def test_runtime(model: str) -> None:
    metrics.observe_runtime(model, 0.25)
    found = lines_with(f'runtime_latency_sum{{model_name="{model}"')
    assert found == [
        f':tensorflow:serving:runtime_latency_sum{{model_name="{model}",API="Predict",'
        'runtime="TF1"} 250000.0'
    ]


def test_batches(model: str) -> None:
    before = _wrapped_runs()
    metrics.observe_batch(model, "serving_default", size=5, padding=3, queue_seconds=0.0025)
    assert _wrapped_runs() == before + 1
    assert lines_with(f'processed_batch_size_v2{{model_name="{model}"') == [
        f':tensorflow:serving:batching:processed_batch_size_v2{{model_name="{model}",'
        'op_name="serving_default",batch_size="8"} 1'
    ]
    op = f'model_name="{model}",op_name="serving_default"'
    assert lines_with(f"batch_size_sum{{{op}")[0].endswith("} 5.0")
    assert lines_with(f'padding_size_v2_sum{{model_name="{model}"')[0].endswith(
        'execution_batch_size="8",op_name="serving_default"} 3.0'
    )
    assert lines_with(f"batch_delay_us_v2_sum{{{op}")[0].endswith(
        'processed_batch_size="8"} 2500.0'
    )
    assert lines_with(':batching_session:queuing_latency_count{thread_pool_name=""}')


def _wrapped_runs() -> int:
    found = lines_with(":tensorflow:serving:batching_session:wrapped_run_count{}")
    return int(found[0].rsplit(" ")[-1]) if found else 0


def test_loads(model: str) -> None:
    metrics.observe_load(model, 3, 1.25, failed=False)
    metrics.observe_load(model, 4, 0.5, failed=True)
    prefix = ":tensorflow:cc:saved_model"
    assert lines_with(f'model_path="{model}') == [
        f'{prefix}:load_attempt_count{{model_path="{model}/3",status="success"}} 1',
        f'{prefix}:load_attempt_count{{model_path="{model}/4",status="fail"}} 1',
        f'{prefix}:load_latency{{model_path="{model}/3"}} 1250000',
    ]


def test_counting_from_many_threads_loses_nothing(model: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        for _ in range(2000):
            pool.submit(metrics.observe_request, model, "Predict", "OK", 0.001, "GRPC")
    assert lines_with(f'request_count{{model_name="{model}"')[0].endswith(" 2000")
    assert lines_with(f'request_latency_count{{model_name="{model}"')[0].endswith(" 2000")


def test_made_up_names_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_MAX_SERIES", 3)
    counter = metrics._Counter(":c", "name")
    histogram = metrics._Histogram(":h", "name", buckets=(1.0, 2.0, 2))
    for name in "abcda":
        counter.add(name)
        histogram.observe(name, value=1)
    assert counter.lines() == [':c{name="a"} 2', ':c{name="b"} 1', ':c{name="c"} 1']
    assert [line for line in histogram.lines() if "count" in line] == [
        ':h_count{name="a"} 2', ':h_count{name="b"} 1', ':h_count{name="c"} 1',
    ]  # fmt: skip


def test_prometheus_reads_the_page(model: str) -> None:
    strange = f'{model}\\ "x"\nä'
    metrics.observe_request(strange, "Predict", "OK", 0.0015, "GRPC")
    metrics.observe_examples(strange, 2)
    metrics.observe_runtime(strange, 0.001)
    metrics.observe_batch(strange, "serving_default", 1, 0, 0.0001)
    metrics.observe_load(strange, 1, 1.0, failed=False)
    families = {
        family.name: family for family in parser.text_string_to_metric_families(metrics.render())
    }
    assert {name: family.type for name, family in families.items()} == {
        ":tensorflow:cc:saved_model:load_attempt_count": "counter",
        ":tensorflow:cc:saved_model:load_latency": "counter",
        ":tensorflow:serving:batching:batch_delay_us_v2": "histogram",
        ":tensorflow:serving:batching:batch_size": "histogram",
        ":tensorflow:serving:batching:padding_size_v2": "histogram",
        ":tensorflow:serving:batching:processed_batch_size_v2": "counter",
        ":tensorflow:serving:batching_session:queuing_latency": "histogram",
        ":tensorflow:serving:batching_session:wrapped_run_count": "counter",
        ":tensorflow:serving:request_count": "counter",
        ":tensorflow:serving:request_example_count": "counter",  # its parser leaves _total off
        ":tensorflow:serving:request_example_counts": "histogram",
        ":tensorflow:serving:request_latency": "histogram",
        ":tensorflow:serving:runtime_latency": "histogram",
    }
    samples = [
        sample
        for sample in families[":tensorflow:serving:request_latency"].samples
        if sample.labels["model_name"] == strange
    ]
    counts = [sample.value for sample in samples if sample.name.endswith("_bucket")]
    assert counts == sorted(counts)
    assert counts[-1] == 1
