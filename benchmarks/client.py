"""What the POS client costs, and that its advice comes in time whatever the server does.

    python -m benchmarks.client
    python -m benchmarks.client --fuzz 20000 [--server HOST:PORT]

The first prints the time to prepare a 12-megapixel JPEG beside Pillow's own thumbnail and encoder;
the latency of a check beside the bare gRPC call with ready bytes, on the same server, which answers
at once; and for each server that is out of order, how long after the deadline of 1.5 s the last of
some advices came. The second sends mutated photos and random bytes through the client, and counts
its advices by reason; with --server, to a real model server, and once more as they are, without
the client's preparation. All end with JSON.
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

from tests.serving.client.out_of_order import OUT_OF_ORDER
from tests.serving.client.photos import encoded, picture
from tests.serving.client.server import everybody_is, serving
from tests.serving.client.test_photo import fuzzed

DEADLINE = 1.5  # seconds
SMALL = encoded(picture())


def milliseconds(*runs: Callable[[], object], repeats: int) -> list[float]:
    """Median time of each, run in turn, the first round aside."""
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


def preparation() -> dict[str, Any]:
    """Of a 12-megapixel photo, beside Pillow's own."""
    photo = camera_photo()

    def thumbnail() -> None:
        with Image.open(BytesIO(photo)) as image:
            image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BILINEAR)
            image.save(BytesIO(), "JPEG", quality=85)

    ours, reference = milliseconds(lambda: prepare(photo), thumbnail, repeats=15)
    size = len(prepare(photo))
    print(f"12 megapixels: {ours:.1f} ms, {size:,} bytes; Pillow's thumbnail {reference:.1f} ms")
    return {"prepare_ms": ours, "thumbnail_ms": reference, "sent_bytes": size}


def latency() -> dict[str, float]:
    """Of a whole check of a small photo, beside preparing it and a bare call after."""
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
    return {"check_ms": ours, "bare_ms": reference, "ratio": ours / reference}


def lateness(repeats: int) -> dict[str, float]:
    """How long after the deadline the last advice came, in ms; negative: before it."""
    late = {}
    for temper, out_of_order in OUT_OF_ORDER.items():
        taken = []
        with out_of_order() as server, AgeClient(server, timeout=DEADLINE) as client:
            for _ in range(repeats):
                start = time.monotonic()
                advice = client.check(SMALL)
                taken.append(time.monotonic() - start)
                if advice.kind is not Kind.CHALLENGE:
                    raise AssertionError(f"{temper}: {advice}")
        late[temper] = round((max(taken) - DEADLINE) * 1000, 1)
        print(f"{temper}: last advice {late[temper]:+.1f} ms after the deadline", flush=True)
    return late


def fuzz(count: int, server: str | None) -> dict[str, Any]:
    """Advices on so many broken photos, by reason; any other outcome is raised."""
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
    return {"count": count, **{side: dict(counted) for side, counted in reasons.items()}}


def _assert_sound(kind: Kind, age: float | None) -> None:
    if kind is Kind.NO_CHALLENGE and not (age is not None and 25 <= age <= 120):
        raise AssertionError(f"{kind} at {age}")


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10, help="checks of each broken server")
    parser.add_argument("--fuzz", type=int, metavar="N", help="send N broken photos instead")
    parser.add_argument("--server", help="of the broken photos; none: a stub")
    options = parser.parse_args()
    logging.getLogger("goodseed.client").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"PIL\.")
    figures: dict[str, Any] = {}
    if options.fuzz:
        figures = fuzz(options.fuzz, options.server)
    else:
        figures = preparation() | latency() | {"late_ms": lateness(options.repeats)}
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in figures.items()}
    print(json.dumps(rounded))


if __name__ == "__main__":
    main()
