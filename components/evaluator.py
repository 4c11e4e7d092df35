"""Evaluator: TFMA's metrics on the test split, by age band, extra column and both; the gate."""

from __future__ import annotations

from typing import Any

import tensorflow_model_analysis as tfma
import tfx.components
from tensorflow_model_analysis.proto import config_pb2
from tfx.components.evaluator import executor
from tfx.dsl.components.base import executor_spec
from tfx.types import Artifact, BaseChannel, artifact_utils
from tfx.utils import io_utils, proto_utils

from components import metrics, predictions
from components.beam_step import BeamStep
from components.curated_schema import extra_columns
from components.gate import BASELINE_MAE, MAE
from components.served_model import is_live
from pipeline import config
from schemas import features

CANDIDATE, BASELINE = "candidate", "baseline"  # the names of the models in TFMA


def eval_config(gate: config.Evaluator) -> tfma.EvalConfig:
    """The metrics, the slices and the gate's bounds, in TFMA's form."""
    overall = config_pb2.SlicingSpec()
    # A plain `threshold` would apply to every slice, down to the smallest age band.
    thresholds = config_pb2.PerSliceMetricThreshold(
        slicing_specs=[overall],
        threshold=config_pb2.MetricThreshold(
            value_threshold=config_pb2.GenericValueThreshold(upper_bound={"value": gate.max_mae}),
            change_threshold=config_pb2.GenericChangeThreshold(
                direction=config_pb2.MetricDirection.LOWER_IS_BETTER,
                absolute={"value": gate.max_mae_increase},
            ),
        ),
    )
    names = ("ExampleCount", "MeanPrediction", "MeanLabel", "Calibration")
    specs = {
        "signature_name": "examples",
        "label_key": features.AGE,
        "prediction_key": features.AGE,
    }
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(name=CANDIDATE, **specs),
            config_pb2.ModelSpec(name=BASELINE, is_baseline=True, **specs),
        ],
        metrics_specs=[
            config_pb2.MetricsSpec(
                metrics=[
                    _metric(metrics.AbsoluteError, per_slice_thresholds=[thresholds]),
                    _metric(metrics.SquaredError),
                    *(config_pb2.MetricConfig(class_name=name) for name in names),
                ]
            )
        ],
        slicing_specs=[
            overall,
            config_pb2.SlicingSpec(feature_keys=[features.AGE_BAND]),
        ],
    )


def _metric(kind: type, **more: Any) -> config_pb2.MetricConfig:
    return config_pb2.MetricConfig(class_name=kind.__name__, module=kind.__module__, **more)


def custom_extractors(
    eval_shared_model: Any, eval_config: tfma.EvalConfig, tensor_adapter_config: Any
) -> list[Any]:
    """TFMA's own extractors, and one that writes the age that each photo got.

    TFX finds this function by its name, in the module that `module_path` names.
    """
    extractors = tfma.default_extractors(
        eval_shared_model=eval_shared_model,
        eval_config=eval_config,
        tensor_adapter_config=tensor_adapter_config,
    )
    columns = [key for spec in eval_config.slicing_specs for key in spec.feature_keys]
    # If there is one model only, TFMA drops its name.
    models = {spec.name or CANDIDATE: spec.name for spec in eval_config.model_specs}
    write = predictions.Write(predictions.folder.get(), list(dict.fromkeys(columns)), models)
    return [*extractors, tfma.extractors.Extractor("WritePredictions", write)]


class Executor(BeamStep, executor.Executor):
    """TFX's executor; slices by the CSV's extra columns too, and leaves out an empty baseline."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Evaluates the candidate, and the live model if there is one; blesses a good candidate.

        The evaluation also holds a row for each photo: `predictions.FILE`. Its custom property MAE
        is the candidate's, BASELINE_MAE the live model's.
        """
        tfma_config = proto_utils.json_to_proto(exec_properties["eval_config"], tfma.EvalConfig())
        schema_uri = artifact_utils.get_single_uri(input_dict["schema"])
        schema = io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(schema_uri))
        for column in extra_columns(schema):
            tfma_config.slicing_specs.add(feature_keys=[column])
            tfma_config.slicing_specs.add(feature_keys=[features.AGE_BAND, column])
        inputs = dict(input_dict)
        live = is_live(artifact_utils.get_single_instance(input_dict["baseline_model"]))
        if not live:
            del inputs["baseline_model"]
        properties = {**exec_properties, "eval_config": proto_utils.proto_to_json(tfma_config)}
        evaluation = artifact_utils.get_single_instance(output_dict["evaluation"])
        predictions.folder.set(evaluation.uri)
        super().Do(inputs, output_dict, properties)
        # If there is one model only, TFMA drops its name.
        models = {MAE: CANDIDATE, BASELINE_MAE: BASELINE} if live else {MAE: ""}
        for name, model in models.items():
            evaluation.set_float_custom_property(name, _mae(evaluation.uri, model))


def _mae(evaluation: str, model: str) -> float:
    found = tfma.load_eval_result(evaluation, model_name=model).get_metrics_for_slice()
    return float(found[MAE]["doubleValue"])


class Evaluator(tfx.components.Evaluator):
    """TFX's Evaluator with the executor above, on the test split, which no other step uses."""

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(
        self,
        examples: BaseChannel,
        model: BaseChannel,
        baseline_model: BaseChannel,
        schema: BaseChannel,
        eval_config: tfma.EvalConfig,
    ):
        super().__init__(
            examples=examples,
            model=model,
            baseline_model=baseline_model,
            schema=schema,
            example_splits=[features.TEST],
            eval_config=eval_config,
            module_path=__name__,
        )
