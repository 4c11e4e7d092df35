"""Pusher: a blessed model becomes a version folder under the serving root, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tfx.components
from tfx.components.pusher import executor
from tfx.dsl.components.base import executor_spec
from tfx.proto import pusher_pb2
from tfx.types import Artifact, artifact_utils
from tfx.utils import proto_utils

from serving.versions import push


class Executor(executor.Executor):
    """TFX's, but a killed push leaves nothing that a server could load, and no second copy."""

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Pushes the model if it is blessed; the artifact says which version, or that it is not."""
        pushed_model = artifact_utils.get_single_instance(output_dict["pushed_model"])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed_model)
            return
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(exec_properties["push_destination"], destination)
        base = Path(destination.filesystem.base_directory)
        version = push(Path(self.GetModelPath(input_dict)), base)
        self._MarkPushed(
            pushed_model, pushed_destination=str(base / str(version)), pushed_version=str(version)
        )


class Pusher(tfx.components.Pusher):
    """TFX's Pusher with the executor above."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
