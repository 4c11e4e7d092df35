"""Evaluator: the gate. TFMA's metrics on the test split, by age band, passenger column and both."""

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
from components.curated_schema import passengers
from components.served_model import is_live
from schemas import features

MAE = "mean_absolute_error"
BASELINE_MAE = f"baseline_{MAE}"  # custom properties of the evaluation, years, over the whole split
CANDIDATE, BASELINE = "candidate", "baseline"


def eval_config(max_mae: float, max_mae_increase: float) -> tfma.EvalConfig:
    """Metrics, slices and thresholds.

    Args:
        max_mae: years; a candidate above it is not blessed.
        max_mae_increase: years; nor one whose MAE exceeds the live model's by more.
    """
    overall = config_pb2.SlicingSpec()
    # A plain `threshold` would hold every slice to it, down to the smallest age band.
    gate = config_pb2.PerSliceMetricThreshold(
        slicing_specs=[overall],
        threshold=config_pb2.MetricThreshold(
            value_threshold=config_pb2.GenericValueThreshold(upper_bound={"value": max_mae}),
            change_threshold=config_pb2.GenericChangeThreshold(
                direction=config_pb2.MetricDirection.LOWER_IS_BETTER,
                absolute={"value": max_mae_increase},
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
                    _metric(metrics.AbsoluteError, per_slice_thresholds=[gate]),
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
    """TFMA's own extractors, and one that writes down what each photo was given."""
    extractors = tfma.default_extractors(
        eval_shared_model=eval_shared_model,
        eval_config=eval_config,
        tensor_adapter_config=tensor_adapter_config,
    )
    columns = [key for spec in eval_config.slicing_specs for key in spec.feature_keys]
    # TFMA drops the name of a model that stands alone.
    models = {spec.name or CANDIDATE: spec.name for spec in eval_config.model_specs}
    write = predictions.Write(predictions.folder.get(), list(dict.fromkeys(columns)), models)
    return [*extractors, tfma.extractors.Extractor("WritePredictions", write)]


class Executor(BeamStep, executor.Executor):
    """TFX's, which slices by what the schema says the CSV brought, and minds an empty baseline."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Evaluates the candidate, beside the live model where there is one, and blesses it.

        Beside what TFMA writes, the evaluation holds a row for each photo: `predictions.FILE`.
        Its custom property MAE is the candidate's, BASELINE_MAE the live model's.
        """
        config = proto_utils.json_to_proto(exec_properties["eval_config"], tfma.EvalConfig())
        schema_uri = artifact_utils.get_single_uri(input_dict["schema"])
        schema = io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(schema_uri))
        for column in passengers(schema):
            config.slicing_specs.add(feature_keys=[column])
            config.slicing_specs.add(feature_keys=[features.AGE_BAND, column])
        inputs = dict(input_dict)
        live = is_live(artifact_utils.get_single_instance(input_dict["baseline_model"]))
        if not live:
            del inputs["baseline_model"]
        properties = {**exec_properties, "eval_config": proto_utils.proto_to_json(config)}
        evaluation = artifact_utils.get_single_instance(output_dict["evaluation"])
        predictions.folder.set(evaluation.uri)
        super().Do(inputs, output_dict, properties)
        # TFMA drops the name of a model that stands alone.
        models = {MAE: CANDIDATE, BASELINE_MAE: BASELINE} if live else {MAE: ""}
        for name, model in models.items():
            evaluation.set_float_custom_property(name, _mae(evaluation.uri, model))


def _mae(evaluation: str, model: str) -> float:
    found = tfma.load_eval_result(evaluation, model_name=model).get_metrics_for_slice()
    return float(found[MAE]["doubleValue"])


class Evaluator(tfx.components.Evaluator):
    """TFX's Evaluator with the executor above, on the split that nothing else has seen."""

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
