"""summary.json: what a run did, read from its metadata store and TFMA's results."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib import metadata as distributions
from pathlib import Path
from typing import Any

import tensorflow_model_analysis as tfma
from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2
from tfx import v1 as tfx
from tfx.types import Artifact
from tfx.types.artifact_utils import deserialize_artifact

from components.evaluator import BASELINE, CANDIDATE, MAE
from pipeline.config import Config

_PACKAGES = ("goodseed", "tfx", "tensorflow", "keras", "apache-beam", "tensorflow-model-analysis")


def run_outputs(metadata_db: Path, run_id: str) -> dict[tuple[str, str], Artifact]:
    """The artifacts that a run's steps made or took from the cache, by (node, output key)."""
    connection = tfx.orchestration.metadata.sqlite_metadata_connection_config(str(metadata_db))
    store = MetadataStore(connection)
    run = store.get_context_by_type_and_name("pipeline_run", run_id)
    outputs: dict[tuple[str, str], Artifact] = {}
    for execution in store.get_executions_by_context(run.id) if run else ():
        contexts = store.get_contexts_by_execution(execution.id)
        nodes = [c.name.split(".", 1)[1] for c in contexts if c.type == "node"]
        for event in store.get_events_by_execution_ids([execution.id]):
            if event.type == metadata_store_pb2.Event.OUTPUT:
                (artifact,) = store.get_artifacts_by_id([event.artifact_id])
                (kind,) = store.get_artifact_types_by_id([artifact.type_id])
                key = event.path.steps[0].key
                outputs[nodes[0], key] = deserialize_artifact(kind, artifact)
    return outputs


def summarise(
    config: Config,
    outputs: Mapping[tuple[str, str], Artifact],
    *,
    failure: str | None,
    seconds: dict[str, float],
    peak_rss_mb: dict[str, float],
) -> dict[str, Any]:
    """The summary of a run, whole or failed.

    Args:
        outputs: as `run_outputs` gives them; what a failed run did not reach is missing.
        failure: which step failed and why, one line; None where none did.
        seconds: wall time by step, and `total`.
        peak_rss_mb: largest resident memory by step in MB, and `total` for the largest of all.
    """
    examples = outputs.get(("PhotoExampleGen", "examples"))
    pushed = outputs.get(("Pusher", "pushed_model"))
    return {
        "examples": _examples(examples) if examples else None,
        "gate": _gate(config, outputs),
        "pushed_version": _pushed_version(pushed) if pushed else None,
        "failure": failure,
        "seconds": seconds,
        "peak_rss_mb": peak_rss_mb,
        "versions": {
            "python": platform.python_version(),
            **{name: distributions.version(name) for name in _PACKAGES},
        },
    }


def _examples(artifact: Artifact) -> dict[str, Any]:
    return {
        **json.loads(artifact.get_string_custom_property("examples")),
        "rejected": json.loads(artifact.get_string_custom_property("rejects")),
    }


def _pushed_version(artifact: Artifact) -> int | None:
    version = artifact.get_string_custom_property("pushed_version")
    return int(version) if version else None


def _gate(config: Config, outputs: Mapping[tuple[str, str], Artifact]) -> dict[str, Any] | None:
    if ("Evaluator", "evaluation") not in outputs:
        return None
    folder = outputs["Evaluator", "evaluation"].uri
    value, baseline = _mae(folder, CANDIDATE), _mae(folder, BASELINE)
    blessed = outputs["Evaluator", "blessing"].get_int_custom_property("blessed") == 1
    gate = config.evaluator
    reasons = []
    if not value <= gate.max_mae:
        reasons.append(f"MAE {value:.2f} years is above the bound of {gate.max_mae:.2f}")
    if baseline is not None and not value <= baseline + gate.max_mae_increase:
        reasons.append(
            f"MAE {value:.2f} years is worse than the live model's {baseline:.2f} by more than "
            f"{gate.max_mae_increase:.2f}"
        )
    if not blessed and not reasons:
        reasons.append(str(tfma.load_validation_result(folder)))
    return {
        "metric": MAE,
        "value": value,
        "bound": gate.max_mae,
        "baseline": baseline,
        "blessed": blessed,
        "reasons": reasons,
    }


def _mae(evaluation: str, model: str) -> Any:
    """The overall MAE in years; None where the evaluation does not hold the model."""
    results = tfma.load_eval_results([evaluation], model_name=model).get_results()
    metrics = results[0].get_metrics_for_slice() if results else None
    return metrics[MAE]["doubleValue"] if metrics else None
