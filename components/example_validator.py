"""ExampleValidator: an anomaly stops the run, naming feature and reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tfx.components
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.components.example_validator import executor, labels
from tfx.dsl.components.base import executor_spec

from components.errors import UserError


class Executor(executor.Executor):
    """TFX's, which only writes anomalies down, made strict."""

    def _Validate(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> anomalies_pb2.Anomalies:
        anomalies = super()._Validate(inputs, outputs)
        found = [f"{name}: {a.description}" for name, a in sorted(anomalies.anomaly_info.items())]
        if anomalies.HasField("dataset_anomaly_info"):
            found.append(f"dataset: {anomalies.dataset_anomaly_info.description}")
        if found:
            split = Path(outputs[labels.SCHEMA_DIFF_PATH]).name.removeprefix("Split-")
            raise UserError(
                f"the {split} split differs from schemas/curated.pbtxt: {'; '.join(found)}"
            )
        return anomalies


class ExampleValidator(tfx.components.ExampleValidator):
    """TFX's ExampleValidator with the executor above."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
