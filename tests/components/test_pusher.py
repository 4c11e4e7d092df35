"""Only a blessed model becomes a version; the artifact names the version."""

from __future__ import annotations

from pathlib import Path

import pytest
from tfx import v1 as tfx
from tfx.types.standard_artifacts import InfraBlessing, Model, ModelBlessing, PushedModel
from tfx.utils import proto_utils

from components.pusher import Executor


def pushed(tmp_path: Path, blessed: int, servable: int = 1) -> PushedModel:
    folder = tmp_path / "model" / "Format-Serving"
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_text("graph")
    model, blessing, result = Model(), ModelBlessing(), PushedModel()
    model.uri, result.uri = str(tmp_path / "model"), str(tmp_path / "pushed")
    blessing.set_int_custom_property("blessed", blessed)
    infra = InfraBlessing()
    infra.set_int_custom_property("blessed", servable)
    destination = tfx.proto.PushDestination(
        filesystem=tfx.proto.PushDestination.Filesystem(base_directory=str(tmp_path / "live"))
    )
    Executor().Do(
        {"model": [model], "model_blessing": [blessing], "infra_blessing": [infra]},
        {"pushed_model": [result]},
        {"push_destination": proto_utils.proto_to_json(destination)},
    )
    return result


def test_a_blessed_model_is_pushed(tmp_path: Path) -> None:
    artifact = pushed(tmp_path, blessed=1)
    (version,) = (tmp_path / "live").iterdir()
    assert artifact.get_int_custom_property("pushed") == 1
    assert artifact.get_string_custom_property("pushed_version") == version.name
    assert artifact.get_string_custom_property("pushed_destination") == str(version)
    assert (version / "saved_model.pb").read_text() == "graph"


@pytest.mark.parametrize(("blessed", "servable"), [(0, 1), (1, 0)])
def test_an_unblessed_or_unservable_model_is_not_pushed(
    blessed: int, servable: int, tmp_path: Path
) -> None:
    artifact = pushed(tmp_path, blessed, servable)
    assert artifact.get_int_custom_property("pushed") == 0
    assert not artifact.get_string_custom_property("pushed_version")
    assert not (tmp_path / "live").exists()
