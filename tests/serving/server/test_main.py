"""`goodseed serve` as a process: flags, sockets, TLS, a polled configuration, signals."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import ipaddress
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from serving.server.config_files import SSLConfig
from serving.server.errors import ServingError
from serving.server.flags import Flags, parse
from tests.conftest import ROOT, goodseed_command
from tests.ports import free_port
from tests.serving.server.models import (
    Client,
    ModelFolders,
    config,
    eventually,
    request,
    serving,
)

MODEL = "--model_base_path=/models/photos"


@pytest.mark.parametrize(
    ("given_", "name", "value"),
    [
        ("--port=9000", "port", 9000),
        ("--enable_batching", "enable_batching", True),
        ("--enable_batching=true", "enable_batching", True),
        ("--enable_model_warmup=false", "enable_model_warmup", False),
        ("--model_name=a=b", "model_name", "a=b"),
        ("--file_system_poll_wait_seconds=-1", "file_system_poll_wait_seconds", -1),
    ],
)
def test_flags_are_read(given_: str, name: str, value: Any) -> None:
    assert getattr(parse([MODEL, given_]), name) == value


@pytest.mark.parametrize(
    ("given_", "text"),
    [
        ("--prot=9000", "unrecognized arguments: --prot=9000"),
        ("port=9000", "unrecognized arguments: port=9000"),
        ("--enable_profiler=true", "unrecognized arguments: --enable_profiler=true"),
        ("--port", "argument --port: expected one argument"),
        ("--port=many", "argument --port: invalid int value: 'many'"),
        ("--port=65536", "--port must be from 0 to 65535; was 65536"),
        ("--rest_api_port=-1", "--rest_api_port must be from 0 to 65535; was -1"),
        ("--port=0", "--port=0 needs --grpc_socket_path"),
        ("--rest_api_port=8500", "--rest_api_port must differ from --port"),
        ("--enable_batching=yes", "argument --enable_batching: 'yes' is neither true nor false"),
        ("--batching_parameters_file=x", "--batching_parameters_file needs --enable_batching"),
        ("--model_base_path=", "--model_base_path or --model_config_file is needed"),
    ],
)
def test_flags_are_refused(given_: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        parse([MODEL, given_])
    assert raised.value.code == 2
    assert capsys.readouterr().err.endswith(f"goodseed serve: error: {text}\n")


@given(st.lists(st.text()))
def test_any_command_line_is_read_or_refused(arguments: list[str]) -> None:
    with contextlib.suppress(SystemExit):
        assert isinstance(parse([MODEL, *arguments]), Flags)


class Process:
    """A running `goodseed serve` and its log."""

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
        """Sends a signal to another thread, as the kernel may do."""
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


@pytest.mark.slow
def test_serve_drains_at_sigterm(folders: ModelFolders, tmp_path: Path) -> None:
    base, socket = tmp_path / "base", tmp_path / "serve.sock"
    folders.put(base, 1)
    file = tmp_path / "models.config"
    file.write_text(str(config(photos=base)))
    with process(
        f"--model_config_file={file}",
        "--model_config_file_poll_wait_seconds=1",
        f"--grpc_socket_path={socket}",
        "--tensorflow_intra_op_parallelism=1",
    ) as server:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            client = Client(channel)
            assert client.version() == 1
            with grpc.insecure_channel(f"unix:{socket}") as by_socket:
                assert Client(by_socket).version() == 1
            # While a model waits for its folder, the file is still polled.
            file.write_text(str(config(photos=base, absent=tmp_path / "absent")))
            eventually(lambda: server.said("Could not find base path"))
            file.write_text(str(config(photos=base, more=base)))
            eventually(lambda: client.states("more") == {1: "AVAILABLE"})
            ask = client.prediction.Predict.future
            asked = [ask(request(b"x", signature_name="slow")) for _ in range(3)]
            client.states()
            server.signal_beside_the_main_thread(signal.SIGTERM)
            assert [len(one.result().outputs) for one in asked] == [1, 1, 1]
        assert server.ended() == 0, "".join(server.lines)
    assert "Traceback" not in "".join(server.lines)


@pytest.mark.slow
def test_a_second_signal_waits_for_nobody(folders: ModelFolders, tmp_path: Path) -> None:
    folders.put(tmp_path, 1)
    with (
        process(f"--model_base_path={tmp_path}", "--model_name=photos") as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        client = Client(channel)
        ask = client.prediction.Predict.future
        asked = [ask(request(b"x", signature_name="slow")) for _ in range(20)]
        client.version()
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: server.said("Stopping: no new requests"))
        server.process.send_signal(signal.SIGTERM)
        assert server.ended() == -signal.SIGTERM
        assert any(one.exception() for one in asked)


@pytest.mark.slow
def test_a_signal_ends_a_start_that_waits(tmp_path: Path) -> None:
    server = Process(f"--model_base_path={tmp_path / 'absent'}")
    try:
        eventually(lambda: server.said("Could not find base path"), 120)
        server.process.send_signal(signal.SIGTERM)
        assert server.ended() == 0
        assert "Stopping: " in "".join(server.lines)
    finally:
        server.process.kill()
        server.ended()


@pytest.mark.slow
def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    server = Process(f"--model_base_path={tmp_path}", "--max_num_load_retries=0")
    assert server.ended() == 1
    out = "".join(server.lines)
    assert (
        "Failed to start server. Error: UNKNOWN: 1 model(s) did not become available: "
        "{{{name: default version: 1} due to error: NOT_FOUND: Could not find SavedModel"
    ) in out
    assert "Traceback" not in out


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
    shop, other = Authority(), Authority()
    key, certificate = shop.issue()
    file = tmp_path / "ssl.config"
    ssl = SSLConfig(server_key=key, server_cert=certificate, client_verify=mutual)
    ssl.custom_ca = shop.certificate.decode() if mutual else ""
    file.write_text(str(ssl))
    port = free_port()

    def ask(authority: Authority, *pair: bytes | None) -> int:
        credentials = grpc.ssl_channel_credentials(authority.certificate, *pair)
        with grpc.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
            return Client(channel).version()

    with serving(tmp_path, config(photos=base), port=port, ssl_config_file=str(file)) as plain:
        assert ask(shop, *(shop.issue() if mutual else ())) == 3
        for pair in ((), other.issue()) if mutual else ():
            with pytest.raises(grpc.RpcError) as raised:
                ask(shop, *pair)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(grpc.RpcError):
            ask(other)
        with pytest.raises(grpc.RpcError):
            plain.version()


@pytest.mark.parametrize("mistake", ["key", "certificate", "authority"])
def test_a_mistake_in_the_files_for_tls(base: Path, tmp_path: Path, mistake: str) -> None:
    key, certificate = Authority().issue()
    if mistake == "key":
        key = Authority().issue()[0]
    if mistake == "certificate":
        certificate = b"junk"
    file = tmp_path / "ssl.config"
    junk = "junk" if mistake == "authority" else ""
    file.write_text(str(SSLConfig(server_key=key, server_cert=certificate, custom_ca=junk)))
    said = "custom_ca is no certificate" if junk else "server_key and server_cert do not fit"
    with (
        pytest.raises(ServingError, match=said),
        serving(tmp_path, config(photos=base), port=free_port(), ssl_config_file=str(file)),
    ):
        pass


@pytest.mark.slow
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
