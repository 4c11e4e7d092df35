"""Predict, Classify, Regress and MultiInference on a loaded version.

Checks, codes and texts are those of tensorflow_serving/servables/tensorflow/{predict_util,
classifier,regressor,multi_inference,util}.cc and tensorflow/cc/saved_model/util.cc.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    input_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.server import metrics
from serving.server.errors import ServingError, failed_precondition, invalid_argument
from serving.server.servable import Servable
from serving.server.tensors import to_array, to_proto, type_name

_SV1 = tf.compat.v1.saved_model
PREDICT = _SV1.signature_constants.PREDICT_METHOD_NAME
CLASSIFY = _SV1.signature_constants.CLASSIFY_METHOD_NAME
REGRESS = _SV1.signature_constants.REGRESS_METHOD_NAME
DEFAULT_SIGNATURE = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY


@dataclass(frozen=True)
class Inference:
    """How requests are answered.

    Attributes:
        check_method_names: whether a signature must be made for the method that is called, as
            TF1's are and TF2's are not.
        as_content: whether Predict answers numbers as raw bytes.
    """

    check_method_names: bool = False
    as_content: bool = False

    def predict(
        self, servable: Servable, request: predict_pb2.PredictRequest
    ) -> predict_pb2.PredictResponse:
        """Any signature, tensors in and out."""
        name = _signature_name(request.model_spec)
        if (signature := servable.signatures.get(name)) is None:
            raise failed_precondition(f'Serving signature key "{name}" not found.')
        if self.check_method_names and signature.method_name not in (PREDICT, CLASSIFY, REGRESS):
            raise ServingError(
                grpc.StatusCode.INTERNAL,
                "Expected prediction signature method_name to be one of "
                f"{{{PREDICT}, {CLASSIFY}, {REGRESS}}}. Was: {signature.method_name}",
            )
        inputs = _inputs(signature, request)
        aliases = _outputs(signature, request)
        response = predict_pb2.PredictResponse()
        _fill(response.model_spec, request.model_spec, servable)
        for alias, array in zip(aliases, servable.run(name, inputs, aliases), strict=True):
            kind = signature.outputs[alias].dtype
            response.outputs[alias].CopyFrom(to_proto(array, kind, as_content=self.as_content))
        return response

    def classify(
        self, servable: Servable, request: classification_pb2.ClassificationRequest
    ) -> classification_pb2.ClassificationResponse:
        """A signature from tf.Examples to classes, scores or both."""
        name = _signature_name(request.model_spec)
        signature = _example_signature(servable, name)
        _, outputs = self._classification_tensors(signature)
        results = self._run_on_examples(servable, name, request.input, outputs)
        response = classification_pb2.ClassificationResponse()
        _fill(response.model_spec, request.model_spec, servable)
        _classifications(results, response.result)
        return response

    def regress(
        self, servable: Servable, request: regression_pb2.RegressionRequest
    ) -> regression_pb2.RegressionResponse:
        """A signature from tf.Examples to a number each."""
        name = _signature_name(request.model_spec)
        signature = _example_signature(servable, name)
        _, outputs = self._regression_tensors(signature)
        results = self._run_on_examples(servable, name, request.input, outputs)
        response = regression_pb2.RegressionResponse()
        _fill(response.model_spec, request.model_spec, servable)
        _regressions(results, response.result)
        return response

    def multi_inference(
        self, servable: Servable, request: inference_pb2.MultiInferenceRequest
    ) -> inference_pb2.MultiInferenceResponse:
        """Several signatures on the same tf.Examples, in one run of the graph."""
        tasks = self._tasks(servable, request)
        examples = serialized_examples(request.input)
        # One input name is common to all: _tasks has seen to it.
        feed = {tensor: examples for tensor, _ in tasks[:1]}
        names = sorted({t for _, outputs in tasks for t in outputs.values()})
        found = dict(zip(names, servable.run_tensors(feed, names), strict=True)) if tasks else {}
        response = inference_pb2.MultiInferenceResponse()
        for task, (_, outputs) in zip(request.tasks, tasks, strict=True):
            results = _Results(
                len(examples), {alias: found[tensor] for alias, tensor in outputs.items()}
            )
            result = response.results.add()
            _fill(result.model_spec, task.model_spec, servable)
            if task.method_name == CLASSIFY:
                _classifications(results, result.classification_result)
            else:
                _regressions(results, result.regression_result)
        metrics.observe_examples(servable.name, len(examples))
        return response

    def _tasks(
        self, servable: Servable, request: inference_pb2.MultiInferenceRequest
    ) -> list[tuple[str, dict[str, str]]]:
        """Of each task: the input tensor's name, and alias → name of the output tensors."""
        found: list[tuple[str, dict[str, str]]] = []
        seen: set[str] = set()
        for task in request.tasks:
            if not task.model_spec.name:
                raise invalid_argument("Found ModelSpec with an empty model name.")
            if task.model_spec.name != request.tasks[0].model_spec.name:
                raise invalid_argument(
                    "All ModelSpecs in a MultiInferenceRequest must access the same model name."
                )
            name = _signature_name(task.model_spec)
            if name in seen:
                raise invalid_argument(f"Duplicate evaluation of signature: {name}")
            seen.add(name)
            if name not in servable.signatures:
                raise invalid_argument(f"Requested signature not found in model graph: {name}")
            if task.method_name == CLASSIFY:
                found.append(self._classification_tensors(servable.signatures[name]))
            elif task.method_name == REGRESS:
                found.append(self._regression_tensors(servable.signatures[name]))
            else:
                raise ServingError(
                    grpc.StatusCode.UNIMPLEMENTED,
                    f"Unsupported signature method_name: {task.method_name}",
                )
            if found[-1][0] != found[0][0]:
                raise invalid_argument("Input tensor must be the same for all Signatures.")
        return found

    def _classification_tensors(self, signature: SignatureDef) -> tuple[str, dict[str, str]]:
        self._check_method(signature, "classification", CLASSIFY)
        if len(signature.inputs) != 1:
            raise invalid_argument("Expected one input Tensor.")
        if len(signature.outputs) not in (1, 2):
            raise invalid_argument(
                f"Expected one or two output Tensors, found {len(signature.outputs)}"
            )
        if "inputs" not in signature.inputs:
            raise failed_precondition(
                f"No classification inputs found in SignatureDef: {signature}"
            )
        if not {"classes", "scores"} & set(signature.outputs):
            raise failed_precondition(
                "Expected classification signature outputs to contain at least one of "
                f'"classes" or "scores". Signature was: {signature}'
            )
        outputs = {
            alias: signature.outputs[alias].name
            for alias in ("classes", "scores")
            if alias in signature.outputs
        }
        return signature.inputs["inputs"].name, outputs

    def _regression_tensors(self, signature: SignatureDef) -> tuple[str, dict[str, str]]:
        self._check_method(signature, "regression", REGRESS)
        if len(signature.inputs) != 1:
            raise invalid_argument("Expected one input Tensor.")
        if len(signature.outputs) != 1:
            raise invalid_argument("Expected one output Tensor.")
        for alias, tensors in (("inputs", signature.inputs), ("outputs", signature.outputs)):
            if alias not in tensors:
                raise failed_precondition(
                    f"No regression {alias} found in SignatureDef: {signature}"
                )
        return signature.inputs["inputs"].name, {"outputs": signature.outputs["outputs"].name}

    def _check_method(self, signature: SignatureDef, what: str, method: str) -> None:
        if self.check_method_names and signature.method_name != method:
            raise invalid_argument(
                f"Expected {what} signature method_name to be {method}. "
                f"Was: {signature.method_name}"
            )

    def _run_on_examples(
        self, servable: Servable, name: str, given: input_pb2.Input, outputs: Iterable[str]
    ) -> _Results:
        examples = serialized_examples(given)
        aliases = list(outputs)
        found = servable.run(name, {"inputs": examples}, aliases)
        metrics.observe_examples(servable.name, len(examples))
        return _Results(len(examples), dict(zip(aliases, found, strict=True)))


@dataclass(frozen=True)
class _Results:
    count: int
    arrays: Mapping[str, np.ndarray]

    def kind(self, alias: str) -> str:
        kind = tf.dtypes.as_dtype(self.arrays[alias].dtype).as_datatype_enum
        return f"DT_{type_name(kind).upper()}"


def serialized_examples(given: input_pb2.Input) -> np.ndarray:
    """The serialized tf.Examples of a request: string [N].

    A context is put before each example: a serialized message that goes on is a merged message.

    Raises:
        ServingError: INVALID_ARGUMENT, there are none.
    """
    listed = getattr(given, given.WhichOneof("kind") or "example_list")
    if not listed.examples:
        raise invalid_argument("Input is empty.")
    context = b""
    if given.WhichOneof("kind") == "example_list_with_context":
        context = listed.context.SerializeToString()
    return np.array([context + e.SerializeToString() for e in listed.examples], dtype=object)


def _signature_name(spec: model_pb2.ModelSpec) -> str:
    return spec.signature_name or DEFAULT_SIGNATURE


def _example_signature(servable: Servable, name: str) -> SignatureDef:
    if name not in servable.signatures:
        raise invalid_argument(f"No signature was found with the name: {name}")
    return servable.signatures[name]


def _fill(into: model_pb2.ModelSpec, asked: model_pb2.ModelSpec, servable: Servable) -> None:
    into.name = asked.name
    into.signature_name = _signature_name(asked)
    into.version.value = servable.version


def _joined(names: Iterable[str]) -> str:
    return ",".join(sorted(names))


def _inputs(signature: SignatureDef, request: predict_pb2.PredictRequest) -> dict[str, np.ndarray]:
    sent, known = set(request.inputs), set(signature.inputs)
    if len(sent) > len(known) or (len(sent) < len(known) and not signature.defaults):
        raise invalid_argument(
            f"input size does not match signature: {len(sent)}!={len(known)} "
            f"len({{{_joined(sent)}}}) != len({{{_joined(known)}}}). "
            f"Sent extra: {{{_joined(sent - known)}}}. "
            f"Missing but required: {{{_joined(known - sent)}}}."
        )
    arrays = {}
    for alias in sorted(known):
        if alias not in sent and alias not in signature.defaults:
            raise invalid_argument(
                f"Signature input alias: {alias}(feed name: {signature.inputs[alias].name}) not "
                "found in request and no default value provided. Inputs expected to be in the "
                f"request {{{_joined(sent)}}}, or default input alias set: "
                f"{_joined(signature.defaults)}"
            )
        proto = request.inputs[alias] if alias in sent else signature.defaults[alias]
        try:
            arrays[alias] = to_array(proto)
        except (ValueError, TypeError, OverflowError, MemoryError) as error:
            raise invalid_argument(f"tensor parsing error: {alias}") from error
    if surplus := sent - known:
        raise invalid_argument(
            f"Inputs contains invalid name. Used request inputs: {_joined(sent - surplus)}, "
            f"request input: {_joined(sent)}"
        )
    return arrays


def _outputs(signature: SignatureDef, request: predict_pb2.PredictRequest) -> list[str]:
    seen: list[str] = []
    for alias in request.output_filter:
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in "
                f"the set {{{_joined(signature.outputs)}}}."
            )
        if alias in seen:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
        seen.append(alias)
    return seen or sorted(signature.outputs)


def _shape(array: np.ndarray) -> str:
    return f"[{','.join(map(str, array.shape))}]"


def _classifications(results: _Results, into: classification_pb2.ClassificationResult) -> None:
    for alias, kind in (("classes", "DT_STRING"), ("scores", "DT_FLOAT")):
        if (array := results.arrays.get(alias)) is None:
            continue
        if array.ndim != 2:
            raise invalid_argument(
                f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array)}"
            )
        if results.kind(alias) != kind:
            raise invalid_argument(f"Expected {alias} Tensor of {kind}. Got: {results.kind(alias)}")
        if array.shape[0] != results.count:
            raise invalid_argument(
                f"Expected {alias} output batch size of {results.count}. Got: {array.shape[0]}"
            )
    sizes = [array.shape[1] for array in results.arrays.values()]
    if len(set(sizes)) > 1:
        raise invalid_argument(
            f"Tensors class and score should match in dim_size(1). Got {sizes[0]} vs. {sizes[1]}"
        )
    for row in range(results.count):
        classification = into.classifications.add()
        for column in range(sizes[0]):
            one = classification.classes.add()
            if "classes" in results.arrays:
                one.label = results.arrays["classes"][row, column]
            if "scores" in results.arrays:
                one.score = results.arrays["scores"][row, column]


def _regressions(results: _Results, into: regression_pb2.RegressionResult) -> None:
    array = results.arrays["outputs"]
    if not (array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)):
        raise invalid_argument(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{_shape(array)}"
        )
    if array.shape[0] != results.count:
        raise invalid_argument(
            "Input batch size did not match output batch size: "
            f"{results.count} vs. {array.shape[0]}"
        )
    if (kind := results.kind("outputs")) != "DT_FLOAT":
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT.  Got: {kind}")
    for value in array.reshape(-1).tolist():
        into.regressions.add(value=value)
