"""The pipeline's parameters on Kubeflow: from the configuration, and back to it."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.errors import UserError
from pipeline.config import Config, apply, validate

# The options that runs change most often: each is a parameter of its own.
KNOBS = {
    "photos": "data.photos",
    "serving_root": "serving.root",
    "image_size": "transform.image_size",
    "epochs": "trainer.epochs",
    "initial_weights": "trainer.initial_weights",
    "max_mae": "evaluator.max_mae",
}
OTHER_OPTIONS = "config"  # the parameter with all other options, by section


def arguments(config: Config) -> dict[str, Any]:
    """The values of the pipeline's parameters for this configuration.

    They do not contain `kubeflow` and `run_dir`: the package holds these.
    """
    # Without options that are not set: for the server, null is an error.
    values = config.model_dump(exclude={"kubeflow", "run_dir"}, exclude_none=True, mode="json")
    values["serving"]["root"] = config.serving.root or config.kubeflow.serving_mount
    knobs = {}
    for knob, option in KNOBS.items():
        section, key = option.split(".")
        knobs[knob] = values[section].pop(key)
    return {**knobs, OTHER_OPTIONS: values}


def configuration(values: Mapping[str, Any], run_dir: Path) -> Config:
    """The configuration in a pod, from the values of the parameters.

    Raises:
        UserError: an unknown section or key, a value outside its bounds, or OTHER_OPTIONS holds an
            option that has a parameter of its own.
    """
    merged = {section: dict(options) for section, options in values[OTHER_OPTIONS].items()}
    for knob, option in KNOBS.items():
        section, key = option.split(".")
        options = merged.setdefault(section, {})
        if key in options:
            raise UserError(
                f"{OTHER_OPTIONS}: {option} is the pipeline's parameter {knob}; set this parameter"
            )
        options[key] = values[knob]
    return validate({"run_dir": str(run_dir), **merged})


def changes(defaults: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The parameters whose values differ from the package's, and these values.

    Args:
        defaults: the values in the package.
        overrides: `section.key=value`, as for `pipeline.config.load`.

    Raises:
        UserError: an unknown section or key, a value outside its bounds, or an option that the
            package fixes.
    """
    knobs = {option: knob for knob, option in KNOBS.items()}
    given: dict[str, Any] = {}
    for override in overrides:
        nested: dict[str, Any] = {}
        apply(nested, override)
        ((section, options),) = nested.items()
        ((key, value),) = options.items()
        if section == "kubeflow":
            raise UserError(
                f"--set {override}: the package fixes it; run goodseed kfp compile again"
            )
        if knob := knobs.get(f"{section}.{key}"):
            given[knob] = value
        else:
            others = given.setdefault(OTHER_OPTIONS, copy.deepcopy(defaults[OTHER_OPTIONS]))
            others.setdefault(section, {})[key] = value
    configuration({**defaults, **given}, Path("/"))
    return given


def parameter_name(node: str) -> str:
    """The name of a node in snake case, as Kubeflow writes the names of parameters."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", node).lower()
