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
from tfx.orchestration import metadata
from tfx.types import Artifact
from tfx.types.artifact_utils import deserialize_artifact

from components.evaluator import BASELINE, CANDIDATE, MAE
from components.served_model import is_live
from components.serving_check import REASON
from pipeline.config import Config

_PACKAGES = ("goodseed", "tfx", "tensorflow", "keras", "apache-beam", "tensorflow-model-analysis")


def metadata_store(database: Path) -> MetadataStore:
    """A run folder's metadata store."""
    return MetadataStore(metadata.sqlite_metadata_connection_config(str(database)))


def run_outputs(metadata_db: Path, run_id: str) -> dict[tuple[str, str], Artifact]:
    """The artifacts that a run's steps made or took from the cache, by (node, output key)."""
    store = metadata_store(metadata_db)
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
        config: the run's.
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
    # TFMA drops the name of a model that stands alone.
    live = is_live(outputs["ServedModel", "model"])
    value = _mae(folder, CANDIDATE if live else "")
    baseline = _mae(folder, BASELINE) if live else None
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
    check = outputs.get(("ServingCheck", "blessing"))
    if check and (why := check.get_string_custom_property(REASON)):
        reasons.append(f"it can't be served: {why}")
    return {
        "metric": MAE,
        "value": value,
        "bound": gate.max_mae,
        "baseline": baseline,
        "blessed": blessed,
        "reasons": reasons,
    }


def _mae(evaluation: str, model: str) -> float:
    """A model's MAE over the whole test split, years."""
    metrics = tfma.load_eval_result(evaluation, model_name=model).get_metrics_for_slice()
    return float(metrics[MAE]["doubleValue"])
