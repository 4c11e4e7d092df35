"""The faults are still in the dependencies, and our configuration avoids them.

If a test named `…_is_still_there` fails, the dependency has fixed its fault: remove the entry in
components/upstream.py, and the test.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.runners.worker.data_plane import ClosableOutputStream
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_model_analysis.metrics import metric_specs
from tensorflow_model_analysis.metrics.metric_types import MetricComputation
from tensorflow_model_analysis.proto import config_pb2

from components.upstream import BEAM_WORKER, mean_error, without_autotune

Pairs = list[tuple[float, float]]  # (age, predicted age), years


def test_beams_torn_element_is_still_there() -> None:
    """A stream with a time limit sends what its writer has written so far of an element."""
    sent: list[bytes] = []
    stream = ClosableOutputStream.create(sent.append, sent.append, data_buffer_time_limit_ms=1)
    stream.write(b"the first half")
    for _ in range(1000):
        if any(sent):
            break
        time.sleep(0.01)
    stream.write(b"the second half")
    stream.close()
    assert next(part for part in sent if part) == b"the first half"


def test_beam_works_with_one_worker_in_the_process() -> None:
    options = PipelineOptions([*BEAM_WORKER]).view_as(DirectOptions)
    assert (options.direct_running_mode, options.direct_num_workers) == ("in_memory", 1)


def merged(metric: config_pb2.MetricConfig, shares: list[Pairs]) -> float:
    """The value of a metric for photos that several workers share."""
    spec = config_pb2.MetricsSpec(metrics=[metric], model_names=[""])
    config = tfma.EvalConfig(model_specs=[config_pb2.ModelSpec()], metrics_specs=[spec])
    (computation,) = (
        found
        for found in metric_specs.to_computations([spec], eval_config=config)
        if isinstance(found, MetricComputation)
    )
    combiner = computation.combiner
    combiner.setup()
    accumulators = []
    for share in shares:
        accumulator = combiner.create_accumulator()
        for age, predicted in share:
            photo = tfma.metrics.StandardMetricInputs(
                labels=np.array([age]),
                predictions=np.array([predicted]),
                example_weights=np.array([1.0]),
            )
            accumulator = combiner.add_input(accumulator, photo)
        accumulators.append(accumulator)
    (value,) = combiner.extract_output(combiner.merge_accumulators(accumulators)).values()
    return float(np.squeeze(value))


AGES = st.floats(0, 120, width=32)
SHARES = st.lists(st.lists(st.tuples(AGES, AGES), min_size=1), min_size=1, max_size=5)


@settings(deadline=None, max_examples=30)
@given(SHARES)
def test_each_photo_counts_once(shares: list[Pairs]) -> None:
    ages, predicted = np.array([pair for share in shares for pair in share]).T
    errors = predicted - ages
    absolute, squared = (
        merged(mean_error(name), shares) for name in ("mean_absolute_error", "mean_squared_error")
    )
    assert absolute == pytest.approx(np.abs(errors).mean(), rel=1e-5, abs=1e-5)
    assert squared == pytest.approx(np.square(errors).mean(), rel=1e-5, abs=1e-5)


def test_tfmas_wrong_merge_is_still_there() -> None:
    shares = [[(20.0, 20.0)], [(20.0, 26.0)]]
    metric = config_pb2.MetricConfig(class_name="MeanAbsoluteError")
    assert merged(metric, shares) == pytest.approx(2)  # right: 3


def longest_end(options: tf.data.Options, count: int = 16) -> float:
    """Ends some iterators while their tuners sleep; returns the seconds of the slowest end.

    An end does not always wait for its tuner. It depends on which of two threads is faster.
    """
    numbers = tf.data.Dataset.range(8).map(lambda n: n, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = numbers.prefetch(2).with_options(options)
    iterators = [iter(dataset) for _ in range(count)]
    for iterator in iterators:
        next(iterator)
    time.sleep(0.7)
    seconds = []
    del iterator
    while iterators:
        start = time.perf_counter()
        iterators.pop()
        seconds.append(time.perf_counter() - start)
    return max(seconds)


def test_the_wait_for_tf_datas_tuner_is_still_there() -> None:
    tries = (longest_end(tf.data.Options()) for _ in range(20))
    assert any(seconds > 5 * longest_end(without_autotune()) for seconds in tries)
