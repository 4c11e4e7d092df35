"""Evaluator: TFMA's metrics on the test split, by age band, extra column and both; the gate.

The errors are those of the photos to which the model does not object. How many it refuses is a
metric of its own, with a bound of its own.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
import tensorflow_model_analysis as tfma
import tfx.components
from tensorflow_model_analysis.proto import config_pb2
from tfx.components.evaluator import constants, executor
from tfx.dsl.components.base import executor_spec
from tfx.types import Artifact, BaseChannel, artifact_utils
from tfx.utils import io_utils, path_utils, proto_utils

from components import certificate, objections, passing, predictions
from components.certificate import Certificate
from components.curated_schema import extra_columns
from components.errors import UserError
from components.gate import (
    BASELINE_MAE,
    CHALLENGE,
    COMPARISON,
    MAE,
    MEASURED,
    OBJECTIONS,
    REFUSED,
    contradictions,
    regressions,
)
from components.paired import compare
from components.served_model import is_live
from components.upstream import mean_error
from pipeline import config
from schemas import features

CANDIDATE, BASELINE = features.MODELS  # their names in TFMA
# Metrics. COUNT is the number of photos without an objection, on which the errors are measured.
COUNT, ALL_PHOTOS = "example_count", "all_photos"
MAX_VALUES = 50  # of an extra column that makes slices without being named in the configuration


def eval_config(gate: config.Evaluator, guard: config.Guard, legal_age: int) -> tfma.EvalConfig:
    """The metrics, the slices and the gate's bounds, in TFMA's form.

    Args:
        gate: the `evaluator` section of the configuration.
        guard: the `guard` section.
        legal_age: years.
    """
    specs = {
        "signature_name": "examples",
        "label_key": features.AGE,
        "prediction_key": features.AGE,
    }
    increase = config_pb2.GenericChangeThreshold(
        direction=config_pb2.MetricDirection.LOWER_IS_BETTER,
        absolute={"value": gate.max_mae_increase},
    )
    names = ("MeanPrediction", "MeanLabel", "Calibration")
    errors = config_pb2.MetricsSpec(
        metrics=[
            mean_error(MAE, per_slice_thresholds=[_bound(increase, upper_bound=gate.max_mae)]),
            mean_error("mean_squared_error"),
            config_pb2.MetricConfig(
                class_name="ExampleCount",
                per_slice_thresholds=[_bound(lower_bound=gate.min_test_photos)],
            ),
            *(config_pb2.MetricConfig(class_name=name) for name in names),
        ],
        example_weights=config_pb2.ExampleWeightOptions(weighted=True),
    )
    photos = config_pb2.MetricsSpec(
        metrics=[
            config_pb2.MetricConfig(
                class_name=objections.Refused.__name__,
                module=objections.__name__,
                per_slice_thresholds=[_bound(upper_bound=guard.max_refused_test)],
            ),
            config_pb2.MetricConfig(
                class_name="ExampleCount", config=json.dumps({"name": ALL_PHOTOS})
            ),
            *(
                config_pb2.MetricConfig(
                    class_name=passing.Passed.__name__,
                    module=passing.__name__,
                    config=json.dumps({"name": name, "youngest": youngest, "oldest": oldest}),
                )
                for name, youngest, oldest in passing.groups(legal_age)
            ),
        ],
        example_weights=config_pb2.ExampleWeightOptions(unweighted=True),
    )
    return config_pb2.EvalConfig(
        model_specs=[
            config_pb2.ModelSpec(name=CANDIDATE, **specs),
            config_pb2.ModelSpec(name=BASELINE, is_baseline=True, **specs),
        ],
        metrics_specs=[errors, photos],
        # If no column is chosen, the executor adds the slices: only a run knows its extra columns.
        slicing_specs=[
            config_pb2.SlicingSpec(),
            config_pb2.SlicingSpec(feature_keys=[features.AGE_BAND]),
            *_slices(gate.slice_columns),
        ],
    )


def _bound(
    change: config_pb2.GenericChangeThreshold | None = None, **bound: float
) -> config_pb2.PerSliceMetricThreshold:
    """An `upper_bound` or a `lower_bound` of the whole split.

    A plain `threshold` would apply to every slice.
    """
    values = {side: {"value": value} for side, value in bound.items()}
    return config_pb2.PerSliceMetricThreshold(
        slicing_specs=[config_pb2.SlicingSpec()],
        threshold=config_pb2.MetricThreshold(
            value_threshold=config_pb2.GenericValueThreshold(**values),
            change_threshold=change,
        ),
    )


def check_slice_columns(chosen: Sequence[str], found: Sequence[str]) -> None:
    """Checks that the photos have the columns that the configuration chose.

    Raises:
        UserError: one is missing.
    """
    if unknown := [name for name in chosen if name not in found]:
        raise UserError(
            f"evaluator.slice_columns: the photos' table has no extra column {', '.join(unknown)}; "
            f"choose from those that it has: {', '.join(found) or 'none'}"
        )


def _slices(columns: Sequence[str]) -> list[config_pb2.SlicingSpec]:
    """Slices by each column alone, and by each with the age bands."""
    return [
        config_pb2.SlicingSpec(feature_keys=keys)
        for column in dict.fromkeys(columns)
        for keys in ([column], [features.AGE_BAND, column])
    ]


def custom_extractors(
    eval_shared_model: Any, eval_config: tfma.EvalConfig, tensor_adapter_config: Any
) -> list[Any]:
    """TFMA's own extractors, and two: one weighs the photos, one writes what each of them got.

    TFX finds this function by its name, in the module that `module_path` names.
    """
    # TFMA computes the metrics after the last of its own extractors, which adds the slices.
    *extractors, slices = tfma.default_extractors(
        eval_shared_model=eval_shared_model,
        eval_config=eval_config,
        tensor_adapter_config=tensor_adapter_config,
    )
    columns = [key for spec in eval_config.slicing_specs for key in spec.feature_keys]
    # If there is one model only, TFMA drops its name.
    models = {spec.name or CANDIDATE: spec.name for spec in eval_config.model_specs}
    weigh = beam.Map(objections.weigh, [*models.values()])
    write = predictions.Write(predictions.folder.get(), list(dict.fromkeys(columns)), models)
    return [
        *extractors,
        tfma.extractors.Extractor("WeighPhotos", weigh),
        slices,
        tfma.extractors.Extractor("WritePredictions", write),
    ]


class Executor(executor.Executor):
    """TFX's executor; slices by the CSV's extra columns too, and leaves out an empty baseline."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Evaluates the candidate, and the live model if there is one; blesses a good candidate.

        The evaluation also holds a row for each photo: `predictions.FILE`. Its custom properties
        are those that components.gate names.

        Raises:
            UserError: the configuration slices by a column that the photos do not have.
        """
        tfma_config = proto_utils.json_to_proto(exec_properties["eval_config"], tfma.EvalConfig())
        schema_uri = artifact_utils.get_single_uri(input_dict["schema"])
        schema = io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(schema_uri))
        photos = artifact_utils.get_single_instance(input_dict["examples"])
        values = json.loads(photos.get_string_custom_property("extra_values"))
        specs, columns = tfma_config.slicing_specs, extra_columns(schema)
        keys = dict.fromkeys(key for spec in specs for key in spec.feature_keys)
        chosen = [key for key in keys if key != features.AGE_BAND]
        check_slice_columns(chosen, columns)
        if not chosen:
            specs.extend(_slices([name for name in columns if values[name] <= MAX_VALUES]))
        inputs = dict(input_dict)
        live = is_live(artifact_utils.get_single_instance(input_dict["baseline_model"]))
        if not live:
            del inputs["baseline_model"]
        properties = {**exec_properties, "eval_config": proto_utils.proto_to_json(tfma_config)}
        evaluation = artifact_utils.get_single_instance(output_dict["evaluation"])
        predictions.folder.set(evaluation.uri)
        super().Do(inputs, output_dict, properties)
        # If there is one model only, TFMA drops its name.
        overall = _overall(evaluation.uri, CANDIDATE if live else "")
        for name in (MAE, REFUSED):
            evaluation.set_float_custom_property(name, overall[name])
        if live:
            mae = _overall(evaluation.uri, BASELINE)[MAE]
            evaluation.set_float_custom_property(BASELINE_MAE, mae)
        evaluation.set_int_custom_property(MEASURED, round(overall[COUNT]))
        evaluation.set_string_custom_property(OBJECTIONS, json.dumps(_objections(evaluation.uri)))
        certified = _certificate(artifact_utils.get_single_uri(input_dict["model"]))
        answered = predictions.answered(Path(evaluation.uri), CANDIDATE)
        challenge = _challenge(certified, answered)
        evaluation.set_string_custom_property(CHALLENGE, json.dumps(challenge))
        comparison = {}
        if live:
            photos = pq.read_table(Path(evaluation.uri, predictions.FILE))
            comparison = compare(photos, CANDIDATE, BASELINE, certified.legal_age)
            evaluation.set_string_custom_property(COMPARISON, json.dumps(comparison))
        if contradictions(challenge) or regressions(comparison):
            _shut(artifact_utils.get_single_instance(output_dict["blessing"]))


def _certificate(model: str) -> Certificate:
    """The certificate that travels with a trained model."""
    folder = path_utils.serving_model_path(model)
    return certificate.read(Path(folder, tf.saved_model.ASSETS_DIRECTORY, certificate.FILE))


def _overall(evaluation: str, model: str) -> dict[str, float]:
    """A model's metrics of the whole split.

    If all photos are refused, TFMA's MAE is 0. It becomes NaN, which no bound lets pass.
    """
    found = tfma.load_eval_result(evaluation, model_name=model).get_metrics_for_slice()
    metrics = {name: float(value["doubleValue"]) for name, value in found.items()}
    return metrics if metrics[COUNT] else {**metrics, MAE: math.nan}


def _objections(evaluation: str) -> dict[str, int]:
    """The number of photos with each objection of the candidate, the most frequent one first."""
    column = predictions.objection_column(CANDIDATE)
    photos = pq.read_table(Path(evaluation, predictions.FILE), columns=[column])
    return dict(Counter(filter(None, photos[column].to_pylist())).most_common())


def _challenge(certified: Certificate, answered: pa.Table) -> dict[str, Any]:
    """The candidate's rule, its proofs, and who passes without ID on the test photos."""
    ages = answered[features.AGE].to_numpy()
    passes = ~answered[predictions.column(CANDIDATE, features.CHALLENGE)].to_numpy()

    def passed(youngest: int, oldest: int | None) -> dict[str, Any]:
        return asdict(certificate.count(ages, passes, youngest, oldest))

    return {
        "age": certified.challenge_age,
        "max_p_minor": certified.max_p_minor,
        "certified": certified.certified,
        "sentences": certified.sentences(),
        "minors_on_eval": [asdict(proof) for proof in certified.proofs],
        "minors_on_test": [
            asdict(proof) | passed(proof.youngest, proof.oldest) for proof in certified.proofs
        ],
        "adults_on_test": [
            passed(*group) for group in certificate.adult_groups(certified.legal_age)
        ],
    }


def _shut(blessing: Artifact) -> None:
    """Takes back TFMA's blessing."""
    blessing.set_int_custom_property(
        constants.ARTIFACT_PROPERTY_BLESSED_KEY, constants.NOT_BLESSED_VALUE
    )
    Path(blessing.uri, constants.BLESSED_FILE_NAME).unlink(missing_ok=True)
    Path(blessing.uri, constants.NOT_BLESSED_FILE_NAME).touch()


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
