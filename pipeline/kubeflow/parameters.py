"""The pipeline's parameters: the configuration as Kubeflow carries it, and back."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.errors import UserError
from pipeline.config import Config, apply, validate

# What a run is most often given: a parameter of its own each. No other parameter holds it.
KNOBS = {
    "photos": "data.photos",
    "serving_root": "serving.root",
    "image_size": "transform.image_size",
    "epochs": "trainer.epochs",
    "initial_weights": "trainer.initial_weights",
    "max_mae": "evaluator.max_mae",
}
REST = "config"  # the parameter with every other option of a run


def arguments(config: Config) -> dict[str, Any]:
    """The values of the pipeline's parameters that give this configuration.

    `kubeflow` and `run_dir` are not among them: the package holds them.
    """
    # Without what is not set: to the server, null is an error.
    values = config.model_dump(exclude={"kubeflow", "run_dir"}, exclude_none=True, mode="json")
    values["serving"]["root"] = config.serving.root or config.kubeflow.serving_mount
    if config.beam.runner != "FnApiRunner" and not any(
        option.startswith(("--sdk_container_image", "--environment_type"))
        for option in config.beam.options
    ):
        values["beam"]["options"].append(f"--sdk_container_image={config.kubeflow.image}")
    knobs = {}
    for knob, option in KNOBS.items():
        section, key = option.split(".")
        knobs[knob] = values[section].pop(key)
    return {**knobs, REST: values}


def configuration(values: Mapping[str, Any], run_dir: Path) -> Config:
    """The configuration in a pod, from the parameters' values.

    Raises:
        UserError: unknown section or key, a value outside its bounds, or a knob in `config`.
    """
    merged = {section: dict(options) for section, options in values[REST].items()}
    for knob, option in KNOBS.items():
        section, key = option.split(".")
        options = merged.setdefault(section, {})
        if key in options:
            raise UserError(f"{REST}: {option} is the pipeline's parameter {knob}; set that")
        options[key] = values[knob]
    return validate({"run_dir": str(run_dir), **merged})


def changes(defaults: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The parameters that a run of the package has to be given, and their values.

    Args:
        defaults: what they are in the package.
        overrides: `section.key=value`, as for `pipeline.config.load`.

    Raises:
        UserError: unknown section or key, a value outside its bounds, or one that is in the package
            for good.
    """
    knobs = {option: knob for knob, option in KNOBS.items()}
    given: dict[str, Any] = {}
    for override in overrides:
        nested: dict[str, Any] = {}
        apply(nested, override)
        ((section, options),) = nested.items()
        ((key, value),) = options.items()
        if section == "kubeflow":
            raise UserError(f"--set {override}: that is in the package; goodseed kfp compile anew")
        if knob := knobs.get(f"{section}.{key}"):
            given[knob] = value
        else:
            rest = given.setdefault(REST, copy.deepcopy(defaults[REST]))
            rest.setdefault(section, {})[key] = value
    configuration({**defaults, **given}, Path("/"))
    return given
