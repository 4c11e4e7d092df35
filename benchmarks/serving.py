"""How fast `goodseed serve` is beside the bare model, and what it takes to run for long.

    python -m benchmarks.serving --model DIR --photos DIR [speed] [memory] [swaps]
        [--requests 50000] [--swaps 100] [--seconds 20]

`--model` is a version folder whose default signature takes photo bytes as `image`. Server and
clients share the machine.

speed   One photo at a time through gRPC and, in turn, by the same signature in this process, loaded
        with `tf.saved_model.load`: p50 and p99, milliseconds. Then photos/s, p99 and CPU time a
        photo with 32 clients at once, in turn with the bare model in batches as large and by as
        many callers as make most of it (of 8, 16 and 32, by one and two): medians of the turns,
        and as `ratio` that of their ratios, since a machine's own speed may change between turns.
        What the clients take is taken from the server; the bare model has both cores to itself.
memory  The server's resident memory, MiB, after a tenth of the requests and at their end.
swaps   So many new versions pushed under load: requests that failed, and memory before and after.

Ends with JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import grpc
import numpy as np
import psutil
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

MODES = ("speed", "memory", "swaps")
CLIENTS = 32
TURNS = 8
MODEL = "photos"
BATCHING = "max_batch_size { value: 32 } max_enqueued_batches { value: 100 }"


class Server:
    """A `goodseed serve` that serves a folder of versions with batching."""

    def __init__(self, base: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        parameters = base.parent / "batching.config"
        parameters.write_text(BATCHING)
        self._process = subprocess.Popen([
            sys.executable, "-m", "pipeline.cli", "serve", f"--model_base_path={base}",
            f"--model_name={MODEL}", f"--port={self.address.split(':')[1]}", "--enable_batching",
            f"--batching_parameters_file={parameters}",
        ], stderr=subprocess.DEVNULL)  # fmt: skip
        self._channel = grpc.insecure_channel(self.address)
        grpc.channel_ready_future(self._channel).result(180)
        self._predict = prediction_service_pb2_grpc.PredictionServiceStub(self._channel).Predict
        self._status = model_service_pb2_grpc.ModelServiceStub(self._channel).GetModelStatus

    def ask(self, photo: bytes) -> predict_pb2.PredictResponse:
        """One photo, by gRPC."""
        return self._predict(self.request(photo), timeout=60)

    def request(self, photo: bytes) -> predict_pb2.PredictRequest:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = MODEL
        tensor = request.inputs["image"]
        tensor.dtype = tf.string.as_datatype_enum
        tensor.tensor_shape.dim.add(size=1)
        tensor.string_val.append(photo)
        return request

    def available(self, version: int) -> bool:
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = MODEL
        states = {s.version: s.state for s in self._status(request).model_version_status}
        return states.get(version) == get_model_status_pb2.ModelVersionStatus.AVAILABLE

    def memory(self) -> float:
        """MiB."""
        return float(psutil.Process(self._process.pid).memory_info().rss / 2**20)

    def cpu_seconds(self) -> float:
        used = psutil.Process(self._process.pid).cpu_times()
        return float(used.user + used.system)

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        self._channel.close()
        return self._process.wait(120)


@contextlib.contextmanager
def serving(model: Path) -> Iterator[tuple[Server, Path]]:
    """A server of one version, and the folder of its versions."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / MODEL
        push(model, base, 1)
        server = Server(base)
        try:
            yield server, base
        finally:
            status = server.stop()
    assert status == 0, f"the server ended with {status}"


def push(model: Path, base: Path, version: int) -> None:
    base.mkdir(exist_ok=True)
    aside = base / ".aside"
    shutil.copytree(model, aside)
    aside.rename(base / str(version))


def milliseconds(call: Callable[[bytes], Any], photo: bytes) -> float:
    start = time.perf_counter()
    call(photo)
    return (time.perf_counter() - start) * 1e3


def percentiles(name: str, values: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.percentile(values, [50, 99])
    print(f"{name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    return {"p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2)}


class Load(NamedTuple):
    """What CLIENTS clients at once saw.

    Attributes:
        waits: milliseconds of each photo.
        ends: when each was answered, seconds, in that order.
        client_ms, server_ms: CPU time for each photo.
    """

    waits: list[float]
    ends: list[float]
    client_ms: float
    server_ms: float

    @property
    def rate(self) -> float:
        """Photos/s, without the start and the end, when not all clients are at it."""
        whole = self.ends[CLIENTS:-CLIENTS]
        return (len(whole) - 1) / (whole[-1] - whole[0])


def from_many(server: Server, photos: Sequence[bytes], count: int) -> Load:
    """`count` photos from CLIENTS clients at once, in one thread: threads take more CPU time."""
    waits: list[float] = []
    ends: list[float] = []
    waiting = (server.request(photos[n % len(photos)]) for n in range(count))

    async def client(predict: Any) -> None:
        for request in waiting:
            start = time.perf_counter()
            await predict(request, timeout=60)
            ends.append(time.perf_counter())
            waits.append((ends[-1] - start) * 1e3)

    async def clients() -> None:
        async with grpc.aio.insecure_channel(server.address) as channel:
            predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
            await asyncio.gather(*(client(predict) for _ in range(CLIENTS)))

    before = time.process_time(), server.cpu_seconds()
    asyncio.run(clients())
    ours, theirs = time.process_time() - before[0], server.cpu_seconds() - before[1]
    return Load(waits, ends, ours / count * 1e3, theirs / count * 1e3)


def bare_rate(call: Callable[[Any], Any], batch: Any, callers: int, seconds: float) -> float:
    """Photos/s of the model itself, called by so many threads."""
    done = [0] * callers
    until = time.perf_counter() + seconds

    def run(caller: int) -> None:
        while time.perf_counter() < until:
            call(batch)
            done[caller] += len(batch)

    start = time.perf_counter()
    threads = [threading.Thread(target=run, args=(caller,)) for caller in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - start)


def speed(model: Path, photos: Sequence[bytes], seconds: float) -> dict[str, Any]:
    loaded = tf.saved_model.load(str(model))  # held: the signature lives by it
    signature = loaded.signatures["serving_default"]

    def bare(batch: Any) -> Any:
        return {name: v.numpy() for name, v in signature(image=tf.constant(batch)).items()}

    with serving(model) as (server, _):
        ours: list[float] = []
        reference: list[float] = []
        for photo in photos[:10]:
            server.ask(photo)
            bare([photo])
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            # Block by block, not photo by photo: for a while after a run, TensorFlow's threads spin
            # and keep the other process from its core.
            block = [photos[(len(ours) + n) % len(photos)] for n in range(25)]
            reference.extend(milliseconds(lambda one: bare([one]), photo) for photo in block)
            ours.extend(milliseconds(server.ask, photo) for photo in block)
        one = percentiles("one photo, gRPC", ours)
        one_bare = percentiles("one photo, in process", reference)
        rate = from_many(server, photos, 8 * CLIENTS).rate
        count = max(4 * CLIENTS, round(rate * seconds / 4))
        best = most_of(bare, photos, seconds / 4)
        batch = tf.constant(list(photos[: best[0]]))
        loads: list[Load] = []
        rates_bare: list[float] = []
        for _ in range(TURNS):  # so that what else runs on the machine meets both
            rates_bare.append(bare_rate(bare, batch, best[1], seconds / 4))
            loads.append(from_many(server, photos, count))
            print(f"bare {rates_bare[-1]:.1f} photos/s, {CLIENTS} clients {loads[-1].rate:.1f}")
    ours_many, bare_many = median(load.rate for load in loads), median(rates_bare)
    ratio = median(load.rate / alone for load, alone in zip(loads, rates_bare, strict=True))
    waits = [wait for load in loads for wait in load.waits]
    return {
        "one_photo": {"ours": one, "reference": one_bare,
                      "ratio": round(one["p50_ms"] / one_bare["p50_ms"], 3)},
        "clients_32": {"ours": round(ours_many, 1), "reference": round(bare_many, 1),
                       "ratio": round(ratio, 3),
                       "reference_batch_and_callers": best,
                       "cpu_ms": {"server": round(median(load.server_ms for load in loads), 2),
                                  "clients": round(median(load.client_ms for load in loads), 2)},
                       **percentiles(f"{CLIENTS} clients", waits)},
    }  # fmt: skip


def most_of(bare: Callable[[Any], Any], photos: Sequence[bytes], seconds: float) -> tuple[int, int]:
    """The batch and the number of callers that make most of the bare model."""
    batches = {size: tf.constant(list(photos[:size])) for size in (8, 16, 32)}
    found: dict[tuple[int, int], list[float]] = {
        (size, callers): [] for size in batches for callers in (1, 2)
    }
    for batch in batches.values():
        bare(batch)
    for _ in range(TURNS):
        for (size, callers), rates in found.items():
            rates.append(bare_rate(bare, batches[size], callers, seconds / TURNS))
    medians = {key: median(rates) for key, rates in found.items()}
    print("bare:", ", ".join(f"{n} by {m}: {rate:.1f}" for (n, m), rate in medians.items()))
    return max(medians, key=lambda key: medians[key])


def memory(model: Path, photos: Sequence[bytes], requests: int) -> dict[str, Any]:
    with serving(model) as (server, _):
        found = []
        for part in range(10):
            from_many(server, photos, requests // 10)
            found.append(round(server.memory(), 1))
            print(f"after {(part + 1) * requests // 10:,} requests: {found[-1]} MiB", flush=True)
    return {"requests": requests, "mib": found, "ratio": round(found[-1] / found[0], 3)}


def swaps(model: Path, photos: Sequence[bytes], count: int) -> dict[str, Any]:
    failed: list[str] = []
    answered = [0]
    done = threading.Event()
    with serving(model) as (server, base):

        def ask() -> None:
            while not done.is_set():
                try:
                    server.ask(photos[answered[0] % len(photos)])
                    answered[0] += 1
                except grpc.RpcError as error:
                    failed.append(f"{error.code().name}: {error.details()}")
                time.sleep(0.02)  # a version that loads needs cores, too

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        used = []
        for version in range(2, count + 2):
            push(model, base, version)
            while not server.available(version):
                time.sleep(0.05)
            shutil.rmtree(base / str(version - 1))
            if (version - 1) % max(1, count // 10) == 0:
                used.append(round(server.memory(), 1))
                print(f"{version - 1} swaps: {used[-1]} MiB, {len(failed)} failed", flush=True)
        done.set()
        for thread in threads:
            thread.join()
    return {
        "swaps": count, "answered": answered[0], "failed": len(failed), "failures": failed[:3],
        "mib": used, "ratio": round(used[-1] / used[0], 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modes", nargs="*", default=MODES, metavar="|".join(MODES))
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    if unknown := set(options.modes) - set(MODES):
        parser.error(f"no mode of {', '.join(MODES)}: {', '.join(sorted(unknown))}")
    files = sorted(path for path in options.photos.rglob("*.jp*g"))[:256]
    photos = [path.read_bytes() for path in files]
    os.environ.setdefault("TF_ONEDNN_ASSUME_FROZEN_WEIGHTS", "1")  # as the server sets it
    found: dict[str, Any] = {}
    if "speed" in options.modes:
        found["speed"] = speed(options.model, photos, options.seconds)
    if "memory" in options.modes:
        found["memory"] = memory(options.model, photos, options.requests)
    if "swaps" in options.modes:
        found["swaps"] = swaps(options.model, photos, options.swaps)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
