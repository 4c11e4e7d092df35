"""`goodseed serve` runs from the cluster's arguments and files, and obeys `goodseed serving`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import cli
from serving.versions import push
from tests.k8s.manifests import K8S, build

STABLE = "/v1/models/goodseed_age/labels/stable"
CANARY = "/v1/models/goodseed_age/labels/canary"
SOON = 60  # seconds; it ends a test that is stuck


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """The folder of versions, as base_path; with one version pushed."""
    base = tmp_path / "root" / "goodseed_age"
    push_model(base, age=1.0)
    return base


def push_model(base: Path, age: float) -> int:
    """Pushes a model that says the same age for every photo."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def serve(image: Any) -> dict[str, Any]:
        return {"age": tf.fill(tf.shape(image), tf.constant(age))}

    model = base.parent / f"model-{age}"
    tf.saved_model.save(tf.Module(), str(model), signatures={"serving_default": serve})
    return push(model, base)


@pytest.fixture
def file(tmp_path: Path, served: Path) -> Path:
    """The prod overlay's models.config, with the path of `served` instead of the volume's."""
    text = (K8S / "overlays/prod/models.config").read_text()
    assert '"/models/goodseed_age"' in text
    path = tmp_path / "models.config"
    path.write_text(text.replace('"/models/goodseed_age"', json.dumps(str(served))))
    return path


def goodseed_serving(*arguments: object) -> None:
    assert cli.main(["serving", *map(str, arguments)]) == 0


@contextlib.contextmanager
def server(file: Path) -> Iterator[str]:
    """Starts the local server with the pod's arguments; yields its REST address."""
    flags = build("base").flags
    ports = _free_ports(2)
    flags |= {
        "port": str(ports[0]),
        "rest_api_port": str(ports[1]),
        "model_config_file": str(file),
        "model_config_file_poll_wait_seconds": "1",
        "batching_parameters_file": str(K8S / "base/config/batching.config"),
        "monitoring_config_file": str(K8S / "base/config/monitoring.config"),
    }
    arguments = [f"--{name}={value.replace('$(CPUS)', '1')}" for name, value in flags.items()]
    log = file.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "serve", *arguments],
            stdout=output, stderr=output, cwd=K8S.parent, env={**os.environ, "PYTHONPATH": "."},
        )  # fmt: skip
    url = f"http://127.0.0.1:{ports[1]}"
    try:
        eventually(lambda: process.poll() is not None or status(url) is not None)
        assert process.poll() is None
        yield url
    except BaseException:
        print(log.read_text(errors="replace"))
        raise
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(SOON)
        finally:
            process.kill()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for bound in sockets:
            bound.bind(("127.0.0.1", 0))
        return [bound.getsockname()[1] for bound in sockets]


def status(url: str) -> int | None:
    """The HTTP status, as a probe sees it; None where nothing listens."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def age(url: str) -> float:
    """The age that a till would get for one photo."""
    body = json.dumps({"instances": [{"image": {"b64": "AAAA"}}]}).encode()
    request = urllib.request.Request(f"{url}:predict", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        (prediction,) = json.load(answer)["predictions"]
    return float(prediction["age"] if isinstance(prediction, dict) else prediction)


def eventually(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON
    while not holds():
        assert time.monotonic() < end, "did not come true"
        time.sleep(0.2)


@pytest.mark.slow
def test_canary_promotion_and_rollback_under_a_running_server(served: Path, file: Path) -> None:
    (first,) = (int(folder.name) for folder in served.iterdir())
    goodseed_serving("canary", file, first, "--serving-root", served.parent)
    goodseed_serving("promote", file)
    container = build("base").container
    alive, started, metrics = (
        container["livenessProbe"]["httpGet"]["path"],
        container["startupProbe"]["httpGet"]["path"],
        build("base").pod["metadata"]["annotations"]["prometheus.io/path"],
    )
    with server(file) as url:
        eventually(lambda: status(url + started) == 200)
        assert status(f"{url}{STABLE}/metadata") == 200  # prod's readiness
        assert status(url + alive) == status(url + metrics) == 200
        assert age(url + STABLE) == age(url + CANARY) == 1

        second = push_model(served, age=2.0)
        goodseed_serving("load", file, second, "--serving-root", served.parent)
        loaded = f"{url}/v1/models/goodseed_age/versions/{second}/metadata"
        eventually(lambda: status(loaded) == 200)
        assert age(url + STABLE) == age(url + CANARY) == 1  # loaded, but no label points to it

        goodseed_serving("canary", file, second)
        eventually(lambda: age(url + CANARY) == 2)
        assert age(url + STABLE) == 1

        goodseed_serving("promote", file)
        eventually(lambda: age(url + STABLE) == 2)

        goodseed_serving("rollback", file)
        eventually(lambda: age(url + STABLE) == 1)
        assert age(url + CANARY) == 1


@pytest.mark.slow
def test_a_label_ahead_of_its_version_is_refused_and_tills_keep_theirs(
    served: Path, file: Path
) -> None:
    (first,) = (int(folder.name) for folder in served.iterdir())
    goodseed_serving("canary", file, first)
    goodseed_serving("promote", file)
    with server(file) as url:
        eventually(lambda: status(f"{url}{STABLE}/metadata") == 200)
        absent = first + 1
        text = file.read_text()
        file.write_text(text.replace(f"value: {first}", f"value: {absent}"))
        log = file.with_suffix(".log")
        refusal = f"assign label to version {absent} of model goodseed_age, which is not currently"
        eventually(lambda: refusal in log.read_text(errors="replace"))
        assert age(url + STABLE) == 1
        file.write_text(text)
    # A server that starts with this file has no stable version, so it is not ready.
    file.write_text(text.replace(f"value: {first}", f"value: {absent}"))
    with server(file) as url:
        eventually(lambda: status(f"{url}/v1/models/goodseed_age/metadata") == 200)
        assert status(f"{url}{STABLE}/metadata") == 404
