"""Pusher: copies a blessed model to a version folder under the serving root, all of it or none."""

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
    """TFX's executor with another way to copy.

    TFX copies the files into the version folder one by one, where a server may load a part of them,
    and puts a second copy into the artifact.
    """

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Pushes the model if it is blessed. The artifact's custom properties are those of TFX."""
        pushed_model = artifact_utils.get_single_instance(output_dict["pushed_model"])
        blessed = self.CheckBlessing(input_dict)
        pushed_model.set_int_custom_property("pushed", int(blessed))
        if not blessed:
            return
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(exec_properties["push_destination"], destination)
        base = Path(destination.filesystem.base_directory)
        version = str(push(Path(self.GetModelPath(input_dict)), base))
        pushed_model.set_string_custom_property("pushed_destination", str(base / version))
        pushed_model.set_string_custom_property("pushed_version", version)


class Pusher(tfx.components.Pusher):
    """TFX's Pusher with the executor above."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)
