"""A check gives an advice in time, and never a wrong pass, whatever the server does."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from goodseed_client import Advice, AgeClient, AsyncAgeClient, Kind, Policy, Reason
from goodseed_client import client as client_module
from goodseed_client.photo import MAX_BYTES, prepare
from goodseed_client.predict_pb2 import DT_BOOL, DT_FLOAT, DT_STRING, PredictRequest

from tests.pictures import encoded
from tests.ports import free_port
from tests.serving.client.faulty_servers import FAULTY_SERVERS, process, raw, slow
from tests.serving.client.photos import picture
from tests.serving.client.server import (
    VERSION,
    Answer,
    ages,
    everybody_is,
    knows_labels,
    response,
    serving,
    start,
)

PHOTO = encoded(picture())
TIMEOUT = 0.6  # seconds: enough for an answer here, and not long to wait
TOLERANCE = 1.0  # seconds after the deadline, for a loaded machine; benchmarks measure it


def check(server: str, timeout: float = 5, photo: Any = PHOTO, **options: Any) -> Advice:
    with AgeClient(server, timeout=timeout, **options) as client:
        return client.check(photo)


def answers_with(data: bytes) -> Answer:
    return lambda request, context: data


def aborts_with(code: grpc.StatusCode, details: str = "no reason") -> Answer:
    return lambda request, context: context.abort(code, details)


@pytest.mark.parametrize(
    ("age", "reason", "kind"),
    [
        (0, Reason.TOO_YOUNG, "CHALLENGE"),
        (24.99, Reason.TOO_YOUNG, "CHALLENGE"),
        (25, Reason.OLD_ENOUGH, "NO_CHALLENGE"),
        (120, Reason.OLD_ENOUGH, "NO_CHALLENGE"),
    ],
)
def test_a_good_answer(age: float, reason: Reason, kind: str) -> None:
    with serving(everybody_is(age)) as server:
        advice = check(server)
    assert (advice.kind, advice.reason, advice.model_version) == (kind, reason, VERSION)
    assert advice.age == pytest.approx(age)
    assert 0 < advice.latency_ms < 5000
    assert advice.message


def test_the_server_gets_the_prepared_photo() -> None:
    asked: list[PredictRequest] = []

    def answer(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        asked.append(request)
        return ages(40)

    with serving(answer) as server:
        check(server, photo=encoded(picture(4000, 3000), quality=90))
    (request,) = asked
    assert request.model_spec.name == "goodseed_age"
    assert request.model_spec.signature_name == "serving_default"
    assert request.model_spec.version_label == "stable"
    assert [dim.size for dim in request.inputs["image"].tensor_shape.dim] == [1]
    (jpeg,) = request.inputs["image"].string_val
    assert jpeg.startswith(b"\xff\xd8") and len(jpeg) <= MAX_BYTES


def test_the_policy_can_be_chosen() -> None:
    with serving(everybody_is(28)) as server:
        assert check(server).kind is Kind.NO_CHALLENGE
        assert check(server, policy=Policy(21, 30)).reason is Reason.TOO_YOUNG


@pytest.mark.parametrize(
    ("answer", "reason", "cause"),
    [
        (answers_with(b"\xff\xfe garbage"), Reason.BAD_ANSWER, "not a PredictResponse"),
        (answers_with(b""), Reason.BAD_ANSWER, "no output age; the outputs are: none"),
        (answers_with(b"\0" * 5_000_000), Reason.SERVER_ERROR, "RESOURCE_EXHAUSTED"),
        (answers_with(ages(float("nan"))), Reason.BAD_ANSWER, "an age of nan years"),
        (answers_with(ages(float("inf"))), Reason.BAD_ANSWER, "an age of inf years"),
        (answers_with(ages(-1)), Reason.BAD_ANSWER, "an age of -1.0 years"),
        (answers_with(ages(121)), Reason.BAD_ANSWER, "an age of 121.0 years"),
        (answers_with(ages()), Reason.BAD_ANSWER, "shape [0]"),
        (answers_with(ages(40, 40)), Reason.BAD_ANSWER, "shape [2]"),
        (
            answers_with(response(age=(DT_FLOAT, [40]), valid=(DT_BOOL, [False]))),
            Reason.BAD_PHOTO,
            "could not read the photo",
        ),
        (answers_with(response(age=(DT_FLOAT, [40]))), Reason.BAD_ANSWER, "no output valid"),
        (
            answers_with(response(years=(DT_FLOAT, [40]), valid=(DT_BOOL, [True]))),
            Reason.BAD_ANSWER,
            "no output age; the outputs are: valid, years",
        ),
        (
            answers_with(response(age=(DT_BOOL, [True]), valid=(DT_BOOL, [True]))),
            Reason.BAD_ANSWER,
            "output age has type 10",
        ),
        (
            answers_with(ages(40, challenge=(DT_FLOAT, [0]))),
            Reason.BAD_ANSWER,
            "output challenge has type 1",
        ),
        (
            answers_with(ages(40, objection=(DT_BOOL, [False]))),
            Reason.BAD_ANSWER,
            "output objection has type 10",
        ),
        (
            answers_with(ages(40, objection=(DT_STRING, [b"", b""]))),
            Reason.BAD_ANSWER,
            "output objection has type 7 and shape [2]",
        ),
        (
            answers_with(ages(40, objection=(DT_STRING, [b"asleep"]))),
            Reason.MODEL_SAYS_SO,
            "an unknown objection: 'asleep'",
        ),
        (
            answers_with(response(age=(DT_FLOAT, [40]), valid=(DT_BOOL, [True]))),
            Reason.UNGUARDED_MODEL,
            "the model has no output objection",
        ),
        (aborts_with(grpc.StatusCode.RESOURCE_EXHAUSTED), Reason.SERVER_ERROR, "no reason"),
        (aborts_with(grpc.StatusCode.UNAVAILABLE), Reason.NO_SERVER, "no reason"),
        (aborts_with(grpc.StatusCode.NOT_FOUND), Reason.SERVER_ERROR, "NOT_FOUND: no reason"),
        (lambda request, context: 1 / 0, Reason.SERVER_ERROR, "UNKNOWN"),
    ],
)
def test_a_bad_answer_is_a_challenge_and_its_cause_is_logged(
    answer: Answer, reason: Reason, cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(answer) as server:
        advice = check(server)
    assert (advice.kind, advice.reason, advice.age) == (Kind.CHALLENGE, reason, None)
    (record,) = (r for r in caplog.records if r.name == "goodseed.client")
    assert cause in record.getMessage()
    assert record.levelno == logging.WARNING


def test_outputs_of_newer_models() -> None:
    """Unknown outputs are ignored."""
    more = {"age_low": (DT_FLOAT, [20.0]), "p_minor": (DT_FLOAT, [0.2])}
    with serving(answers_with(ages(40, **more))) as server:
        assert check(server).reason is Reason.OLD_ENOUGH
    with serving(answers_with(ages(40, challenge=(DT_BOOL, [True]), **more))) as server:
        advice = check(server)
    assert (advice.kind, advice.reason) == (Kind.CHALLENGE, Reason.MODEL_SAYS_SO)
    assert advice.age == 40


def test_a_photo_without_a_face_is_taken_again(tmp_path: Path) -> None:
    answer = answers_with(
        ages(40, objection=(DT_STRING, [b"no_face"]), challenge=(DT_BOOL, [True]))
    )
    audit = tmp_path / "audit.jsonl"
    with serving(answer) as server:
        advice = check(server, audit=audit)
    assert (advice.kind, advice.reason, advice.age) == (Kind.RETAKE, Reason.NO_FACE, None)
    line = json.loads(audit.read_text())
    assert (line["advice"], line["reason"]) == ("RETAKE", "no_face")


@pytest.mark.parametrize(
    ("photo", "reason"),
    [
        (b"no photo", Reason.BAD_PHOTO),
        ("/no/such/file.jpg", Reason.BAD_PHOTO),
        (None, Reason.BAD_PHOTO),
        (picture().point(lambda value: value // 12), Reason.DARK),
    ],
)
def test_a_bad_photo_is_not_sent(photo: object, reason: Reason) -> None:
    def answer(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        raise AssertionError("asked")

    with serving(answer) as server:
        advice = check(server, photo=photo)
    assert advice.reason is reason
    assert advice.kind is (Kind.CHALLENGE if reason is Reason.BAD_PHOTO else Kind.RETAKE)


@pytest.mark.parametrize("fault", FAULTY_SERVERS)
def test_an_advice_within_the_deadline(fault: str) -> None:
    with FAULTY_SERVERS[fault]() as server, AgeClient(server, timeout=TIMEOUT) as client:
        for _ in range(2):
            started = time.monotonic()
            advice = client.check(PHOTO)
            assert time.monotonic() - started < TIMEOUT + TOLERANCE
            assert advice.kind is Kind.CHALLENGE
            assert advice.reason in (Reason.NO_SERVER, Reason.TIMEOUT)


def test_a_server_that_dies_during_a_sale() -> None:
    """It is stopped, then killed, while a client is connected."""
    port = free_port()
    server = f"127.0.0.1:{port}"
    with AgeClient(server, timeout=TIMEOUT) as client, process(port) as running:
        assert check(server).kind is Kind.NO_CHALLENGE
        while client.check(PHOTO).kind is not Kind.NO_CHALLENGE:
            pass  # a loaded machine may need more than one call to connect
        running.send_signal(signal.SIGSTOP)
        assert client.check(PHOTO).reason is Reason.TIMEOUT
        running.kill()
        running.wait()
        assert client.check(PHOTO).reason is Reason.NO_SERVER


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("failed_checks", [0, 2])
def test_a_restarted_server_answers_the_next_sale(host: str, failed_checks: int) -> None:
    port = free_port()
    with AgeClient(f"{host}:{port}", timeout=5) as client:
        client._timeout = TIMEOUT
        for age in (40, 50, 60):
            server, _ = start(everybody_is(age), f"{host}:{port}")
            client._timeout = 5
            advice = client.check(PHOTO)
            assert advice.age == age, advice
            server.stop(0).wait()
            client._timeout = TIMEOUT
            for _ in range(failed_checks):
                assert client.check(PHOTO).reason is Reason.NO_SERVER


def test_one_retry_and_only_if_it_can_help() -> None:
    calls: list[str] = []

    def failing(code: grpc.StatusCode) -> Answer:
        def answer(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
            calls.append(code.name)
            if calls.count(code.name) > 1:
                return ages(40)
            context.abort(code, "")

        return answer

    with serving(failing(grpc.StatusCode.UNAVAILABLE)) as server:
        assert check(server).kind is Kind.NO_CHALLENGE
    for code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL):
        with serving(failing(code)) as server:
            assert check(server).kind is Kind.CHALLENGE
    assert calls == ["UNAVAILABLE", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "INTERNAL"]


def test_the_label_is_stable_if_the_server_knows_it() -> None:
    labels: list[str] = []

    def answer(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        labels.append(request.model_spec.version_label)
        return ages(40)

    with serving(knows_labels("stable", "canary")(answer)) as server:
        assert check(server).kind is Kind.NO_CHALLENGE
        assert check(server, label="canary").kind is Kind.NO_CHALLENGE
        assert check(server, label="").kind is Kind.NO_CHALLENGE
    with serving(knows_labels()(answer)) as server:
        assert check(server).kind is Kind.NO_CHALLENGE
        # A label that the caller chose is not replaced.
        assert check(server, label="stable").reason is Reason.SERVER_ERROR
    assert labels == ["stable", "canary", "", ""]


def test_an_unknown_label_is_not_tried_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    labels: list[str] = []

    def answer(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        labels.append(request.model_spec.version_label)
        return knows_labels()(everybody_is(40))(request, context)

    with serving(answer) as server, AgeClient(server, timeout=5) as client:
        client.check(PHOTO)
        client.check(PHOTO)
        assert labels == ["stable", "", ""]
        client._no_label_until = time.monotonic()  # as if a minute had passed
        client.check(PHOTO)
        assert labels == ["stable", "", "", "stable", ""]


def test_a_label_whose_version_is_not_loaded_is_not_replaced() -> None:
    answer = aborts_with(
        grpc.StatusCode.NOT_FOUND, "Servable not found for request: Specific(goodseed_age, 3)"
    )
    with serving(answer) as server:
        assert check(server).reason is Reason.SERVER_ERROR


def test_a_photo_that_takes_too_long_to_prepare() -> None:
    """The check ends in time, although the photo's thread can't be stopped."""
    hung = threading.Event()
    with serving(everybody_is(40)) as server, AgeClient(server, timeout=TIMEOUT) as client:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(client_module, "prepare", lambda photo: hung.wait(30))
            started = time.monotonic()
            advices = [client.check(PHOTO) for _ in range(5)]
            took = time.monotonic() - started
        assert [advice.reason for advice in advices] == [Reason.TIMEOUT] * 5
        assert took < 5 * TIMEOUT + TOLERANCE
        hung.set()
        client._timeout = 5
        assert client.check(PHOTO).kind is Kind.NO_CHALLENGE


def test_a_named_pipe_is_not_a_photo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with AgeClient("127.0.0.1:1") as client:
        assert client.check(tmp_path / "pipe").reason is Reason.BAD_PHOTO


def test_an_internal_error_is_a_challenge(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client_module, "decide", lambda answer, policy: 1 / 0)
    with serving(everybody_is(40)) as server:
        advice = check(server)
    assert (advice.kind, advice.reason) == (Kind.CHALLENGE, Reason.INTERNAL_ERROR)
    assert "ZeroDivisionError" in caplog.text


def test_the_cause_on_the_other_address_of_localhost_can_be_found() -> None:
    last = "failed to connect to all addresses; last error: UNKNOWN: ipv6:[::1]:8500: refused"
    assert "name 127.0.0.1" in client_module._explained("localhost:8500", last)
    assert client_module._explained("[::1]:8500", last) == last


@pytest.mark.parametrize(
    ("server", "variable", "by_proxy"),
    [
        ("localhost:1", "http_proxy", False),
        ("127.0.0.1:1", "https_proxy", False),
        ("dns:///localhost:1", "http_proxy", False),
        ("localhost:1", "grpc_proxy", True),
        ("ages.example:1", "http_proxy", True),
    ],
)
def test_the_proxy_for_the_web_is_not_asked_for_private_servers(
    monkeypatch: pytest.MonkeyPatch, server: str, variable: str, by_proxy: bool
) -> None:
    asked: list[bytes] = []
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with raw(lambda connection: asked.append(connection.recv(4096))) as proxy:
        monkeypatch.setenv(variable, f"http://{proxy}")
        assert check(server, timeout=1).reason is Reason.NO_SERVER
    assert any(line.startswith(b"CONNECT") for line in asked) is by_proxy


def test_a_closed_client_says_challenge() -> None:
    with serving(everybody_is(40)) as server:
        with AgeClient(server) as client:
            pass
        assert client.check(PHOTO).kind is Kind.CHALLENGE


def test_threads_share_a_client(tmp_path: Path) -> None:
    """Each thread gets the answer to its own photo."""

    def answer(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        (jpeg,) = request.inputs["image"].string_val
        return ages(len(jpeg) % 50 + 30)

    photos = [encoded(picture(seed=seed)) for seed in range(20)]
    expected = [len(prepare(photo)) % 50 + 30 for photo in photos]
    audit = tmp_path / "audit.jsonl"
    with (
        serving(answer) as server,
        AgeClient(server, timeout=30, audit=audit) as client,
        ThreadPoolExecutor(16) as pool,
    ):
        advices = list(pool.map(client.check, photos * 10))
    assert [advice.age for advice in advices] == expected * 10
    assert len([json.loads(line) for line in audit.read_text().splitlines()]) == 200


def test_asyncio() -> None:
    async def go(server: str) -> list[Advice]:
        async with AsyncAgeClient(server, timeout=30, max_in_flight=50) as client:
            return await asyncio.gather(*(client.check(PHOTO) for _ in range(50)))

    with serving(everybody_is(40)) as server:
        assert {advice.kind for advice in asyncio.run(go(server))} == {Kind.NO_CHALLENGE}


def test_asyncio_goes_on_while_a_check_waits() -> None:
    async def go(server: str) -> tuple[Advice, int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        async with AsyncAgeClient(server, timeout=TIMEOUT) as client:
            ticking = asyncio.create_task(tick())
            advice = await client.check(PHOTO)
            ticking.cancel()
            return advice, ticks

    with slow() as server:
        advice, ticks = asyncio.run(go(server))
    assert advice.reason is Reason.TIMEOUT
    assert ticks > 5


def test_a_cancelled_check_cancels_its_call() -> None:
    ended = threading.Event()

    def answer(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        context.add_callback(ended.set)
        ended.wait(30)
        return ages(40)

    async def go(server: str) -> None:
        async with AsyncAgeClient(server, timeout=20) as client:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.check(PHOTO), 0.5)

    with serving(answer) as server:
        started = time.monotonic()
        asyncio.run(go(server))
        assert ended.wait(10)
        assert time.monotonic() - started < 15


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem signed server.pem and client.pem; other.pem is a CA that signed neither."""
    if not shutil.which("openssl"):
        pytest.skip("needs the openssl command")
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    for name in ("ca", "other"):
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-subj", f"/CN={name}", "-days", "2", "-keyout", f"{name}.key", "-out", f"{name}.pem",
        )  # fmt: skip
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("server", "client"):
        openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr",
        )  # fmt: skip
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-days", "2", "-extfile", "san", "-out", f"{name}.pem",
        )  # fmt: skip
    return folder


def test_tls_and_mutual_tls(certificates: Path) -> None:
    ca = certificates / "ca.pem"
    own: Any = {"tls_cert": certificates / "client.pem", "tls_key": certificates / "client.key"}
    pair = [
        ((certificates / "server.key").read_bytes(), (certificates / "server.pem").read_bytes())
    ]
    tls = grpc.ssl_server_credentials(pair)
    with serving(everybody_is(40), tls=tls) as server:
        assert check(server, tls_ca=ca).kind is Kind.NO_CHALLENGE
        assert check(server, TIMEOUT, tls_ca=certificates / "other.pem").kind is Kind.CHALLENGE
        assert check(server, TIMEOUT).kind is Kind.CHALLENGE
    mutual = grpc.ssl_server_credentials(pair, ca.read_bytes(), require_client_auth=True)
    with serving(everybody_is(40), tls=mutual) as server:
        assert check(server, tls_ca=ca, **own).kind is Kind.NO_CHALLENGE
        assert check(server, TIMEOUT, tls_ca=ca).kind is Kind.CHALLENGE


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"server": "localhost"}, "'localhost' is not host:port, with a port from 1 to 65535"),
        ({"server": ":8500"}, "':8500' is not host:port"),
        ({"server": "localhost:0"}, "'localhost:0' is not host:port"),
        ({"server": "localhost:65536"}, "'localhost:65536' is not host:port"),
        ({"server": "http://localhost:8500"}, "'http://localhost:8500' is not host:port"),
        ({"timeout": 0}, "timeout 0 should be"),
        ({"timeout": float("nan")}, "timeout nan should be"),
        ({"tls_ca": "/no/such.pem"}, "/no/such.pem: No such file"),
        ({"tls_ca": __file__}, "holds no certificate"),
        ({"tls_cert": __file__}, "mutual TLS needs all of"),
        ({"tls_ca": __file__, "tls_cert": __file__}, "mutual TLS needs all of"),
        ({"tls_ca": __file__, "tls_key": __file__}, "mutual TLS needs all of"),
        ({"tls_cert": __file__, "tls_key": __file__}, "mutual TLS needs all of"),
    ],
)
def test_a_mistake_in_the_configuration_raises_at_once(
    options: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        AgeClient(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cert", "key", "said"),
    [
        ("client.pem", "server.key", "client.pem can't be used with the key .*server.key"),
        ("client.key", "client.key", "client.key can't be used with the key"),
        ("no.pem", "client.key", "no.pem: No such file"),
        ("client.pem", "no.key", "no.key: No such file"),
        ("client.pem", "locked.key", "client.pem can't be used with the key .*locked.key"),
        ("client.pem", "junk.key", "client.pem can't be used with the key .*junk.key"),
    ],
)
def test_a_key_that_does_not_fit_is_found_when_the_client_is_made(
    certificates: Path, cert: str, key: str, said: str
) -> None:
    locked, plain = certificates / "locked.key", certificates / "client.key"
    command = f"openssl pkcs8 -topk8 -in {plain} -out {locked} -passout pass:x1y2"
    subprocess.run(command.split(), check=True, capture_output=True)
    junk = certificates / "junk.key"
    junk.write_text("-----BEGIN PRIVATE KEY-----\njunk\n-----END PRIVATE KEY-----\n")
    ca, pair = certificates / "ca.pem", (certificates / cert, certificates / key)
    with pytest.raises(ValueError, match=said):
        AgeClient(tls_ca=ca, tls_cert=pair[0], tls_key=pair[1])


def test_a_junk_authority_is_found_when_the_client_is_made(tmp_path: Path) -> None:
    junk = tmp_path / "ca.pem"
    junk.write_text("-----BEGIN CERTIFICATE-----\njunk\n-----END CERTIFICATE-----\n")
    with pytest.raises(ValueError, match=r"ca\.pem holds no certificate"):
        AgeClient(tls_ca=junk)


def test_too_many_checks_are_answered_at_once() -> None:
    """Those who are let in get the model's answer, in threads and in asyncio."""
    asked, free = threading.Semaphore(0), threading.Event()

    def wait_for(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        asked.release()
        free.wait(20)
        return ages(40)

    with serving(wait_for) as server, AgeClient(server, timeout=20, max_in_flight=2) as client:
        with ThreadPoolExecutor(2) as pool:
            let_in = [pool.submit(client.check, PHOTO) for _ in range(2)]
            assert all(asked.acquire(timeout=10) for _ in let_in)
            others = [client.check(PHOTO) for _ in range(3)]
            free.set()
            assert {one.reason for one in others} == {Reason.BUSY}
            assert {one.kind for one in others} == {Kind.CHALLENGE}
            assert [one.result().reason for one in let_in] == [Reason.OLD_ENOUGH] * 2
        assert client.check(PHOTO).reason is Reason.OLD_ENOUGH  # the places are free again


def test_many_checks_in_one_event_loop() -> None:
    async def check_all(server: str) -> list[Advice]:
        async with AsyncAgeClient(server, timeout=20, max_in_flight=8) as client:
            return await asyncio.gather(*(client.check(PHOTO) for _ in range(100)))

    with serving(everybody_is(40)) as server:
        reasons = [advice.reason for advice in asyncio.run(check_all(server))]
    assert reasons.count(Reason.OLD_ENOUGH) == 8 and reasons.count(Reason.BUSY) == 92


def test_a_check_that_is_cancelled_gives_its_place_back() -> None:
    async def cancel(server: str) -> Reason:
        async with AsyncAgeClient(server, timeout=20, max_in_flight=1) as client:
            first = asyncio.create_task(client.check(PHOTO))
            await asyncio.sleep(0.05)
            first.cancel()
            await asyncio.wait([first])
            return (await client.check(PHOTO)).reason

    with serving(everybody_is(40)) as server:
        assert asyncio.run(cancel(server)) is Reason.OLD_ENOUGH


GREENLETS = """
from gevent import monkey
monkey.patch_all()
import sys
import gevent
import grpc.experimental.gevent
grpc.experimental.gevent.init_gevent()
from goodseed_client import AgeClient

photo = open(sys.argv[2], "rb").read()
with AgeClient(sys.argv[1], timeout=20, audit=sys.argv[3]) as client:
    checks = [gevent.spawn(client.check, photo) for _ in range(20)]
    gevent.joinall(checks, timeout=60)
    print(*(check.value.reason for check in checks))
"""


def test_a_client_in_greenlets(tmp_path: Path) -> None:
    pytest.importorskip("gevent", reason="test_install.py installs the client without gevent")
    photo, audit = tmp_path / "photo.jpg", tmp_path / "audit.jsonl"
    photo.write_bytes(PHOTO)
    with serving(everybody_is(40)) as server:
        done = subprocess.run(
            [sys.executable, "-c", GREENLETS, server, str(photo), str(audit)],
            capture_output=True, text=True, check=True, timeout=90,
        )  # fmt: skip
    assert done.stdout.split() == ["old_enough"] * 20
    assert len(audit.read_text().splitlines()) == 20


FORKING = """
import multiprocessing, sys
from goodseed_client import AgeClient

photo = open(sys.argv[2], "rb").read()
client = AgeClient(sys.argv[1], timeout=5)
print(client.check(photo).reason)


def child(queue):
    queue.put((client.check(photo).reason, AgeClient(sys.argv[1], timeout=5).check(photo).reason))


context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=child, args=(queue,))
process.start()
print(*queue.get(timeout=30))
process.join()
print(client.check(photo).reason)
"""


def test_parent_and_child_go_on_after_a_fork(tmp_path: Path) -> None:
    """As with gunicorn's preload: the parent has made a client and has called it."""
    (tmp_path / "photo.jpg").write_bytes(PHOTO)
    with serving(everybody_is(40)) as server:
        done = subprocess.run(
            [sys.executable, "-c", FORKING, server, str(tmp_path / "photo.jpg")],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
    assert done.stdout.split() == ["old_enough"] * 4
