"""One version of a model: a SavedModel, its signatures and its warm-up."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from serving.server import metrics
from serving.server.batching import Arrays, Batcher, Batching
from serving.server.errors import (
    ServingError,
    failed_precondition,
    from_tensorflow,
    invalid_argument,
    not_found,
)
from serving.server.tensors import to_array, to_proto
from serving.versions import link_in

WARM_UP_REQUESTS = "assets.extra/tf_serving_warmup_requests"
MAX_WARM_UP_RECORDS = 1000

_log = logging.getLogger(__name__)


class Servable:
    """A loaded version; may be called from any thread.

    Attributes:
        name: the model's name.
        version: the version's number.
        signature_defs: the signatures as the SavedModel describes them.
    """

    def __init__(self, name: str, version: int, folder: str, batching: Batching | None = None):
        """Loads the SavedModel in `folder`; without `batching` each request runs by itself.

        Raises:
            ServingError: it can't be loaded, and why.
        """
        if link := link_in(Path(folder)):
            raise failed_precondition(f"{link} is a symbolic link, which is not followed")
        self.name = name
        self.version = version
        self.signature_defs = _signature_defs(Path(folder) / "saved_model.pb")
        try:
            # The signatures' functions work only as long as the model is there.
            self._model = tf.saved_model.load(folder, tags=[tf.saved_model.SERVING])
        except tf.errors.OpError as error:
            raise from_tensorflow(error) from error
        self._signatures = {
            key: Signature(function, batching, name, key)
            for key, function in self._model.signatures.items()
        }

    def signature(self, name: str) -> Signature:
        """A signature, "" for the default one; raises ServingError FAILED_PRECONDITION."""
        name = name or tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
        if name not in self._signatures:
            raise failed_precondition(f'Serving signature key "{name}" not found.')
        return self._signatures[name]

    def predict(self, request: PredictRequest) -> PredictResponse:
        """Runs the signature that the request names.

        Raises:
            ServingError: the request does not fit the signature, or the signature failed.
        """
        signature = self.signature(request.model_spec.signature_name)
        wanted = signature.wanted(request.output_filter)
        outputs = signature.run(signature.arrays(request.inputs))
        response = PredictResponse()
        response.model_spec.name = self.name
        response.model_spec.version.value = self.version
        response.model_spec.signature_name = signature.name
        for name in wanted:
            response.outputs[name].CopyFrom(to_proto(outputs[name], signature.outputs[name].dtype))
        return response

    def warm_up(self, folder: str) -> None:
        """Answers the requests in `folder`'s warm-up file, so that the first client does not wait.

        Raises:
            ServingError: the file is broken or too long, or one of its requests fails.
        """
        path = Path(folder) / WARM_UP_REQUESTS
        if not path.exists():
            return
        try:
            for count, record in enumerate(tf.data.TFRecordDataset(str(path))):
                if count == MAX_WARM_UP_RECORDS:
                    raise invalid_argument(f"{path} has more than {MAX_WARM_UP_RECORDS} records")
                log = PredictionLog.FromString(record.numpy())
                if log.WhichOneof("log_type") != "predict_log":
                    raise invalid_argument(f"{path} has a record that is not a Predict request")
                self.predict(log.predict_log.request)
        except DecodeError as error:
            raise invalid_argument(f"Failed to parse warmup record from {path}") from error
        except tf.errors.OpError as error:
            raise from_tensorflow(error) from error
        _log.info("Ran the warm-up requests of %s version %d", self.name, self.version)


class Signature:
    """A function of the model, from named arrays to named arrays.

    Attributes:
        name: the signature's name.
        inputs: type and shape by name.
        outputs: type and shape by name.
        run: runs it, in a batch with other requests where that is possible.
    """

    def __init__(self, function: Any, batching: Batching | None, model: str, name: str):
        """Wraps a signature of `tf.saved_model.load`."""
        self.name = name
        self.inputs: dict[str, tf.TensorSpec] = function.structured_input_signature[1]
        self.outputs: dict[str, tf.TensorSpec] = function.structured_outputs
        self._function = function
        self._model = model
        self.run = self._run
        if batching and _has_rows(self.inputs) and _has_rows(self.outputs):
            self.run = Batcher(self._run, batching, model, name).run

    def arrays(self, protos: Mapping[str, TensorProto]) -> dict[str, np.ndarray]:
        """The inputs of a request; raises ServingError if they do not fit this signature."""
        missing, extra = set(self.inputs) - set(protos), set(protos) - set(self.inputs)
        if missing or extra:
            raise invalid_argument(
                f"input size does not match signature: {len(protos)}!={len(self.inputs)}. "
                f"Sent extra: {{{','.join(sorted(extra))}}}. "
                f"Missing but required: {{{','.join(sorted(missing))}}}."
            )
        return {name: to_array(name, protos[name], spec) for name, spec in self.inputs.items()}

    def wanted(self, output_filter: Sequence[str]) -> list[str]:
        """The outputs to answer with: those that the client asks for, or all."""
        for name in output_filter:
            if name not in self.outputs:
                raise invalid_argument(
                    f"output tensor alias not found in signature: {name} Outputs expected to be in "
                    f"the set {{{','.join(sorted(self.outputs))}}}."
                )
        if len(set(output_filter)) < len(output_filter):
            raise invalid_argument("output_filter names an output twice")
        return list(output_filter) or sorted(self.outputs)

    def _run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        started = time.perf_counter()
        try:
            outputs = self._function(
                **{
                    name: tf.constant(inputs[name], spec.dtype)
                    for name, spec in self.inputs.items()
                }
            )
            # A string without dimensions is bytes, not an array.
            arrays = {
                name: np.asarray(tensor.numpy(), tensor.dtype.as_numpy_dtype)
                for name, tensor in outputs.items()
            }
        except tf.errors.OpError as error:
            raise from_tensorflow(error) from error
        metrics.observe_runtime(self._model, time.perf_counter() - started)
        return arrays


def _has_rows(tensors: Mapping[str, tf.TensorSpec]) -> bool:
    """Whether all have a first dimension of any size."""
    shapes = [spec.shape for spec in tensors.values()]
    return bool(shapes) and all(shape.rank and shape[0] is None for shape in shapes)


def _signature_defs(file: Path) -> SignatureDefMap:
    try:
        graphs = SavedModel.FromString(file.read_bytes()).meta_graphs
    except OSError as error:
        raise not_found(f"Could not find SavedModel .pb: {file}: {error.strerror}") from error
    except DecodeError as error:
        raise ServingError(grpc.StatusCode.DATA_LOSS, f"Cannot parse file {file}") from error
    for graph in graphs:
        if tf.saved_model.SERVING in graph.meta_info_def.tags:
            return SignatureDefMap(signature_def=graph.signature_def)
    raise not_found(f"{file} has no graph with the tag {tf.saved_model.SERVING}")
