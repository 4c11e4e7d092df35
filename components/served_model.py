"""ServedModel: the live model, as the Evaluator's baseline."""

import shutil
from pathlib import Path

from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import Artifact
from tfx.types.standard_artifacts import Model
from tfx.utils import path_utils

from serving.versions import newest_version

VERSION = "served_version"  # custom property of the artifact: the live version; 0 if none is live


@component
def ServedModel(model: OutputArtifact[Model], serving_base: Parameter[str]) -> None:
    """Copies the newest version from the serving root, where it may be deleted later.

    If no model is live, the artifact is empty and its version is 0, so that every runner always
    has the same artifacts. This step must not be cached, because the live model changes.

    Args:
        model: output; gets the live model in the folder where TFX's Trainer puts a model.
        serving_base: the folder with a subfolder for each version.
    """
    version = newest_version(Path(serving_base)) or 0
    model.set_int_custom_property(VERSION, version)
    if version:
        shutil.copytree(Path(serving_base) / str(version), path_utils.serving_model_dir(model.uri))


def is_live(model: Artifact) -> bool:
    """Whether the artifact holds a model."""
    return bool(model.get_int_custom_property(VERSION))
