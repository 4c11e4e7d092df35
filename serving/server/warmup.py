"""Plays a model's warm-up requests, as servables/tensorflow/saved_model_warmup_util.cc does."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import grpc
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from serving.server.errors import ServingError, from_tensorflow, invalid_argument
from serving.server.inference import Inference
from serving.server.servable import Servable

REQUESTS = "assets.extra/tf_serving_warmup_requests"
MAX_RECORDS = 1000

_log = logging.getLogger(__name__)


def warm_up(servable: Servable, folder: str, inference: Inference, repetitions: int) -> None:
    """Answers each request in `folder`'s warm-up file, so that the first client waits no longer.

    Raises:
        ServingError: the file is broken, has more than MAX_RECORDS, or a request of it fails.
    """
    path = Path(folder) / REQUESTS
    if not path.exists():
        _log.info("No warmup data file found at %s", path)
        return
    started = time.perf_counter()
    count = 0
    try:
        for count, record in enumerate(tf.compat.v1.io.tf_record_iterator(str(path)), start=1):
            try:
                request = prediction_log_pb2.PredictionLog.FromString(record)
            except DecodeError as error:
                raise invalid_argument(f"Failed to parse warmup record from {path}") from error
            for _ in range(repetitions):
                _play(request, servable, inference)
                if servable.divided:
                    with servable.request():  # and beside another one
                        _play(request, servable, inference)
            if count > MAX_RECORDS:
                raise invalid_argument(
                    f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {path}"
                )
    except tf.errors.DataLossError as error:
        raise ServingError(
            grpc.StatusCode.DATA_LOSS,
            f"{error.message}. Please verify your warmup data is in TFRecord format.",
        ) from error
    except tf.errors.OpError as error:
        raise from_tensorflow(error) from error
    _log.info(
        "Finished reading warmup data for model at %s. Number of warmup records read: %d. "
        "Elapsed time (microseconds): %d.",
        path, count, (time.perf_counter() - started) * 1e6,
    )  # fmt: skip


def _play(log: prediction_log_pb2.PredictionLog, servable: Servable, inference: Inference) -> None:
    match log.WhichOneof("log_type"):
        case "predict_log":
            inference.predict(servable, log.predict_log.request)
        case "classify_log":
            inference.classify(servable, log.classify_log.request)
        case "regress_log":
            inference.regress(servable, log.regress_log.request)
        case "multi_inference_log":
            inference.multi_inference(servable, log.multi_inference_log.request)
        case "session_run_log":
            number = log.DESCRIPTOR.fields_by_name["session_run_log"].number
            raise ServingError(
                grpc.StatusCode.UNIMPLEMENTED, f"Unsupported log_type for warmup: {number}"
            )
