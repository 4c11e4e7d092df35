"""ServedModel: the model that is live now, as the Evaluator's baseline."""

import shutil
from pathlib import Path

from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import Artifact
from tfx.types.standard_artifacts import Model
from tfx.utils import path_utils

from serving.versions import newest_version

VERSION = "served_version"  # custom property of the artifact: the live version, 0 where none is


@component
def ServedModel(model: OutputArtifact[Model], serving_base: Parameter[str]) -> None:
    """Copies the newest version under the serving root, so that it stays when the root moves on.

    Where nothing is live the artifact is there too, empty, with version 0: every runner then
    carries the same artifacts. This step must not be cached: what is live changes by itself.

    Args:
        model: the live model, where TFX's Trainer would have put it.
        serving_base: folder whose subfolders are the versions.
    """
    version = newest_version(Path(serving_base)) or 0
    model.set_int_custom_property(VERSION, version)
    if version:
        shutil.copytree(Path(serving_base) / str(version), path_utils.serving_model_dir(model.uri))


def is_live(model: Artifact) -> bool:
    """Whether the artifact holds a model."""
    return bool(model.get_int_custom_property(VERSION))
