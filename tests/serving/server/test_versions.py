"""Versions are loaded, swapped and unloaded without a lost request; labels, policies, warm-up."""

from __future__ import annotations

import functools
import gc
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import tensorflow as tf
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from serving.server import versions
from serving.server.core import Core
from serving.server.errors import ServingError
from serving.server.servable import MAX_WARM_UP_RECORDS, WARM_UP_REQUESTS, Servable
from tests.serving.server.models import (
    POISON,
    Client,
    ModelFolders,
    config,
    eventually,
    flags_of,
    refusal,
    request,
    serving,
)


def label(client: Client, name: str) -> int:
    return client.version(version_label=name)


def test_no_request_is_lost_in_a_swap(folders: ModelFolders, tmp_path: Path) -> None:
    base = tmp_path / "base"
    folders.put(base, 1)
    with serving(tmp_path, config(photos=base), enable_batching=True) as client:
        answers: list[int] = []
        failures: list[BaseException] = []
        done = threading.Event()

        def ask() -> None:
            try:
                while not done.is_set():
                    answers.append(client.version())
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for version in (2, 3):
            folders.put(base, version)
            eventually(functools.partial(answers.__contains__, version))
        done.set()
        for thread in threads:
            thread.join()
        assert not failures
        assert set(answers) == {1, 2, 3}
        eventually(lambda: client.states() == {3: "AVAILABLE", 2: "END", 1: "END"})


def test_a_request_is_answered_by_the_version_that_took_it(
    folders: ModelFolders, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    folders.put(base, 1)
    with serving(tmp_path, config(photos=base)) as client:
        asked = client.prediction.Predict.future(request(b"x", signature_name="slow"))
        client.version()  # so the slow request has arrived
        folders.put(base, 2)
        eventually(lambda: client.states().get(1) == "END")
        assert asked.result().model_spec.version.value == 1


def replace_by_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("a file")


def replace_by_a_link(folder: Path) -> None:
    elsewhere = folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(elsewhere)


@pytest.mark.parametrize(
    ("break_it", "code"),
    [
        (lambda f: (f / "saved_model.pb").unlink(), "NOT_FOUND"),
        (lambda f: (f / "saved_model.pb").write_bytes(b"broken"), "DATA_LOSS"),
        (lambda f: shutil.rmtree(f / "variables"), "UNKNOWN"),
        (replace_by_a_file, "NOT_FOUND"),
        (replace_by_a_link, "FAILED_PRECONDITION"),
        (lambda f: (f / "linked").symlink_to("/etc"), "FAILED_PRECONDITION"),
    ],
)
def test_a_broken_folder_says_what_is_wrong(
    folders: ModelFolders, tmp_path: Path, break_it: Callable[[Path], Any], code: str
) -> None:
    break_it(folders.put(tmp_path, 2))
    core = Core(flags_of())
    added = core.reload(config(photos=tmp_path))
    with pytest.raises(ServingError, match=rf"version: 2}} due to error: {code}: "):
        core.versions.wait_until_available(added)
    core.versions.close()


def test_a_broken_version_leaves_the_old_one(folders: ModelFolders, tmp_path: Path) -> None:
    base = tmp_path / "base"
    folders.put(base, 1)
    with serving(tmp_path, config(photos=base)) as client:
        (base / "2").mkdir()
        eventually(lambda: client.states() == {2: "END", 1: "AVAILABLE"})
        assert client.version() == 1
        asked = GetModelStatusRequest(model_spec=request().model_spec)
        newest = client.models.GetModelStatus(asked).model_version_status[0]
        assert newest.status.error_code == grpc.StatusCode.NOT_FOUND.value[0]
        assert "Could not find SavedModel" in newest.status.error_message
        folders.put(base, 3)
        eventually(lambda: client.states() == {3: "AVAILABLE", 2: "END", 1: "END"})
        # Version 2 is removed, and comes back complete.
        shutil.rmtree(base / "3")
        shutil.rmtree(base / "2")
        folders.put(base, 2)
        eventually(lambda: client.states() == {3: "END", 2: "AVAILABLE", 1: "END"})


def test_a_half_written_version_is_tried_again(folders: ModelFolders, tmp_path: Path) -> None:
    whole = folders.put(tmp_path / "aside", 2)
    base = tmp_path / "base"
    (base / "2" / "variables").mkdir(parents=True)
    core = Core(
        flags_of(
            file_system_poll_wait_seconds=0,
            max_num_load_retries=1000,
            load_retry_interval_micros=50_000,
        )
    )
    added = core.reload(config(photos=base))
    states = core.versions.states
    eventually(lambda: states("photos") and states("photos")[2][1])
    assert states("photos")[2][0] == versions.LOADING
    shutil.copytree(whole, base / "2", dirs_exist_ok=True)
    core.versions.wait_until_available(added)
    assert core.predict(request(b"photo")).model_spec.version.value == 2
    core.versions.close()


def test_any_error_of_one_model_leaves_the_others(folders: ModelFolders, tmp_path: Path) -> None:
    folders.put(tmp_path, 1)
    core = Core(flags_of())
    core.reload(config(broken="/\0", photos=tmp_path))
    core.versions.wait_until_available(["photos"], 60)
    folders.put(tmp_path, 2)
    eventually(lambda: core.predict(request(b"photo")).model_spec.version.value == 2)
    core.versions.close()


class Model:
    """Refers to itself, as a loaded model does."""

    def __init__(self) -> None:
        self.itself = self


def test_a_failed_load_frees_its_model(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    models: list[weakref.ref[Model]] = []

    def load(*_: object) -> Servable:
        model = Model()
        models.append(weakref.ref(model))
        raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, "the warm-up failed")

    found = versions.Versions(load, flags_of())
    found.set_models(config(photos=tmp_path).model_config_list.config)
    with pytest.raises(ServingError, match="the warm-up failed"):
        found.wait_until_available(["photos"])
    gc.collect()  # that of the thread does nothing while another one runs
    assert [model() for model in models] == [None]
    found.close()


def test_version_policies(folders: ModelFolders, tmp_path: Path) -> None:
    base = tmp_path / "base"
    for version in (1, 2, 3):
        folders.put(base, version)
    models = config(photos=base)
    policy = models.model_config_list.config[0].model_version_policy
    policy.latest.num_versions = 2
    with serving(tmp_path, models) as client:
        eventually(lambda: client.states() == {3: "AVAILABLE", 2: "AVAILABLE"})
        policy.specific.versions.append(1)
        client.reload(models)
        eventually(lambda: client.states() == {3: "END", 2: "END", 1: "AVAILABLE"})
        assert client.version() == 1
        policy.all.SetInParent()
        client.reload(models)
        eventually(lambda: set(client.states().values()) == {"AVAILABLE"})
        assert client.version() == 3
        assert client.version(version=2) == 2


def test_labels(folders: ModelFolders, tmp_path: Path) -> None:
    base = tmp_path / "base"
    folders.put(base, 1)
    folders.put(base, 2)
    models = config(photos=base)
    photos = models.model_config_list.config[0]
    photos.model_version_policy.all.SetInParent()
    with serving(tmp_path, models) as client:
        eventually(lambda: client.states() == {2: "AVAILABLE", 1: "AVAILABLE"})
        photos.version_labels["stable"] = 1
        photos.version_labels["canary"] = 2
        client.reload(models)
        assert (label(client, "stable"), label(client, "canary")) == (1, 2)
        photos.version_labels["stable"] = 2
        client.reload(models)
        assert label(client, "stable") == 2
        photos.version_labels["stable"] = 7
        assert refusal(lambda: client.reload(models)) == (
            "FAILED_PRECONDITION",
            "Request to assign label to version 7 of model photos, which is not currently "
            "available for inference",
        )
        assert label(client, "stable") == 2


def test_a_label_may_move_under_a_request(
    folders: ModelFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders.put(tmp_path, 1)
    folders.put(tmp_path, 2)
    models = config(photos=tmp_path)
    photos = models.model_config_list.config[0]
    photos.model_version_policy.all.SetInParent()
    photos.version_labels["stable"] = 1
    core = Core(flags_of(allow_version_labels_for_unavailable_models=True))
    core.versions.wait_until_available(core.reload(models))
    get = core.versions.get

    def get_late(name: str, number: int | None) -> Servable:
        """Version 1 is no longer there when a request asks for it."""
        if number == 1:
            photos.version_labels["stable"] = 2
            photos.model_version_policy.specific.versions.append(2)
            core.reload(models)
            eventually(lambda: core.versions.states("photos")[1][0] == versions.END)
        return get(name, number)

    monkeypatch.setattr(core.versions, "get", get_late)
    asked = request(b"photo", version_label="stable")
    assert core.predict(asked).model_spec.version.value == 2
    core.versions.close()


def test_labels_at_the_start(folders: ModelFolders, tmp_path: Path) -> None:
    base = tmp_path / "base"
    folders.put(base, 1)
    models = config(photos=base)
    labels = models.model_config_list.config[0].version_labels
    labels["stable"] = 1
    core = Core(flags_of())
    with pytest.raises(ServingError, match="not currently available for inference"):
        core.reload(models)
    core.versions.close()
    flags = {"allow_version_labels_for_unavailable_models": True}
    with serving(tmp_path, models, **flags) as client:
        assert label(client, "stable") == 1
        labels["next"] = 2  # a new label may point ahead
        client.reload(models)
        labels["stable"] = 2  # a label that clients use may not
        assert refusal(lambda: client.reload(models))[0] == "FAILED_PRECONDITION"


def test_reload_adds_and_drops_models(folders: ModelFolders, tmp_path: Path) -> None:
    first, second, broken = (tmp_path / name for name in ("first", "second", "broken"))
    folders.put(first, 1)
    folders.put(second, 2)
    (broken / "1").mkdir(parents=True)
    with serving(tmp_path, config(one=first)) as client:
        client.reload(config(one=first, two=second))
        assert (client.version("one"), client.version("two")) == (1, 2)
        client.reload(config(two=second))
        eventually(lambda: client.states("one") == {1: "END"})
        assert refusal(lambda: client.version("one"))[0] == "NOT_FOUND"
        code, text = refusal(lambda: client.reload(config(two=second, broken=broken)))
        assert code == "UNKNOWN"
        assert text.startswith("1 model(s) did not become available: {{{name: broken version: 1}")
        client.reload(config(one=first, two=second))
        assert (client.version("one"), client.version("two")) == (1, 2)


def test_a_waiting_reload_does_not_block_other_requests(
    folders: ModelFolders, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    folders.put(base, 1)
    absent = tmp_path / "absent"
    with serving(tmp_path, config(photos=base), grpc_max_threads=4) as client:
        waits = config(photos=base, absent=absent)
        ask = client.models.HandleReloadConfigRequest.future
        asked = [ask(ReloadConfigRequest(config=waits))]
        for n in range(8):  # more than there are threads; each ends the wait of the previous reload
            waits = config(photos=base, **{f"absent{n}": absent})
            asked.append(ask(ReloadConfigRequest(config=waits)))
        # The server takes them in any order. The one that it took last waits.
        eventually(lambda: sum(one.done() for one in asked) == len(asked) - 1)
        (waiting,) = (one for one in asked if not one.done())
        for one in asked:
            assert one is waiting or one.exception().code() is grpc.StatusCode.ABORTED
        assert client.version() == 1
        folders.put(base, 2)  # the folders are still polled
        eventually(lambda: client.version() == 2)
        waiting.cancel()
        absent.mkdir()
        client.reload(config(photos=base))


def test_a_reload_has_a_time_limit(
    folders: ModelFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    folders.put(base, 1)
    monkeypatch.setattr("serving.server.core.RELOAD_SECONDS", 0.1)
    with serving(tmp_path, config(photos=base)) as client:
        models = config(photos=base, absent=tmp_path / "absent")
        code, text = refusal(lambda: client.reload(models))
        assert (code, "no version of absent was loaded" in text) == ("DEADLINE_EXCEEDED", True)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m: m.model_config_list.config.add().CopyFrom(m.model_config_list.config[0]),
         "Illegal to list model photos multiple times in config list"),
        (lambda m: setattr(m.model_config_list.config[0], "base_path", "models/photos"),
         "Expected model photos to have an absolute path or URI"),
        (lambda m: setattr(m.model_config_list.config[0], "model_platform", "caffe"),
         "Model photos requests unsupported platform 'caffe'"),
        (lambda m: m.ClearField("model_config_list"), "has to be a model_config_list"),
    ],
)  # fmt: skip
def test_reload_refuses(client: Client, tmp_path: Path, change: Any, text: str) -> None:
    wrong = config(photos=tmp_path)
    change(wrong)
    code, found = refusal(lambda: client.reload(wrong))
    assert code == "INVALID_ARGUMENT"
    assert text in found
    assert client.version() == 3


def write_warm_up(folder: Path, *logs: PredictionLog) -> None:
    path = folder / WARM_UP_REQUESTS
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())


def predict_log(*photos: bytes) -> PredictionLog:
    return PredictionLog(predict_log={"request": request(*photos)})


def test_warm_up_requests_are_played(
    folders: ModelFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folders.put(tmp_path, 1)
    write_warm_up(folder, predict_log(b"photo"), predict_log(*[b"photo"] * 8))
    played: list[int] = []
    predict = Servable.predict

    def spy(self: Servable, asked: Any) -> Any:
        played.append(len(asked.inputs["image"].string_val))
        return predict(self, asked)

    monkeypatch.setattr(Servable, "predict", spy)
    Servable("photos", 1, str(folder)).warm_up(str(folder))
    assert played == [1, 8]


@pytest.mark.parametrize(
    ("logs", "code", "text"),
    [
        ([predict_log(POISON)], "INVALID_ARGUMENT", "assertion failed"),
        ([predict_log(b"x")] * (MAX_WARM_UP_RECORDS + 1), "INVALID_ARGUMENT", "more than 1000"),
        ([PredictionLog(session_run_log={})], "INVALID_ARGUMENT", "not a Predict request"),
        ([], "DATA_LOSS", ""),
    ],
)
def test_a_version_whose_warm_up_fails_is_not_served(
    folders: ModelFolders, tmp_path: Path, logs: list[PredictionLog], code: str, text: str
) -> None:
    folder = folders.put(tmp_path, 1)
    write_warm_up(folder, *logs)
    if not logs:
        (folder / WARM_UP_REQUESTS).write_bytes(b"this is no TFRecord file")
    with pytest.raises(ServingError) as raised:
        Servable("photos", 1, str(folder)).warm_up(str(folder))
    assert raised.value.code.name == code
    assert text in raised.value.message


def test_only_numbers_are_versions(tmp_path: Path) -> None:
    for name in ("7", "0008", ".pushing-9", "latest", "9.0", "١", "-1", str(2**63)):
        (tmp_path / name).mkdir()
    (model,) = config(photos=tmp_path).model_config_list.config
    model.model_version_policy.all.SetInParent()
    assert versions.wanted_versions(model) == {7: f"{tmp_path}/7", 8: f"{tmp_path}/0008"}
