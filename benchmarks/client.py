"""How long the POS client takes, and whether its advice comes in time with broken servers.

    python -m benchmarks.client
    python -m benchmarks.client --fuzz 20000 [--server HOST:PORT]

The first command measures three things. It prepares a 12-megapixel JPEG, and compares with Pillow's
own thumbnail and encoder. It checks a photo, and compares with the preparation and a bare gRPC call
to the same server, which answers at once. It asks several broken servers, and takes the time from
the deadline of 1.5 s to the last advice.

The second command sends mutated photos and random bytes through the client, and counts the advices
by reason. With --server it asks a real model server. It then sends the same bytes once more without
the client's preparation.

Both append to results/client.csv and end with a line of JSON.
"""

from __future__ import annotations

import argparse
import collections
import json
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from io import BytesIO
from typing import Any

import grpc
import numpy as np
from goodseed_client import AgeClient, Kind, Policy, wire
from goodseed_client.advice import Failure, Reason
from goodseed_client.photo import MAX_SIDE, prepare
from goodseed_client.policy import decide
from PIL import Image

from benchmarks.results import record
from tests.pictures import encoded
from tests.serving.client.faulty_servers import FAULTY_SERVERS
from tests.serving.client.photos import picture
from tests.serving.client.server import everybody_is, serving
from tests.serving.client.test_photo import fuzzed

DEADLINE = 1.5  # seconds
SMALL = encoded(picture())


def milliseconds(*runs: Callable[[], object], repeats: int) -> list[float]:
    """Median time of each function. They run in turns; the first turn does not count."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats + 1):
        for run, taken in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            taken.append((time.perf_counter() - start) * 1000)
    return [statistics.median(taken[1:]) for taken in times]


def camera_photo() -> bytes:
    """A 12-megapixel JPEG with a camera's grain."""
    pixels = np.asarray(picture(4000, 3000)).astype(np.int16)
    pixels += np.random.default_rng(0).normal(0, 6, pixels.shape).astype(np.int16)
    return encoded(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), quality=92)


def preparation() -> list[dict[str, Any]]:
    """Prepares a 12-megapixel photo, and compares with Pillow's thumbnail."""
    photo = camera_photo()

    def thumbnail() -> None:
        with Image.open(BytesIO(photo)) as image:
            image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BILINEAR)
            image.save(BytesIO(), "JPEG", quality=85)

    ours, reference = milliseconds(lambda: prepare(photo), thumbnail, repeats=15)
    size = len(prepare(photo))
    print(f"12 megapixels: {ours:.1f} ms, {size:,} bytes; Pillow's thumbnail {reference:.1f} ms")
    return [
        record(
            "a 12-megapixel JPEG prepared; reference: Pillow's thumbnail", ours, "ms", reference
        ),
        record("a 12-megapixel JPEG as it is sent", size / 1000, "KB"),
    ]


def latency() -> list[dict[str, Any]]:
    """Checks a small photo, and compares with its preparation and a bare call."""
    request = wire.make_request([prepare(SMALL)], "goodseed_age", "serving_default", "stable")
    with (
        serving(everybody_is(40)) as server,
        AgeClient(server) as client,
        grpc.insecure_channel(server) as channel,
    ):
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(wire.PREDICT)

        def bare() -> None:
            prepare(SMALL)
            call(request, timeout=DEADLINE)

        ours, reference = milliseconds(lambda: client.check(SMALL), bare, repeats=300)
    print(f"a check {ours:.2f} ms; its photo and a bare call {reference:.2f} ms")
    name = "a check; reference: its photo prepared and a bare gRPC call"
    return [record(name, ours, "ms", reference)]


def lateness(repeats: int) -> list[dict[str, Any]]:
    """Milliseconds from the deadline to the last advice; below 0 if it came earlier."""
    late = {}
    for fault, faulty_server in FAULTY_SERVERS.items():
        taken = []
        with faulty_server() as server, AgeClient(server, timeout=DEADLINE) as client:
            for _ in range(repeats):
                start = time.monotonic()
                advice = client.check(SMALL)
                taken.append(time.monotonic() - start)
                if advice.kind is not Kind.CHALLENGE:
                    raise AssertionError(f"{fault}: {advice}")
        late[fault] = (max(taken) - DEADLINE) * 1000
        print(f"{fault}: last advice {late[fault]:+.1f} ms after the deadline", flush=True)
    name = "the last advice after the deadline, slowest broken server"
    return [record(name, max(late.values()), "ms")]


def fuzz(count: int, server: str | None) -> list[dict[str, Any]]:
    """Sends `count` broken photos and counts the advices by reason.

    Raises:
        AssertionError: a photo got no advice, or one that is not safe.
    """
    photos = fuzzed(count)
    reasons: dict[str, collections.Counter[str]] = {"client": collections.Counter()}
    policy = Policy.load()
    with serving(everybody_is(40)) as stub, AgeClient(server or stub, timeout=30) as client:
        for photo in photos:
            advice = client.check(photo)
            _assert_sound(advice.kind, advice.age)
            reasons["client"][advice.reason] += 1
        if server:
            reasons["server"] = collections.Counter()
            for photo in photos:
                try:
                    ((prediction,), _) = client.predict([photo], 30)
                    prediction.check()
                except Failure as failure:
                    decision = decide(failure, policy)
                    _assert_sound(decision.reason.kind, decision.age)
                    reasons["server"][failure.reason] += 1
                else:
                    reasons["server"]["valid"] += 1
    unexpected = {Reason.INTERNAL_ERROR, Reason.NO_SERVER, Reason.SERVER_ERROR, Reason.TIMEOUT}
    for side, counted in reasons.items():
        print(f"{side}: {dict(counted)}")
        if found := unexpected & counted.keys():
            raise AssertionError(f"{side}: {found}")
    names = {
        "client": "broken photos through the client without an advice",
        "server": "broken photos past the client's checks without a valid answer or a failure",
    }
    return [record(names[side], 0, f"of {count:,}") for side in reasons]


def _assert_sound(kind: Kind, age: float | None) -> None:
    if kind is Kind.NO_CHALLENGE and not (age is not None and 25 <= age <= 120):
        raise AssertionError(f"{kind} at {age}")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10, help="checks with each broken server")
    parser.add_argument("--fuzz", type=int, metavar="N", help="send N broken photos instead")
    parser.add_argument("--server", help="where to send the broken photos (default: a stub)")
    options = parser.parse_args()
    logging.getLogger("goodseed.client").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"PIL\.")
    if options.fuzz:
        figures = fuzz(options.fuzz, options.server)
    else:
        figures = preparation() + latency() + lateness(options.repeats)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
