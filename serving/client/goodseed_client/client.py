"""One call from photo to advice within a timeout: for threads and for asyncio."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from os import PathLike
from typing import NamedTuple, Self, TypeVar

import grpc

from goodseed_client import wire
from goodseed_client.advice import Advice, Failure, Reason
from goodseed_client.audit import Audit
from goodseed_client.photo import Photo, prepare
from goodseed_client.policy import Decision, Policy, decide

logger = logging.getLogger("goodseed.client")

STABLE = "stable"  # operators give this label to the version for tills
_LABEL_RETRY = 60.0  # seconds until a server that did not know the label is asked for it again
_GRACE = 0.05  # seconds that gRPC gets to end a call whose timeout is over


class _Wait(NamedTuple):
    """What a call waits for. The future's result may be an error."""

    future: Future[bytes | Exception]
    timeout: float  # seconds


Outcome = bytes | Exception | None  # None: the timeout was over first
T = TypeVar("T")
# A call that does not wait itself: it yields each _Wait and is sent the outcome. So threads and
# asyncio share all code except the waiting.
Call = Generator[_Wait, Outcome, T]


class Client:
    """What AgeClient and AsyncAgeClient share: everything except the waiting.

    Thread-safe. A new client does not connect yet, so it may be made while the server is away.
    After a fork, parent and child may both go on with it.

    Args:
        server: address of TensorFlow Serving's gRPC API: host:port, dns:///host:port or unix:path.
        till: name of the till in the audit file.
        timeout: seconds for a whole call, with the preparation of the photo.
        policy: the shop's policy; None: `policy.json` beside this file (18 and 25 years).
        audit: path of the audit file; None: no audit.
        label: version label to ask for; "": the newest version; None: `stable`, or the newest
            version if the server does not know that label.
        model: name of the served model.
        signature: name of the model's signature from photo bytes to `age` and `valid`.
        tls_ca: PEM file of the certificate authorities to trust; None: no TLS.
        tls_cert: PEM file of the client's own certificate chain, for mutual TLS.
        tls_key: PEM file of its private key.
        max_in_flight: checks at the same time. Each further one gets BUSY at once, so that those
            who are let in get the model's answer in time.

    Raises:
        ValueError: an argument is wrong, or a file that it names.
    """

    def __init__(
        self,
        server: str = "127.0.0.1:8500",
        *,
        till: str = "",
        timeout: float = 1.5,
        policy: Policy | None = None,
        audit: str | PathLike[str] | None = None,
        label: str | None = None,
        model: str = "goodseed_age",
        signature: str = "serving_default",
        tls_ca: str | PathLike[str] | None = None,
        tls_cert: str | PathLike[str] | None = None,
        tls_key: str | PathLike[str] | None = None,
        max_in_flight: int = 32,
    ):
        if not 0 < timeout < threading.TIMEOUT_MAX:
            raise ValueError(f"timeout {timeout} should be a number of seconds above 0")
        if max_in_flight < 1:
            raise ValueError(f"max_in_flight {max_in_flight} should be at least 1")
        self._timeout = timeout
        self._max_in_flight = max_in_flight
        self._places = threading.BoundedSemaphore(max_in_flight)
        self._policy = policy or Policy.load()
        self._audit = None if audit is None else Audit(audit, till)
        self._label = label
        self._no_label_until = 0.0  # on the monotonic clock
        self._model = model
        self._signature = signature
        self._server = server
        self._channel = wire.open_channel(server, tls_ca, tls_cert, tls_key)
        # gRPC passes bytes through; `decide` checks them.
        self._predict: grpc.UnaryUnaryMultiCallable[bytes, bytes]
        self._predict = self._channel.unary_unary(wire.PREDICT)

    def _advise(self, photo: Photo) -> Call[Advice]:
        """One call from photo to advice."""
        started = time.monotonic()
        deadline = started + self._timeout
        try:
            with self._place():
                jpeg = yield from self._prepare(photo, deadline)
                answer = yield from self._ask([jpeg], deadline)
            decision = decide(answer, self._policy)
        except Failure as failure:
            decision = decide(failure, self._policy)
        except Exception:  # an error of ours must not stop the till
            logger.exception("%s (%s)", Reason.INTERNAL_ERROR.kind, Reason.INTERNAL_ERROR)
            decision = Decision(Reason.INTERNAL_ERROR)
        reason, age, version, cause = decision
        advice = Advice(reason, age, version, (time.monotonic() - started) * 1000)
        if cause:
            logger.warning("%s (%s): %s", advice.kind, reason, cause)
        if self._audit:
            self._audit.write(advice, self._policy)
        return advice

    @contextmanager
    def _place(self) -> Iterator[None]:
        """One of the checks in flight.

        Raises:
            Failure: there are too many.
        """
        if not self._places.acquire(blocking=False):
            raise Failure(Reason.BUSY, f"{self._max_in_flight} checks are in flight already")
        try:
            yield
        finally:
            self._places.release()

    def _prepare(self, photo: Photo, deadline: float) -> Call[bytes]:
        """The JPEG to send."""
        future = _workers.run(lambda: prepare(photo))
        try:
            outcome = yield _Wait(future, deadline - time.monotonic())
        finally:
            future.cancel()
        if outcome is None:
            raise Failure(Reason.TIMEOUT, f"the photo was not ready within {self._timeout} s")
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _ask(self, jpegs: Sequence[bytes], deadline: float) -> Call[bytes]:
        """The server's answer.

        After UNAVAILABLE there is a second try, which waits until there is a connection.
        """
        label, unavailable = self._wanted_label(), ""
        while True:
            request = wire.make_request(jpegs, self._model, self._signature, label)
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._timed_out(unavailable)
            call = self._predict.future(request, timeout=left, wait_for_ready=bool(unavailable))
            try:
                outcome = yield _Wait(_outcome(call), left + _GRACE)
            finally:
                call.cancel()
            if isinstance(outcome, bytes):
                return outcome
            code, details = _status(outcome)
            details = _explained(self._server, details)
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise self._timed_out(unavailable)
            if code is grpc.StatusCode.UNAVAILABLE and not unavailable:
                unavailable = details or code.name
            elif label and self._label is None and _label_unknown(code, details):
                self._no_label_until = time.monotonic() + _LABEL_RETRY
                label = ""
            else:
                away = code is grpc.StatusCode.UNAVAILABLE
                reason = Reason.NO_SERVER if away else Reason.SERVER_ERROR
                raise Failure(reason, f"{code.name}: {details}")

    def _timed_out(self, unavailable: str) -> Failure:
        if unavailable:
            return Failure(Reason.NO_SERVER, unavailable)
        return Failure(Reason.TIMEOUT, f"no answer within {self._timeout} s")

    def _close(self) -> None:
        self._channel.close()
        if self._audit:
            self._audit.flush()

    def _wanted_label(self) -> str:
        if self._label is not None:
            return self._label
        return "" if time.monotonic() < self._no_label_until else STABLE


class AgeClient(Client):
    """Asks a model about photos. Thread-safe. The arguments are those of Client."""

    def check(self, photo: Photo) -> Advice:
        """The advice on a photo, within the timeout. Never raises: each error becomes an advice.

        Args:
            photo: a path, the bytes of a picture file, a Pillow image, or a frame: uint8, RGB
                [height, width, 3] or grey [height, width] (OpenCV has BGR: pass
                `frame[..., ::-1]`).
        """
        return _finish(self._advise(photo))

    def predict(
        self, jpegs: Sequence[bytes], timeout: float
    ) -> tuple[list[wire.Prediction], int | None]:
        """What the model says about each photo, and the model's version. For analytics.

        Args:
            jpegs: photos, each prepared by `photo.prepare`.
            timeout: seconds.

        Raises:
            Failure: there is no usable answer.
        """
        answer = _finish(self._ask(jpegs, time.monotonic() + timeout))
        return wire.read_answer(answer, len(jpegs))

    def close(self) -> None:
        """Ends the connection; a check that comes after it says CHALLENGE."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncAgeClient(Client):
    """Asks a model about photos, in any event loop. The arguments are those of Client."""

    async def check(self, photo: Photo) -> Advice:
        """The same as AgeClient.check."""
        return await _finish_async(self._advise(photo))

    async def close(self) -> None:
        """Ends the connection; a check that comes after it says CHALLENGE."""
        await asyncio.to_thread(self._close)  # it waits for the audit file

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _finish(call: Call[T]) -> T:
    """Runs a call to its end; this thread waits."""
    try:
        future, timeout = next(call)
        while True:
            wait([future], max(0, timeout))
            future, timeout = call.send(future.result() if future.done() else None)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        call.close()


async def _finish_async(call: Call[T]) -> T:
    """Runs a call to its end. The event loop continues meanwhile."""
    try:
        future, timeout = next(call)
        while True:
            waiting = asyncio.wrap_future(future)
            await asyncio.wait([waiting], timeout=max(0, timeout))
            outcome = waiting.result() if waiting.done() else None
            waiting.cancel()
            future, timeout = call.send(outcome)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        call.close()


def _outcome(call: grpc.Future[bytes]) -> Future[bytes | Exception]:
    """The outcome of gRPC's call as a future that threads and asyncio can wait for."""
    outcome: Future[bytes | Exception] = Future()
    outcome.set_running_or_notify_cancel()

    def done(call: grpc.Future[bytes]) -> None:
        try:
            outcome.set_result(call.result())
        except Exception as error:
            outcome.set_result(error)

    call.add_done_callback(done)
    return outcome


def _status(outcome: Exception | None) -> tuple[grpc.StatusCode, str]:
    """Code and details of a call that failed or that did not end in time."""
    if outcome is None:
        return grpc.StatusCode.DEADLINE_EXCEEDED, ""
    if not isinstance(outcome, grpc.Call):
        raise outcome
    return outcome.code(), outcome.details() or ""


def _explained(server: str, details: str) -> str:
    """The details of gRPC tell the error of the last address only; localhost may have two."""
    if "localhost:" in server and "[::1]" in details:
        return f"{details}; name 127.0.0.1 instead of localhost to see what is wrong there"
    return details


def _label_unknown(code: grpc.StatusCode, details: str) -> bool:
    """Whether TensorFlow Serving does not know the label, or does not support labels.

    Its ServerCore says "Unrecognized servable version label: …" in the first case and "ModelSpec
    has 'version_label' set, but …" in the second. A known label whose version is not loaded is
    another error: then the operators chose a stable version, and no other may take its place.
    """
    return code is grpc.StatusCode.INVALID_ARGUMENT and (
        "servable version label" in details or "'version_label'" in details
    )


class _Workers:
    """Daemon threads for jobs that can't be interrupted, so that a call can go on without them.

    A network share that hangs, or a photo that is made to keep decoders busy, may block one of the
    threads. If all are blocked, jobs wait and their calls time out. The interpreter does not wait
    for these threads when it exits. It would wait for those of a ThreadPoolExecutor.
    """

    _THREADS = 4

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Starts anew: a forked process has none of the threads, and its lock may be held."""
        self._jobs: queue.SimpleQueue[tuple[Future[bytes | Exception], Callable[[], bytes]]]
        self._jobs = queue.SimpleQueue()
        self._start = threading.Lock()
        self._started = False

    def run(self, job: Callable[[], bytes]) -> Future[bytes | Exception]:
        """A future of the job's result, or of the error that it raised."""
        with self._start:
            if not self._started:
                self._started = True
                for number in range(self._THREADS):
                    name = f"goodseed-photo-{number}"
                    threading.Thread(target=self._work, name=name, daemon=True).start()
        future: Future[bytes | Exception] = Future()
        self._jobs.put((future, job))
        return future

    def _work(self) -> None:
        while True:
            future, job = self._jobs.get()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(job())
                except Exception as error:
                    future.set_result(error)
            del future, job  # do not keep the photo until the next job


_workers = _Workers()
if hasattr(os, "register_at_fork"):  # Windows can't fork
    os.register_at_fork(after_in_child=_workers.reset)
