"""A step's files on the work volume, where the workers of a cluster see them.

KFP's launcher keeps the artifacts of a step inside its pod. If Beam works on a cluster, the step
gets a copy of its inputs on the volume, and its outputs are copied from there.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pipeline.kubeflow.launcher import Slot


class Place(NamedTuple):
    """Where a step reads and writes."""

    inputs: Mapping[str, Slot]
    outputs: Mapping[str, Slot]
    scratch: Path


@contextlib.contextmanager
def place(folder: Path, inputs: Mapping[str, Slot], outputs: Mapping[str, Slot]) -> Iterator[Place]:
    """Copies the inputs into a folder; after a success of the block, copies the outputs from it.

    Args:
        folder: for this step alone. What a killed try left there is deleted first; at the end,
            everything.
        inputs: as the launcher gives them.
        outputs: their folders exist and are empty.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shared = Place(
        {key: slot._replace(path=folder / "inputs" / key) for key, slot in inputs.items()},
        {key: slot._replace(path=folder / "outputs" / key) for key, slot in outputs.items()},
        folder / "scratch",
    )
    try:
        for key, slot in inputs.items():
            shutil.copytree(slot.path, shared.inputs[key].path)
        for slot in shared.outputs.values():
            slot.path.mkdir(parents=True)
        yield shared
        for key, slot in outputs.items():
            shutil.copytree(shared.outputs[key].path, slot.path, dirs_exist_ok=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
