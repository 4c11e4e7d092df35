"""Changes which version of a model tills get: the version labels in a model server's configuration.

The file is a ModelServerConfig in protobuf's text format. The server reads it again at intervals
(--model_config_file_poll_wait_seconds). The file lists the versions to load (policy `specific`), so
a version that is pushed does not go live by itself. The file also gives labels to some of them:

    stable     the version for all tills
    canary     the version for chosen tills: one on trial, or the stable one
    previous   the version that was stable before; it stays loaded, so a rollback works at once

A server accepts a new configuration as a whole or not at all, and checks the labels before it loads
anything. A label that the server already has can move only to a version that is AVAILABLE
(`ServerCore::UpdateModelVersionLabelMap` in tensorflow_serving/model_servers/server_core.cc). So
`load` comes before `canary`, and `promote` moves `stable` to the canary's version, which is loaded.
A label that the server does not have yet may come together with its version
(--allow_version_labels_for_unavailable_models). When a server starts, this is true for all labels.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import TypeAlias

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

ModelConfig: TypeAlias = model_server_config_pb2.ModelConfig
ModelServerConfig: TypeAlias = model_server_config_pb2.ModelServerConfig

STABLE, CANARY, PREVIOUS = "stable", "canary", "previous"


class LabelError(Exception):
    """The change is not possible. The text says what is wrong and what to do."""


def load(model: ModelConfig, version: int) -> None:
    """Loads a version beside the others. No till gets it yet."""
    versions = model.model_version_policy.specific.versions
    if version in versions:
        raise LabelError(f"version {version} is loaded already")
    _set_loaded(model, {*versions, version})


def canary(model: ModelConfig, version: int | None) -> None:
    """Makes a loaded version the canary. None means the stable version, which ends a trial."""
    labels = model.version_labels
    if version is None and STABLE not in labels:
        raise LabelError("no version is labelled stable")
    version = labels[STABLE] if version is None else version
    if labels.get(CANARY) == version:
        raise LabelError(f"version {version} is the canary already")
    if CANARY in labels and version not in model.model_version_policy.specific.versions:
        raise LabelError(
            f"version {version} is not loaded, and a server labels only loaded versions: run "
            f"`goodseed serving load` first"
        )
    labels[CANARY] = version
    _set_loaded(model, set(labels.values()))


def promote(model: ModelConfig) -> None:
    """Makes the canary the stable version, and the stable version the previous one."""
    labels = model.version_labels
    if CANARY not in labels:
        raise LabelError("no version is labelled canary: run `goodseed serving canary` first")
    if labels.get(STABLE) == labels[CANARY]:
        raise LabelError(
            f"version {labels[CANARY]} is canary and stable already: nothing to promote"
        )
    if STABLE in labels:
        labels[PREVIOUS] = labels[STABLE]
    labels[STABLE] = labels[CANARY]
    _set_loaded(model, set(labels.values()))


def rollback(model: ModelConfig) -> None:
    """Makes the previous version stable again, and also the canary, which ends a trial."""
    labels = model.version_labels
    if PREVIOUS not in labels:
        raise LabelError(
            "no version is labelled previous: nothing was promoted since the last rollback "
            "(to end a trial, run `goodseed serving canary FILE stable`)"
        )
    labels[STABLE] = labels[CANARY] = labels[PREVIOUS]
    del labels[PREVIOUS]
    _set_loaded(model, set(labels.values()))


def edit(
    path: Path,
    change: Callable[[ModelConfig], None],
    *,
    name: str | None = None,
    serving_root: Path | None = None,
) -> list[str]:
    """Makes one of the changes above in a file. After an error the file is as it was.

    Args:
        path: the file with a ModelServerConfig. Comments at its top are kept; others get lost.
        change: changes the configuration of the model.
        name: the model; None if the file has only one.
        serving_root: the folder of the models' folders; if given, every version that the file names
            after the change must exist there.

    Returns:
        Lines to print: each label with its version, before and after, and the loaded versions.

    Raises:
        LabelError: the file can't be read or written, does not have the model, or the change is not
            possible.
    """
    try:
        text = path.read_text(encoding="utf-8")
        config = text_format.Parse(text, ModelServerConfig())
    except OSError as error:
        raise LabelError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise LabelError(f"{path}: not a text file in UTF-8") from None
    except text_format.ParseError as error:
        reason = " ".join(str(error).split())
        raise LabelError(f"{path}: not a ModelServerConfig: {reason}") from None
    try:
        model = _model(config, name)
        before = _describe(model)
        change(model)
        if serving_root is not None:
            _check_folders(model, serving_root)
    except LabelError as error:
        raise LabelError(f"{path}: {error}") from None
    comments = takewhile(lambda line: line.startswith("#"), text.split("\n"))
    _replace(path, "".join(f"{line}\n" for line in comments) + text_format.MessageToString(config))
    after = _describe(model)
    return [
        f"{key:<9} {before[key]}" + (f" → {after[key]}" if after[key] != before[key] else "")
        for key in after
    ]


def _model(config: ModelServerConfig, name: str | None) -> ModelConfig:
    models = {model.name: model for model in config.model_config_list.config}
    names = ", ".join(models)
    if not models:
        raise LabelError("has no model: is it the file of the server's --model_config_file?")
    if name is None and len(models) > 1:
        raise LabelError(f"has {len(models)} models ({names}): choose one with --model NAME")
    if name is not None and name not in models:
        raise LabelError(f"has no model {name!r}; it has: {names}")
    model = models[name] if name is not None else next(iter(models.values()))
    policy = model.model_version_policy.WhichOneof("policy_choice") or "latest"
    if policy != "specific":
        raise LabelError(
            f"the version policy of {model.name} is `{policy}`, so a pushed version goes live by "
            "itself: write `model_version_policy { specific { } }` to serve by label"
        )
    return model


def _set_loaded(model: ModelConfig, versions: set[int]) -> None:
    model.model_version_policy.specific.versions[:] = sorted(versions)


def _describe(model: ModelConfig) -> dict[str, str]:
    described = {
        label: str(model.version_labels.get(label, "–")) for label in (STABLE, CANARY, PREVIOUS)
    }
    versions = ", ".join(map(str, model.model_version_policy.specific.versions))
    return {**described, "loaded": versions or "–"}


def _check_folders(model: ModelConfig, serving_root: Path) -> None:
    for version in model.model_version_policy.specific.versions:
        folder = serving_root / model.name / str(version)
        if not (folder / "saved_model.pb").is_file():
            raise LabelError(f"version {version} can't be loaded: no {folder}/saved_model.pb")


def _replace(path: Path, text: str) -> None:
    """Writes another file and renames it, so that a server never reads half a file."""
    path = path.resolve()
    aside = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        aside.write_text(text, encoding="utf-8")
        shutil.copymode(path, aside)
        os.replace(aside, path)
    except OSError as error:
        raise LabelError(f"{path}: {error.strerror}") from None
    finally:
        aside.unlink(missing_ok=True)
