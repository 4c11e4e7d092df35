"""Versions come, are swapped and go without a request lost; labels, policies, reloads, warm-up."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    prediction_log_pb2,
)

from serving.server import versions
from serving.server.core import Core, ServingError, Settings
from serving.server.servable import Servable
from serving.server.warmup import REQUESTS
from tests.serving.server.models import (
    Client,
    ModelFolders,
    config,
    eventually,
    predict_log,
    predict_request,
    serving,
    write_warm_up,
)

QUICK = Settings(file_system_poll_wait_seconds=0.05, max_num_load_retries=0)


def reload(client: Client, models: Any) -> None:
    client.models.HandleReloadConfigRequest(
        model_management_pb2.ReloadConfigRequest(config=models), timeout=60
    )


def refusal(client: Client, models: Any) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as raised:
        reload(client, models)
    return raised.value.code().name, str(raised.value.details())


def labelled(client: Client, label: str) -> int:
    request = predict_request("half", x=np.array([0], np.float32))
    request.model_spec.version_label = label
    return int(client.prediction.Predict(request).model_spec.version.value)


def test_no_request_is_lost_in_a_swap(folders: ModelFolders, tmp_path: Path) -> None:
    folders.put(tmp_path, 1)
    with serving(config(half=tmp_path)) as (_, client):
        answers: list[float] = []
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                answers.append(client.y("half"))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for version in (2, 3, 4, 5, 6):
            folders.put(tmp_path, version, tf1=version % 2 == 0)
            eventually(lambda v=version: client.states("half").get(v) == "AVAILABLE")
        done.set()
        for thread in threads:
            thread.join()
        # Nobody's thread died of an error, and each version (a TF1 model adds 2) answered.
        assert set(answers) == {1.0, 2.0, 3.0, 5.0}
        eventually(
            lambda: (
                client.states("half")
                == {6: "AVAILABLE", 5: "END", 4: "END", 3: "END", 2: "END", 1: "END"}
            )
        )


def test_an_old_version_stays_until_its_last_request_is_answered(
    folders: ModelFolders, tmp_path: Path
) -> None:
    folders.put(tmp_path, 1)
    with serving(config(half=tmp_path)) as (core, client):
        request = predict_request("half", x=np.array([1], np.float32))
        request.model_spec.signature_name = "slow"
        asked = client.prediction.Predict.future(request)
        version = core._versions._versions["half"][1]
        eventually(lambda: version.users)
        folders.put(tmp_path, 2)
        eventually(lambda: client.states("half").get(2) == "AVAILABLE")
        seen = client.states("half")[1]
        answered_before = asked.done()
        assert asked.result().model_spec.version.value == 1
        assert seen == "UNLOADING" or answered_before
        eventually(lambda: client.states("half")[1] == "END")


def test_what_an_old_version_freed_goes_back_to_the_system(
    folders: ModelFolders,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    free_pieces: Callable[[], None],
) -> None:
    before = psutil.Process().memory_info().rss
    close = Servable.close

    def close_and_free(servable: Servable) -> None:
        close(servable)
        free_pieces()

    monkeypatch.setattr(Servable, "close", close_and_free)
    folders.put(tmp_path, 1)
    with serving(config(half=tmp_path)) as (_, client):
        folders.put(tmp_path, 2)
        eventually(lambda: client.states("half").get(1) == "END")
        assert psutil.Process().memory_info().rss < before - 150e6


def be_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("a file")


@pytest.mark.parametrize(
    ("break_it", "code", "text"),
    [
        (lambda f: (f / "saved_model.pb").unlink(), "NOT_FOUND", "Could not find SavedModel .pb"),
        (lambda f: (f / "saved_model.pb").write_bytes(b"broken"), "DATA_LOSS", "Cannot parse file"),
        (lambda f: shutil.rmtree(f / "variables"), "NOT_FOUND", "variables"),
        (be_a_file, "NOT_FOUND", "Could not find"),
    ],
)
def test_a_broken_version_is_told_of_and_the_old_one_kept(
    folders: ModelFolders, tmp_path: Path, break_it: Any, code: str, text: str
) -> None:
    base = tmp_path / "base"
    folders.put(base, 1)
    broken = folders.put(tmp_path, 2)
    break_it(broken)
    with serving(config(half=base)) as (_, client):
        broken.rename(base / "2")
        eventually(lambda: client.states("half").get(2) == "END")
        assert client.states("half")[1] == "AVAILABLE"
        assert client.y("half") == 1.0
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = "half"
        newest = client.models.GetModelStatus(request).model_version_status[0]
        assert newest.version == 2
        assert newest.status.error_code == getattr(grpc.StatusCode, code).value[0]
        assert text in newest.status.error_message
        # One that can be loaded replaces both.
        folders.put(base, 3)
        eventually(lambda: client.states("half") == {3: "AVAILABLE", 2: "END", 1: "END"})


def test_a_half_written_version_is_tried_again(folders: ModelFolders, tmp_path: Path) -> None:
    base = tmp_path / "base"
    folders.put(base, 1)
    whole = folders.put(tmp_path, 2)
    settings = Settings(
        file_system_poll_wait_seconds=0.05,
        max_num_load_retries=1000,
        load_retry_interval_micros=50_000,
    )
    with serving(config(half=base), settings) as (_, client):
        (base / "2" / "variables").mkdir(parents=True)
        eventually(lambda: client.states("half").get(2) == "LOADING")
        shutil.copytree(whole, base / "2", dirs_exist_ok=True)
        eventually(lambda: client.states("half") == {2: "AVAILABLE", 1: "END"})


def test_version_policies(folders: ModelFolders, tmp_path: Path) -> None:
    for version in (1, 2, 3):
        folders.put(tmp_path, version)
    models = config(half=tmp_path)
    policy = models.model_config_list.config[0].model_version_policy
    policy.latest.num_versions = 2
    with serving(models) as (_, client):
        eventually(lambda: client.states("half") == {3: "AVAILABLE", 2: "AVAILABLE"})
        policy.specific.versions.append(1)
        reload(client, models)
        eventually(lambda: client.states("half") == {3: "END", 2: "END", 1: "AVAILABLE"})
        assert client.y("half") == 1.0
        policy.all.SetInParent()
        reload(client, models)
        eventually(lambda: set(client.states("half").values()) == {"AVAILABLE"})
        shutil.rmtree(tmp_path / "3")
        eventually(lambda: client.states("half")[3] == "END")
        assert client.y("half") == 2.0


def test_labels(folders: ModelFolders, tmp_path: Path) -> None:
    folders.put(tmp_path, 1)
    folders.put(tmp_path, 2)
    models = config(half=tmp_path)
    half = models.model_config_list.config[0]
    half.model_version_policy.all.SetInParent()
    with serving(models) as (_, client):
        eventually(lambda: set(client.states("half").values()) == {"AVAILABLE"})
        half.version_labels["stable"] = 1
        half.version_labels["canary"] = 2
        reload(client, models)
        assert (labelled(client, "stable"), labelled(client, "canary")) == (1, 2)
        half.version_labels["stable"] = 2
        reload(client, models)
        assert labelled(client, "stable") == 2
        half.version_labels["stable"] = 7
        assert refusal(client, models) == (
            "FAILED_PRECONDITION",
            "Request to assign label to version 7 of model half, which is not currently available "
            "for inference",
        )
        assert labelled(client, "stable") == 2


def test_labels_at_the_start(folders: ModelFolders, tmp_path: Path) -> None:
    folders.put(tmp_path, 1)
    models = config(half=tmp_path)
    half = models.model_config_list.config[0]
    half.version_labels["stable"] = 1
    core = Core(QUICK)
    with pytest.raises(ServingError, match="not currently available for inference"):
        core.reload(models)
    core.close()
    allowing = Settings(
        file_system_poll_wait_seconds=0.05, allow_version_labels_for_unavailable_models=True
    )
    with serving(models, allowing) as (_, client):
        assert labelled(client, "stable") == 1
        # A new label may point ahead, one that clients use may not.
        half.version_labels["next"] = 2
        reload(client, models)
        half.version_labels["stable"] = 2
        assert refusal(client, models)[0] == "FAILED_PRECONDITION"


def test_reload_adds_and_drops_models(folders: ModelFolders, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    folders.put(first, 1)
    folders.put(second, 2)
    with serving(config(one=first)) as (_, client):
        reload(client, config(one=first, two=second))
        assert (client.y("one"), client.y("two")) == (1.0, 2.0)
        reload(client, config(two=second))
        eventually(lambda: client.states("one") == {1: "END"})
        with pytest.raises(grpc.RpcError, match=r"Servable not found for request: Latest\(one\)"):
            client.y("one")
        # A model that never comes keeps no one waiting but who asked for it.
        broken = tmp_path / "broken"
        (broken / "1").mkdir(parents=True)
        code, text = refusal(client, config(two=second, broken=broken))
        assert code == "UNKNOWN"
        assert text.startswith(
            "1 model(s) did not become available: {{{name: broken version: 1} due to error: "
            "NOT_FOUND: Could not find SavedModel .pb or .pbtxt at supplied export directory path"
        )
        reload(client, config(one=first, two=second))
        assert (client.y("one"), client.y("two")) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("models", "text"),
    [
        (
            lambda m: m.model_config_list.config.add().CopyFrom(m.model_config_list.config[0]),
            "Illegal to list model half multiple times in config list",
        ),
        (
            lambda m: setattr(m.model_config_list.config[0], "base_path", "models/half"),
            "Expected model half to have an absolute path or URI; got base_path()=models/half",
        ),
        (
            lambda m: m.model_config_list.config[0].ClearField("model_platform"),
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            "ModelServerConfig::model_platform.",
        ),
        (
            lambda m: setattr(m.model_config_list.config[0], "model_platform", "caffe"),
            "Model half requests unsupported platform caffe",
        ),
        (
            lambda m: m.ClearField("model_config_list"),
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
            "ModelConfigList is currently supported",
        ),
    ],
)
def test_reload_refuses(client: Client, tmp_path: Path, models: Any, text: str) -> None:
    wrong = config(half=tmp_path)
    models(wrong)
    assert refusal(client, wrong) == ("INVALID_ARGUMENT", text)
    assert client.y("half") == 3.0


def test_warm_up_is_played_before_a_version_is_available(
    folders: ModelFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folders.put(tmp_path, 1)
    write_warm_up(
        folder,
        [predict_log(predict_request("half", x=np.array([1] * n, np.float32))) for n in (1, 8)],
    )
    played: list[tuple[int, ...]] = []
    run = Servable.run

    def spy(self: Any, name: str, inputs: Any, outputs: Any) -> Any:
        played.append(inputs["x"].shape)
        return run(self, name, inputs, outputs)

    monkeypatch.setattr(Servable, "run", spy)
    core = Core(QUICK)
    core.reload(config(half=tmp_path))
    core.close()
    assert played == [(1,), (8,)]


@pytest.mark.parametrize(
    ("logs", "code", "text"),
    [
        ([predict_log(predict_request("half"))], "INVALID_ARGUMENT", "input size does not match"),
        (
            [prediction_log_pb2.PredictionLog()] * 1001,
            "INVALID_ARGUMENT",
            "Number of warmup records exceeds the maximum (1000) at ",
        ),
        (
            [prediction_log_pb2.PredictionLog(session_run_log={})],
            "UNIMPLEMENTED",
            "Unsupported log_type for warmup: 5",
        ),
        (None, "DATA_LOSS", ". Please verify your warmup data is in TFRecord format."),
    ],
)
def test_a_version_whose_warm_up_fails_is_not_loaded(
    folders: ModelFolders, tmp_path: Path, logs: Any, code: str, text: str
) -> None:
    folder = folders.put(tmp_path, 1)
    write_warm_up(folder, logs or [])
    if logs is None:
        (folder / REQUESTS).write_bytes(b"this is no TFRecord file")
    core = Core(QUICK)
    with pytest.raises(ServingError) as raised:
        core.reload(config(half=tmp_path))
    core.close()
    assert f"due to error: {code}: " in raised.value.message
    assert text in raised.value.message


def test_only_numbers_are_versions(tmp_path: Path) -> None:
    for name in ("7", "0008", ".pushing-9", "latest", "9.0", "١", str(2**70)):
        (tmp_path / name).mkdir()
    (model,) = config(half=tmp_path).model_config_list.config
    model.model_version_policy.all.SetInParent()
    assert versions.aspired_versions(model) == {7: f"{tmp_path}/7", 8: f"{tmp_path}/0008"}
