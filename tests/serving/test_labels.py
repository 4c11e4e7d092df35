"""Labels move as the operator wants, in steps that a model server accepts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from pipeline import cli
from serving import labels

CONFIG = """\
# Kept by goodseed serving.
# See docs/operators.md.
model_config_list {
  # lost
  config {
    name: "goodseed_age"
    base_path: "/models/größe"
    model_platform: "tensorflow"
    model_version_policy { specific { } }
  }
}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "models.config"
    path.write_text(CONFIG)
    return path


def state(path: Path) -> tuple[dict[str, int], list[int]]:
    model = text_format.Parse(path.read_text(), ModelServerConfig()).model_config_list.config[0]
    return dict(model.version_labels), list(model.model_version_policy.specific.versions)


def goodseed(*arguments: object) -> int:
    return cli.main(["serving", *map(str, arguments)])


def test_a_version_goes_from_push_to_every_till_and_back(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert goodseed("canary", file, 1) == 0  # the first one: no label to move
    assert state(file) == ({"canary": 1}, [1])
    assert goodseed("promote", file) == 0
    assert state(file) == ({"stable": 1, "canary": 1}, [1])

    assert goodseed("load", file, 2) == 0
    assert state(file) == ({"stable": 1, "canary": 1}, [1, 2])
    assert goodseed("canary", file, 2) == 0
    assert state(file) == ({"stable": 1, "canary": 2}, [1, 2])
    capsys.readouterr()
    assert goodseed("promote", file) == 0
    assert state(file) == ({"stable": 2, "canary": 2, "previous": 1}, [1, 2])
    assert capsys.readouterr().out.splitlines() == [
        str(file),
        "  stable    1 → 2",
        "  canary    2",
        "  previous  – → 1",
        "  loaded    1, 2",
    ]
    assert goodseed("rollback", file) == 0
    assert state(file) == ({"stable": 1, "canary": 1}, [1])


def test_a_canary_can_be_taken_back(file: Path) -> None:
    for change in (["canary", 1], ["promote"], ["load", 2], ["canary", 2], ["canary", "stable"]):
        assert goodseed(change[0], file, *change[1:]) == 0
    assert state(file) == ({"stable": 1, "canary": 1}, [1])


def test_the_rest_of_the_file_stays(file: Path) -> None:
    goodseed("canary", file, 1)
    text = file.read_text()
    assert text.startswith(
        "# Kept by goodseed serving.\n# See docs/operators.md.\nmodel_config_list"
    )
    model = text_format.Parse(text, ModelServerConfig()).model_config_list.config[0]
    assert (model.base_path, model.model_platform) == ("/models/größe", "tensorflow")


def test_several_models_need_a_name(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = '  config { name: "other" base_path: "/models/other" }\n}\n'
    file.write_text(CONFIG.rstrip().removesuffix("}") + other)
    assert goodseed("canary", file, 1) == 2
    assert "has 2 models (goodseed_age, other): choose one with --model" in capsys.readouterr().err
    assert goodseed("canary", file, 1, "--model", "goodseed_age") == 0
    config = text_format.Parse(file.read_text(), ModelServerConfig()).model_config_list.config
    assert [dict(model.version_labels) for model in config] == [{"canary": 1}, {}]


@pytest.mark.parametrize(
    ("before", "change", "says"),
    [
        ([], ["promote"], "no version is labelled canary"),
        ([], ["rollback"], "no version is labelled previous"),
        ([], ["canary", "stable"], "no version is labelled stable"),
        ([["canary", 1]], ["canary", 1], "version 1 is the canary already"),
        ([["canary", 1]], ["canary", 2], "version 2 is not loaded"),
        ([["canary", 1]], ["load", 1], "version 1 is loaded already"),
        ([["canary", 1], ["promote"]], ["promote"], "version 1 is canary and stable already"),
        ([], ["canary", 1, "--model", "x"], "has no model 'x'; it has: goodseed_age"),
        ([], ["load", 1, "--serving-root", "/nowhere"], "no /nowhere/goodseed_age/1/saved_model"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(
    file: Path,
    before: list[list[Any]],
    change: list[Any],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for step in before:
        assert goodseed(step[0], file, *step[1:]) == 0
    text = file.read_text()
    capsys.readouterr()
    assert goodseed(change[0], file, *change[1:]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"goodseed: {file}: ") and says in line
    assert file.read_text() == text
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model_config_list { confg { } }", "not a ModelServerConfig: 1:21"),
        ("", "has no model: is it the file of"),
        (CONFIG.replace("specific { }", "latest { }"), "policy of goodseed_age is `latest`"),
        (CONFIG.replace("model_version_policy { specific { } }", ""), "is `latest`"),
    ],
)
def test_a_file_that_does_not_fit(
    file: Path, text: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(text)
    assert goodseed("canary", file, 1) == 2
    assert says in capsys.readouterr().err


def test_no_such_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert goodseed("promote", tmp_path / "none") == 2
    assert capsys.readouterr().err == f"goodseed: {tmp_path}/none: No such file or directory\n"


@pytest.mark.parametrize("version", ["-1", "1.5", "newest", "²", "9" * 19, ""])
def test_a_version_is_a_number(
    file: Path, version: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        goodseed("load", file, "--", version)
    assert f"{version!r} is not a version" in capsys.readouterr().err


def test_every_version_named_must_be_in_the_serving_root(file: Path, tmp_path: Path) -> None:
    pushed = [tmp_path / "root" / "goodseed_age" / version for version in ("1", "2")]
    for folder in pushed:
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").touch()
    root = ("--serving-root", tmp_path / "root")
    assert goodseed("canary", file, 1, *root) == 0
    assert goodseed("promote", file, *root) == 0
    assert goodseed("load", file, 2, *root) == 0
    (pushed[0] / "saved_model.pb").unlink()
    assert goodseed("canary", file, 2, *root) == 2


def test_a_link_and_the_file_mode_stay(file: Path, tmp_path: Path) -> None:
    file.chmod(0o640)
    link = tmp_path / "link.config"
    link.symlink_to(file)
    assert goodseed("canary", link, 1) == 0
    assert link.is_symlink() and state(file) == ({"canary": 1}, [1])
    assert file.stat().st_mode & 0o777 == 0o640


@example(f"# a new line for Python, not for protobuf:\x0b\n{CONFIG}".encode())
@given(st.one_of(st.binary(), st.text().map(lambda text: f"#{text}\n{CONFIG}".encode())))
def test_any_file_is_edited_or_left_as_it_is(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "models.config"
        path.write_bytes(content)
        try:
            labels.edit(path, lambda model: labels.canary(model, 1))
        except labels.LabelError as error:
            assert "\n" not in str(error)
            assert path.read_bytes() == content
        else:
            assert state(path) == ({"canary": 1}, [1])


class Server:
    """How tensorflow_model_server treats the labels of a new configuration.

    In ServerCore::ReloadConfig, UpdateModelVersionLabelMap first refuses to move a label to a
    version that is not available. Then versions are loaded and unloaded.
    """

    def __init__(self) -> None:
        self.labels: dict[str, int] = {}
        self.loaded: set[int] = set()

    def reload(self, model: ModelConfig) -> None:
        for label, version in model.version_labels.items():
            moves = self.labels.get(label, version) != version
            assert not moves or version in self.loaded, f"{label} → {version} refused"
        self.labels = dict(model.version_labels)
        self.loaded = set(model.model_version_policy.specific.versions)


class Operator(RuleBasedStateMachine):
    """Makes any sequence of changes; the server reads each before the next."""

    def __init__(self) -> None:
        super().__init__()
        self.model = ModelConfig()
        self.server = Server()

    def change(self, change: Callable[[ModelConfig], None]) -> None:
        after = ModelConfig()
        after.CopyFrom(self.model)
        try:
            change(after)
        except labels.LabelError:
            return
        self.model = after
        self.server.reload(after)

    @rule(version=st.integers(1, 5))
    def load(self, version: int) -> None:
        self.change(lambda model: labels.load(model, version))

    @rule(version=st.one_of(st.none(), st.integers(1, 5)))
    def canary(self, version: int | None) -> None:
        self.change(lambda model: labels.canary(model, version))

    @rule()
    def promote(self) -> None:
        self.change(labels.promote)

    @precondition(lambda self: "previous" in self.model.version_labels)
    @rule()
    def rollback(self) -> None:
        previous = self.model.version_labels["previous"]
        self.change(labels.rollback)
        assert self.server.labels == {"stable": previous, "canary": previous}

    @invariant()
    def every_labelled_version_is_loaded(self) -> None:
        assert set(self.server.labels.values()) <= self.server.loaded


test_any_sequence_of_changes_is_accepted = Operator.TestCase
