"""How fast `goodseed serve` is compared with the bare model, and whether it can run for long.

    python -m benchmarks.serving --model DIR --photos DIR [speed] [memory] [swaps]
        [--requests 50000] [--swaps 100] [--seconds 20]

`--model` is a version folder whose default signature takes photo bytes as `image`. Server and
clients share the machine.

speed   It sends one photo at a time by gRPC. The reference is the same signature in this process,
        loaded with `tf.saved_model.load`; both take turns. The figures are p50 and p99.
        Then 32 clients send photos at once. The reference is the bare model with the batch size (8,
        16 or 32) and the number of callers (one or two) that give most photos/s; both take turns.
        The value and the reference are medians. The ratio is the median of the turns' ratios,
        because the machine's own speed may change between turns. The clients need CPU time that
        the server does not get; the bare model has both cores alone.
memory  The server's resident memory after a tenth of the requests and after all of them.
swaps   New versions are pushed under load. The figures are the requests that failed, and the
        server's memory.

It appends to results/serving.csv and ends with a line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
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

from benchmarks.results import record
from tests.ports import free_port

MODES = ("speed", "memory", "swaps")
CLIENTS = 32
TURNS = 8
MODEL = "photos"
BATCHING = "max_batch_size { value: 32 } max_enqueued_batches { value: 100 }"


class Server:
    """`goodseed serve` in a process of its own, with batching, gRPC and REST."""

    def __init__(self, base: Path):
        self.address, self.rest_port = f"127.0.0.1:{free_port()}", free_port()
        parameters = base.parent / "batching.config"
        parameters.write_text(BATCHING)
        self._process = subprocess.Popen([
            sys.executable, "-m", "pipeline.cli", "serve", f"--model_base_path={base}",
            f"--model_name={MODEL}", f"--port={self.address.split(':')[1]}", "--enable_batching",
            f"--rest_api_port={self.rest_port}",
            f"--batching_parameters_file={parameters}",
        ], stderr=subprocess.DEVNULL)  # fmt: skip
        self.channel = grpc.insecure_channel(self.address)
        grpc.channel_ready_future(self.channel).result(180)
        self._predict = prediction_service_pb2_grpc.PredictionServiceStub(self.channel).Predict
        self._status = model_service_pb2_grpc.ModelServiceStub(self.channel).GetModelStatus

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
        self.channel.close()
        return self._process.wait(120)


@contextlib.contextmanager
def serving(model: Path) -> Iterator[tuple[Server, Path]]:
    """Yields a server of one version, and the folder where it looks for versions."""
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


def percentiles(name: str, values: Sequence[float]) -> tuple[float, float]:
    """The 50th and the 99th percentile."""
    p50, p99 = np.percentile(values, [50, 99])
    print(f"{name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    return float(p50), float(p99)


class Load(NamedTuple):
    """What CLIENTS clients at once measured.

    Attributes:
        waits: milliseconds for each photo.
        ends: when each answer came, seconds, in that order.
        client_ms, server_ms: CPU time for a photo.
    """

    waits: list[float]
    ends: list[float]
    client_ms: float
    server_ms: float

    @property
    def rate(self) -> float:
        """Photos/s, without the start and the end, when not all clients are busy."""
        whole = self.ends[CLIENTS:-CLIENTS]
        return (len(whole) - 1) / (whole[-1] - whole[0])


def from_many(server: Server, photos: Sequence[bytes], count: int) -> Load:
    """Sends `count` photos from CLIENTS clients at once.

    All clients share one thread, because threads need more CPU time.
    """
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
    """Photos/s of the model in this process, called by `callers` threads."""
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


def speed(model: Path, photos: Sequence[bytes], seconds: float) -> list[dict[str, Any]]:
    loaded = tf.saved_model.load(str(model))  # the signature does not keep the model alive
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
            # In blocks, not photo by photo: after a run TensorFlow's threads spin for a while, and
            # the other process does not get their core.
            block = [photos[(len(ours) + n) % len(photos)] for n in range(25)]
            reference.extend(milliseconds(lambda one: bare([one]), photo) for photo in block)
            ours.extend(milliseconds(server.ask, photo) for photo in block)
        one, one_p99 = percentiles("one photo, gRPC", ours)
        one_bare, one_bare_p99 = percentiles("one photo, in process", reference)
        rate = from_many(server, photos, 8 * CLIENTS).rate
        count = max(4 * CLIENTS, round(rate * seconds / 4))
        best = best_setting(bare, photos, seconds / 4)
        batch = tf.constant(list(photos[: best[0]]))
        loads: list[Load] = []
        rates_bare: list[float] = []
        for _ in range(TURNS):  # in turns, so that other jobs on the machine slow down both
            rates_bare.append(bare_rate(bare, batch, best[1], seconds / 4))
            loads.append(from_many(server, photos, count))
            print(f"bare {rates_bare[-1]:.1f} photos/s, {CLIENTS} clients {loads[-1].rate:.1f}")
    ours_many, bare_many = median(load.rate for load in loads), median(rates_bare)
    ratio = median(load.rate / alone for load, alone in zip(loads, rates_bare, strict=True))
    many = f"{CLIENTS} clients"
    many_p50, many_p99 = percentiles(many, [wait for load in loads for wait in load.waits])
    in_process, in_batches = "the signature in process", "the bare model in its best batches"
    server_ms, client_ms = (
        median(load.server_ms for load in loads),
        median(load.client_ms for load in loads),
    )
    return [
        record(f"one photo by gRPC, p50; reference: {in_process}", one, "ms", one_bare),
        record(f"one photo by gRPC, p99; reference: {in_process}", one_p99, "ms", one_bare_p99),
        record(f"{many}; reference: {in_batches}", ours_many, "photos/s", bare_many, ratio),
        record(f"{many}: p50", many_p50, "ms"),
        record(f"{many}: p99", many_p99, "ms"),
        record(f"{many}: CPU time a photo in the server", server_ms, "ms"),
        record(f"{many}: CPU time a photo in the clients", client_ms, "ms"),
    ]


def best_setting(
    bare: Callable[[Any], Any], photos: Sequence[bytes], seconds: float
) -> tuple[int, int]:
    """The batch size and the number of callers with which the bare model does most photos/s."""
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


def memory(model: Path, photos: Sequence[bytes], requests: int) -> list[dict[str, Any]]:
    with serving(model) as (server, _):
        found = []
        for part in range(10):
            from_many(server, photos, requests // 10)
            found.append(round(server.memory(), 1))
            print(f"after {(part + 1) * requests // 10:,} requests: {found[-1]} MiB", flush=True)
    name = f"the server's memory after {requests:,} requests; reference: after {requests // 10:,}"
    return [record(name, found[-1], "MiB", found[0])]


def swaps(model: Path, photos: Sequence[bytes], count: int) -> list[dict[str, Any]]:
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
                time.sleep(0.02)  # a version that is being loaded needs the cores too

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
    for failure in failed[:3]:
        print(f"failed: {failure}")
    tenth = max(1, count // 10)
    asked = answered[0] + len(failed)
    lost = f"requests that failed while {count} versions were swapped"
    name = f"the server's memory after {count} swaps; reference: after {tenth}"
    return [
        record(lost, len(failed), f"of {asked:,}"),
        record(name, used[-1], "MiB", used[0]),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modes", nargs="*", default=MODES, metavar="|".join(MODES))
    parser.add_argument("--model", type=Path, required=True, help="version folder")
    parser.add_argument("--photos", type=Path, required=True, help="folder with JPEGs")
    parser.add_argument("--requests", type=int, default=50_000, help="of the mode memory")
    parser.add_argument("--swaps", type=int, default=100, help="of the mode swaps")
    parser.add_argument("--seconds", type=float, default=20, help="of each part of the mode speed")
    options = parser.parse_args()
    if unknown := set(options.modes) - set(MODES):
        parser.error(f"no mode of {', '.join(MODES)}: {', '.join(sorted(unknown))}")
    files = sorted(path for path in options.photos.rglob("*.jp*g"))[:256]
    photos = [path.read_bytes() for path in files]
    os.environ.setdefault("TF_ONEDNN_ASSUME_FROZEN_WEIGHTS", "1")  # as the server sets it
    figures: list[dict[str, Any]] = []
    if "speed" in options.modes:
        figures += speed(options.model, photos, options.seconds)
    if "memory" in options.modes:
        figures += memory(options.model, photos, options.requests)
    if "swaps" in options.modes:
        figures += swaps(options.model, photos, options.swaps)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
