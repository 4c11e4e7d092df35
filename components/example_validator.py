"""ExampleValidator: an anomaly stops the run; the message names the feature and the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tfx.components
from tensorflow_data_validation.utils.anomalies_util import load_anomalies_binary
from tfx.components.example_validator import executor
from tfx.dsl.components.base import executor_spec
from tfx.proto.orchestration import execution_result_pb2
from tfx.types import Artifact, artifact_utils

from components.errors import UserError


class Executor(executor.Executor):
    """TFX's executor only writes anomalies to files; this one also raises them."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> execution_result_pb2.ExecutorOutput:
        """Validates each split.

        Raises:
            UserError: a split has anomalies.
        """
        result = super().Do(input_dict, output_dict, exec_properties)
        artifact = artifact_utils.get_single_instance(output_dict["anomalies"])
        for split in artifact_utils.decode_split_names(artifact.split_names):
            folder = Path(artifact_utils.get_split_uri([artifact], split))
            anomalies = load_anomalies_binary(str(folder / executor.DEFAULT_FILE_NAME))
            found = [
                f"{name}: {anomaly.description}"
                for name, anomaly in sorted(anomalies.anomaly_info.items())
            ]
            if anomalies.HasField("dataset_anomaly_info"):
                found.append(f"dataset: {anomalies.dataset_anomaly_info.description}")
            if found:
                raise UserError(
                    f"the {split} split differs from schemas/curated.pbtxt: {'; '.join(found)}"
                )
        return result


class ExampleValidator(tfx.components.ExampleValidator):
    """TFX's ExampleValidator with the executor above."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
