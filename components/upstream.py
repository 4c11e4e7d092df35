"""Faults of our dependencies, and the configuration that avoids each of them.

For each fault: what breaks, in which version, and a public issue if there is one.
tests/components/test_upstream.py fails as soon as a dependency has fixed its fault; then remove the
entry here.
"""

from __future__ import annotations

import json
from typing import Any

import tensorflow as tf
from tensorflow_model_analysis.proto import config_pb2

# Apache Beam 2.77. With more than one worker, FnApiRunner sends data over gRPC, and a timer thread
# flushes each output stream once a second (runners/worker/data_plane.py,
# TimeBasedBufferingClosableOutputStream, since https://github.com/apache/beam/pull/10246). The
# thread does not wait for the writer. It sends the first half of an element that is being written;
# the reader then reads past the end of this half. It also drops what is written while it sends.
# https://github.com/apache/beam/issues/21104, which is closed, shows such a read.
#  - multi_threading: the workers and the runner have such threads.
#  - multi_processing: the runner has them. The workers do not, but the experiment
#    `data_buffer_time_limit_ms`, which turns them off there, does not reach the runner.
# One worker in the step's own process uses neither gRPC nor a timer.
BEAM_WORKER = ("--direct_running_mode=in_memory", "--direct_num_workers=1")


def mean_error(name: str, **options: Any) -> config_pb2.MetricConfig:
    """The metric `mean_absolute_error` or `mean_squared_error` for TFMA, computed by Keras.

    TFMA 0.52 (no issue found) has metrics of these names. To merge accumulators, they take the
    first one and merge all of them into it, the first one too, so its photos count twice
    (metrics/mean_regression_error.py). TFMA prefers its own class to a Keras class of the same
    name; `MeanMetricWrapper` is a name that TFMA does not have.

    Args:
        name: the name of the metric and of Keras' function.
        options: further fields of the MetricConfig.
    """
    return config_pb2.MetricConfig(
        class_name="MeanMetricWrapper",
        module="tf_keras.metrics",
        config=json.dumps({"fn": name, "name": name}),
        **options,
    )


def without_autotune() -> tf.data.Options:
    """Options for a dataset whose end does not wait for tf.data's tuner.

    TensorFlow 2.21 (no issue found): the thread that tunes a dataset sleeps between its rounds,
    each time twice as long as before, up to a minute (core/framework/model.cc,
    Model::OptimizeLoop). The end of an iterator wakes it, but marks the iterator as cancelled only
    afterwards. If the thread is faster, it sleeps again, and the end of the iterator waits for it.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options
