"""One call from photo to advice, inside one deadline: for threads, and for asyncio."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, wait
from os import PathLike
from typing import NamedTuple, Self, TypeVar

import grpc

from goodseed_client import wire
from goodseed_client.advice import Advice, Failure, Reason
from goodseed_client.audit import Audit
from goodseed_client.photo import Photo, prepare
from goodseed_client.policy import Decision, Policy, decide

logger = logging.getLogger("goodseed.client")

STABLE = "stable"  # the label that operators give to the version that tills are to use
_FORGET_LABEL = 60.0  # seconds for which a server that does not know the label is not asked for it
_GRACE = 0.05  # seconds after which a wait is over even if gRPC has not ended its call


class _Wait(NamedTuple):
    """What a call waits for: a future whose result may be an error, and for how long (seconds)."""

    future: Future[bytes | Exception]
    timeout: float


Outcome = bytes | Exception | None  # None: it took too long
T = TypeVar("T")
# A call without its waiting, which threads and asyncio do each in their own way: it yields what it
# waits for, and is sent the outcome.
Call = Generator[_Wait, Outcome, T]


class Client:
    """All of a client but the waiting: see AgeClient and AsyncAgeClient.

    Thread-safe. Making one neither connects nor asks: a server that is away is no error here. Make
    it after forking, not before: gRPC's threads do not come along.

    Args:
        server: of TensorFlow Serving's gRPC API: host:port, dns:///host:port or unix:path.
        till: the name of the till in the audit file.
        timeout: seconds for a whole call, the photo's preparation among them.
        policy: whom to ask for ID; None: `policy.json` beside this file (18 and 25 years).
        audit: path of the audit file; None: no audit.
        label: version label to ask for; None: `stable` where the server knows it, and else the
            newest version; "": the newest version.
        model: name of the served model.
        signature: name of its signature from photo bytes to `age` and `valid`.
        tls_ca: PEM file of the authorities to trust; None: no TLS.
        tls_cert: PEM file of the client's certificate chain, for mutual TLS.
        tls_key: PEM file of its key.

    Raises:
        ValueError: a mistake in the arguments or in the files that they name.
    """

    def __init__(
        self,
        server: str = "localhost:8500",
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
    ):
        if not 0 < timeout < threading.TIMEOUT_MAX:
            raise ValueError(f"timeout {timeout} should be a number of seconds above 0")
        self._timeout = timeout
        self._policy = policy or Policy.load()
        self._audit = None if audit is None else Audit(audit, till)
        self._label = label
        self._no_label_until = 0.0  # on the monotonic clock
        self._model = model
        self._signature = signature
        self._channel = wire.open_channel(server, tls_ca, tls_cert, tls_key)
        # Bytes to bytes: what is amiss with an answer is for `decide` to see, not for gRPC.
        self._predict: grpc.UnaryUnaryMultiCallable[bytes, bytes]
        self._predict = self._channel.unary_unary(wire.PREDICT)

    def _advise(self, photo: Photo) -> Call[Advice]:
        """One call, from photo to advice."""
        started = time.monotonic()
        deadline = started + self._timeout
        try:
            jpeg = yield from self._prepare(photo, deadline)
            answer = yield from self._ask([jpeg], deadline)
            decision = decide(answer, self._policy)
        except Failure as failure:
            decision = decide(failure, self._policy)
        except Exception:  # nothing is to get into the till's way
            logger.exception("%s (%s)", Reason.INTERNAL_ERROR.kind, Reason.INTERNAL_ERROR)
            decision = Decision(Reason.INTERNAL_ERROR)
        reason, age, version, cause = decision
        advice = Advice(reason, age, version, (time.monotonic() - started) * 1000)
        if cause:
            logger.warning("%s (%s): %s", advice.kind, reason, cause)
        if self._audit:
            self._audit.write(advice, self._policy)
        return advice

    def _prepare(self, photo: Photo, deadline: float) -> Call[bytes]:
        """The JPEG to send."""
        future = _aside.run(lambda: prepare(photo))
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

        UNAVAILABLE is tried once more; that time, the call waits until there is a connection.
        """
        label, unavailable = self._wanted_label(), ""
        while True:
            request = wire.make_request(jpegs, self._model, self._signature, label)
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._late(unavailable)
            call = self._predict.future(request, timeout=left, wait_for_ready=bool(unavailable))
            try:
                outcome = yield _Wait(_outcome(call), left + _GRACE)
            finally:
                call.cancel()
            if isinstance(outcome, bytes):
                return outcome
            code, details = _status(outcome)
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise self._late(unavailable)
            if code is grpc.StatusCode.UNAVAILABLE and not unavailable:
                unavailable = details or code.name
            elif label and self._label is None and _label_unknown(code, details):
                self._no_label_until = time.monotonic() + _FORGET_LABEL
                label = ""
            else:
                away = code is grpc.StatusCode.UNAVAILABLE
                reason = Reason.NO_SERVER if away else Reason.SERVER_ERROR
                raise Failure(reason, f"{code.name}: {details}")

    def _late(self, unavailable: str) -> Failure:
        if unavailable:
            return Failure(Reason.NO_SERVER, unavailable)
        return Failure(Reason.TIMEOUT, f"no answer within {self._timeout} s")

    def _close(self) -> None:
        self._channel.close()

    def _wanted_label(self) -> str:
        if self._label is not None:
            return self._label
        return "" if time.monotonic() < self._no_label_until else STABLE


class AgeClient(Client):
    """Asks a model about photos; thread-safe. The arguments are Client's."""

    def check(self, photo: Photo) -> Advice:
        """The advice on a photo.

        It comes within the timeout. Whatever goes wrong is an advice, too: nothing is raised.

        Args:
            photo: a path, the bytes of a picture file, a Pillow image, or a frame: uint8, RGB
                [height, width, 3] or grey [height, width] (of OpenCV's: `frame[..., ::-1]`).
        """
        return _finish(self._advise(photo))

    def predict(
        self, jpegs: Sequence[bytes], timeout: float
    ) -> tuple[list[wire.Prediction], int | None]:
        """What the model says about each photo, and its version: for analytics, not for tills.

        Args:
            jpegs: what `photo.prepare` made of photos.
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
    """Asks a model about photos, in any event loop. The arguments are Client's."""

    async def check(self, photo: Photo) -> Advice:
        """The advice on a photo, as AgeClient.check."""
        return await _finish_async(self._advise(photo))

    async def close(self) -> None:
        """Ends the connection; a check that comes after it says CHALLENGE."""
        self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _finish(call: Call[T]) -> T:
    """Does a call's waiting in this thread."""
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
    """Does a call's waiting in the running event loop."""
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
    """The outcome of gRPC's call, as a future that threads and asyncio can wait for."""
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
    """Code and details of a call that failed, or that gRPC has not ended in time."""
    if outcome is None:
        return grpc.StatusCode.DEADLINE_EXCEEDED, ""
    if not isinstance(outcome, grpc.Call):
        raise outcome
    return outcome.code(), outcome.details() or ""


def _label_unknown(code: grpc.StatusCode, details: str) -> bool:
    """Whether TensorFlow Serving knows no such label, or was told to take none.

    Its ServerCore says "Unrecognized servable version label: …" of the former and "ModelSpec has
    'version_label' set, but …" of the latter. A label whose version is not loaded is neither: what
    operators call stable is not to be replaced by what they do not.
    """
    return code is grpc.StatusCode.INVALID_ARGUMENT and (
        "servable version label" in details or "'version_label'" in details
    )


class _Aside:
    """Threads for what can't be interrupted, so that a call may go on without it.

    A file on a share that hangs, or a photo made to keep decoders busy, takes one of the threads.
    When all are taken, jobs wait and their calls time out. The interpreter's exit does not wait for
    these threads, as it would for those of a ThreadPoolExecutor.
    """

    _THREADS = 4

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[bytes | Exception], Callable[[], bytes]]]
        self._jobs = queue.SimpleQueue()
        self._start = threading.Lock()
        self._started = False

    def run(self, job: Callable[[], bytes]) -> Future[bytes | Exception]:
        """A future of the job's result, or of what it raised."""
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
            del future, job  # a photo is kept no longer than it takes


_aside = _Aside()
