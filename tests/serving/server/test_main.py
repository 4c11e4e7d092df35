"""`goodseed serve` as a process: flags, sockets, TLS, health, a polled configuration, signals."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import text_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import given
from hypothesis import strategies as st

from serving.server.errors import ServingError
from serving.server.flags import FlagError, Flags, parse, usage
from serving.server.server import Server
from tests.conftest import ROOT, goodseed_command
from tests.serving.server.models import (
    Client,
    ModelFolders,
    config,
    eventually,
    free_port,
    predict_request,
    serving,
)


@pytest.mark.parametrize(
    ("given_", "name", "value"),
    [
        ("--port=9000", "port", 9000),
        ("--enable_batching", "enable_batching", True),
        ("--enable_batching=true", "enable_batching", True),
        ("--enable_model_warmup=false", "enable_model_warmup", False),
        ("--model_name=a=b", "model_name", "a=b"),
        ("--per_process_gpu_memory_fraction=0.5", "per_process_gpu_memory_fraction", 0.5),
        ("--file_system_poll_wait_seconds=-1", "file_system_poll_wait_seconds", -1),
    ],
)
def test_flags_are_read(given_: str, name: str, value: Any) -> None:
    assert getattr(parse([given_]), name) == value


@pytest.mark.parametrize(
    ("given_", "text"),
    [
        ("--prot=9000", "unknown argument: --prot=9000"),
        ("port=9000", "unknown argument: port=9000"),
        ("--port", "unknown argument: --port (it takes a value: --port=…)"),
        ("--port=many", "Couldn't interpret value many for flag port."),
        ("--enable_batching=yes", "Couldn't interpret value yes for flag enable_batching."),
    ],
)
def test_flags_are_refused(given_: str, text: str) -> None:
    with pytest.raises(FlagError) as raised:
        parse(["--model_name=x", given_])
    assert str(raised.value) == text


@given(st.lists(st.text()))
def test_any_command_line_is_read_or_refused(arguments: list[str]) -> None:
    with contextlib.suppress(FlagError):
        assert isinstance(parse(arguments), Flags)


def test_usage_names_every_flag() -> None:
    assert all(f"--{name}=" in usage() for name in vars(Flags()))


class Process:
    """A `goodseed serve` that runs, and its log."""

    def __init__(self, *flags: str):
        self.port = free_port()
        self.process = subprocess.Popen(
            [*goodseed_command("serve"), f"--port={self.port}", *flags],
            cwd=ROOT, env={**os.environ}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(iter(self.process.stdout.readline, ""))

    def said(self, text: str) -> bool:
        return any(text in line for line in list(self.lines)) or self.process.poll() is not None

    def signal_beside_the_main_thread(self, number: int) -> None:
        """Sends a signal to another thread, as the kernel does now and then."""
        pid = self.process.pid
        other = max(int(thread) for thread in os.listdir(f"/proc/{pid}/task"))
        assert other != pid
        assert ctypes.CDLL(None).tgkill(pid, other, number) == 0

    def ended(self) -> int:
        status = self.process.wait(60)
        self._reader.join()
        return status


@contextlib.contextmanager
def process(*flags: str) -> Iterator[Process]:
    started = Process(*flags)
    try:
        eventually(lambda: started.said("Running gRPC ModelServer at 127.0.0.1"), 120)
        assert started.process.poll() is None, "".join(started.lines)
        yield started
    finally:
        started.process.kill()
        started.ended()


def test_serve_drains_at_sigterm(folders: ModelFolders, tmp_path: Path) -> None:
    base, socket = tmp_path / "base", tmp_path / "serve.sock"
    folders.put(base, 1)
    file = tmp_path / "models.config"
    file.write_text(text_format.MessageToString(config(half=base)))
    with process(
        f"--model_config_file={file}",
        "--model_config_file_poll_wait_seconds=1",
        f"--grpc_socket_path={socket}",
        "--enable_batching",
    ) as server:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            client = Client(channel)
            assert client.y("half") == 1.0
            with grpc.insecure_channel(f"unix:{socket}") as by_socket:
                assert Client(by_socket).y("half") == 1.0
            # A model that the file names from now on.
            aside = tmp_path / "aside"
            aside.write_text(text_format.MessageToString(config(half=base, more=base)))
            aside.rename(file)
            eventually(lambda: server.said("Finished adding/updating models"))
            eventually(lambda: "more" in "".join(server.lines))
            eventually(lambda: _answers(client, "more"))
            request = predict_request("half", x=np.array([1], np.float32))
            request.model_spec.signature_name = "slow"
            asked = [client.prediction.Predict.future(request) for _ in range(3)]
            eventually(lambda: client.states("half"))
            server.signal_beside_the_main_thread(signal.SIGTERM)
            assert [len(one.result().outputs) for one in asked] == [1, 1, 1]
        assert server.ended() == 0, "".join(server.lines)
    assert "Traceback" not in "".join(server.lines)


def test_a_second_signal_waits_for_nobody(folders: ModelFolders, tmp_path: Path) -> None:
    folders.put(tmp_path, 1)
    with (
        process(f"--model_base_path={tmp_path}", "--model_name=half") as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        request = predict_request("half", x=np.array([1], np.float32))
        request.model_spec.signature_name = "slow"
        asked = [Client(channel).prediction.Predict.future(request) for _ in range(60)]
        asked[0].result()
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: server.said("Stopping: no new requests"))
        server.process.send_signal(signal.SIGTERM)
        assert server.ended() == -signal.SIGTERM
        assert any(one.exception() for one in asked)


def _answers(client: Client, model: str) -> bool:
    with contextlib.suppress(grpc.RpcError):
        return client.y(model) == 1.0
    return False


def _serve(*flags: str) -> tuple[int, str]:
    done = subprocess.run(
        goodseed_command("serve", *flags),
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    status, out = _serve(
        f"--model_base_path={tmp_path}", "--max_num_load_retries=0", f"--port={free_port()}"
    )
    assert status == 1
    assert (
        "Failed to start server. Error: UNKNOWN: 1 model(s) did not become available: "
        "{{{name: default version: 1} due to error: NOT_FOUND: Could not find SavedModel"
    ) in out
    assert "Traceback" not in out


@pytest.mark.parametrize("flag", ["--port=65536", "--port=-1", "--rest_api_port=99999"])
def test_a_port_that_is_none(flag: str) -> None:
    """gRPC takes 65536 more or less for the same port."""
    with pytest.raises(ServingError, match=r"must be from 0 to 65535; was -?\d+$") as raised:
        Server(parse(["--model_base_path=x", flag]))
    assert flag.split("=")[0] in str(raised.value)


def test_an_unknown_flag_is_an_error() -> None:
    status, out = _serve("--prot=8500")
    assert status == 2
    assert out.startswith("unknown argument: --prot=8500\nusage: ")


class Authority:
    """Signs certificates for 127.0.0.1."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "shop")])
        self.certificate = self._sign(self._name, self._key, authority=True)

    def issue(self) -> tuple[bytes, bytes]:
        """Key and certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "till")])
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return private, self._sign(name, key)

    def _sign(self, name: x509.Name, key: Any, *, authority: bool = False) -> bytes:
        import datetime
        import ipaddress

        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder(self._name, name, key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize("mutual", [False, True])
def test_tls(base: Path, tmp_path: Path, mutual: bool) -> None:
    from serving.server.config_files import SSLConfig
    from serving.server.core import Core
    from serving.server.grpc_api import GrpcApi

    shop, other = Authority(), Authority()
    key, certificate = shop.issue()
    file = tmp_path / "ssl.config"
    ssl = SSLConfig(server_key=key, server_cert=certificate, client_verify=mutual)
    ssl.custom_ca = shop.certificate.decode() if mutual else ""
    file.write_text(text_format.MessageToString(ssl))
    address = f"127.0.0.1:{free_port()}"
    core = Core()
    core.reload(config(half=base))
    api = GrpcApi(core, addresses=[address], max_threads=4, ssl_config_file=str(file))

    def ask(authority: Authority, *pair: bytes | None) -> float:
        credentials = grpc.ssl_channel_credentials(authority.certificate, *pair)
        with grpc.secure_channel(address, credentials) as channel:
            return Client(channel).y("half")

    try:
        if mutual:
            assert ask(shop, *shop.issue()) == 3.0
            for pair in ((), other.issue()):
                with pytest.raises(grpc.RpcError) as raised:
                    ask(shop, *pair)
                assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        else:
            assert ask(shop) == 3.0
        with pytest.raises(grpc.RpcError):
            ask(other)
        with pytest.raises(grpc.RpcError), grpc.insecure_channel(address) as channel:
            Client(channel).y("half")
    finally:
        api.stop(0)
        core.close()


def test_message_sizes(base: Path) -> None:
    big = np.zeros(2_000_000, np.float32)  # 8 MB, twice gRPC's own limit
    with serving(config(half=base)) as (_, client):
        with pytest.raises(grpc.RpcError, match="Received message larger than max"):
            client.predict("half", x=big)  # by this client, of the answer
        assert client.states("half") == {3: "AVAILABLE"}
    limited = "grpc.max_receive_message_length=1000,grpc.max_connection_age_ms=60000"
    with serving(config(half=base), channel_arguments=limited) as (_, client):
        with pytest.raises(grpc.RpcError) as raised:
            client.predict("half", x=big)
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert client.y("half") == 3.0


def test_health(base: Path) -> None:
    with serving(config(half=base), health=True) as (_, client):
        stub = health_pb2_grpc.HealthStub(client.channel)
        answer = stub.Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as raised:
            stub.Check(health_pb2.HealthCheckRequest(service="tensorflow.serving.ModelService"))
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("name", ["TF_ENABLE_ONEDNN_OPTS", "TF_ONEDNN_ASSUME_FROZEN_WEIGHTS"])
@pytest.mark.parametrize(("given_", "seen"), [(None, "1"), ("0", "0")])
def test_tensorflow_is_loaded_with_onednn_and_for_weights_that_do_not_change(
    name: str, given_: str | None, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(name, raising=False)
    if given_:
        monkeypatch.setenv(name, given_)
    script = """
import os, sys
wanted = sys.argv[1]
class Watch:
    def find_spec(self, name, *_):
        if name == "tensorflow":
            sys.exit(os.environ[wanted])
sys.meta_path.insert(0, Watch())
from pipeline.cli import main
main(["serve", "--version"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, name], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stderr.strip() == seen
