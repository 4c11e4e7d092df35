"""The files of a step on the work volume."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.kubeflow.launcher import Slot
from pipeline.kubeflow.shared import place

Slots = dict[str, Slot]


@pytest.fixture
def slots(tmp_path: Path) -> tuple[Slots, Slots]:
    """An input with a file, and an empty output, as KFP's launcher makes them."""
    made = {}
    for name in ("examples", "statistics"):
        path = tmp_path / "pod" / name
        path.mkdir(parents=True)
        made[name] = Slot(name, f"s3://bucket/{name}", path, {"span": 3})
    (made["examples"].path / "Split-train").mkdir()
    (made["examples"].path / "Split-train" / "data.gz").write_bytes(b"photos")
    return {"examples": made["examples"]}, {"statistics": made["statistics"]}


def test_inputs_are_copied_there_and_outputs_from_there(
    slots: tuple[Slots, Slots], tmp_path: Path
) -> None:
    shared, (inputs, outputs) = tmp_path / "shared", slots
    with place(shared, *slots) as there:
        example = there.inputs["examples"]
        assert (example.path / "Split-train" / "data.gz").read_bytes() == b"photos"
        assert example[:2] == inputs["examples"][:2] and example.metadata == {"span": 3}
        for path in (example.path, there.outputs["statistics"].path, there.scratch):
            assert path.is_relative_to(shared)
        (there.outputs["statistics"].path / "stats.pb").write_bytes(b"statistics")
        there.scratch.mkdir()
    assert (outputs["statistics"].path / "stats.pb").read_bytes() == b"statistics"
    assert not shared.exists()


def test_a_failure_leaves_nothing(slots: tuple[Slots, Slots], tmp_path: Path) -> None:
    shared, outputs = tmp_path / "shared", slots[1]
    with pytest.raises(OSError, match="disk"), place(shared, *slots) as there:
        (there.outputs["statistics"].path / "stats.pb").write_bytes(b"half")
        raise OSError("disk")
    assert not shared.exists() and not any(outputs["statistics"].path.iterdir())


def test_what_a_killed_try_left_is_not_used(slots: tuple[Slots, Slots], tmp_path: Path) -> None:
    left = tmp_path / "shared" / "outputs" / "statistics"
    left.mkdir(parents=True)
    (left / "stats.pb").write_bytes(b"half")
    with place(tmp_path / "shared", *slots) as there:
        assert not any(there.outputs["statistics"].path.iterdir())
