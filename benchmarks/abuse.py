"""What `goodseed serve` does with requests and photos that nobody should send.

    python -m benchmarks.abuse --model VERSION_FOLDER --photos FOLDER [--count 20000] [--seed 0]

Half of the mutated requests go to gRPC, half to REST: ranks, types, counts that lie, nesting, sizes
and broken bytes, built from the signature. Then come mutated photos: JPEG (also progressive) and
PNG with broken bytes, cut off, with parts moved or repeated, and with headers that lie. After each
hundred, a good photo must get the age that it had before. Nothing may crash, and the server's
memory may grow by at most 200 MiB.

It appends to results/abuse.csv and ends with a line of JSON.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
from goodseed_client.wire import PREDICT
from PIL import Image
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from benchmarks.results import record
from benchmarks.serving import MODEL, Server, serving

_BETWEEN = 100  # abuses between two good photos
_TIMEOUT = 60.0  # seconds
_SIDE = 256  # pixels of the good photos

Outcomes = Counter[str]


class Abused:
    """A running server, and what it answered.

    Args:
        server: the server.
        good: a photo that it can read.
    """

    def __init__(self, server: Server, good: bytes):
        self._server = server
        self._good = good
        self._call: grpc.UnaryUnaryMultiCallable[bytes, bytes]
        self._call = server.channel.unary_unary(PREDICT)
        self._age = self._age_of_good()

    def grpc(self, request: bytes) -> str:
        """The code of the answer to a request."""
        try:
            self._call(request, timeout=_TIMEOUT)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    def rest(self, body: bytes) -> str:
        """The status of the answer to a body."""
        connection = http.client.HTTPConnection("127.0.0.1", self._server.rest_port, _TIMEOUT)
        try:
            connection.request(
                "POST", f"/v1/models/{MODEL}:predict", body, {"Content-Type": "application/json"}
            )
            return str(connection.getresponse().status)
        finally:
            connection.close()

    def send(self, name: str, abuses: Sequence[Callable[[], str]]) -> Outcomes:
        """Sends them all, looks after the server, and counts the answers."""
        outcomes: Outcomes = Counter()
        for number, abuse in enumerate(abuses, 1):
            outcomes[abuse()] += 1
            if not number % _BETWEEN:
                assert self._age_of_good() == self._age, "a good photo has another age"
                print(f"\r{name}: {number:,} of {len(abuses):,}", end="", flush=True)
        print(f"\r{name}: {dict(outcomes.most_common())}")
        return outcomes

    def _age_of_good(self) -> float:
        return round(float(self._server.ask(self._good).outputs["age"].float_val[0]), 3)


def request_bytes(chance: random.Random, photo: bytes) -> bytes:
    """A request whose type, rank, shape, count or bytes are wrong, or all of them."""
    request = PredictRequest()
    request.model_spec.name = chance.choice([MODEL] * 8 + ["", "none", "x" * 10_000])
    request.model_spec.signature_name = chance.choice(["", "serving_default", "examples", "none"])
    for name in chance.choice([["image"], ["image"], ["examples"], [], ["image", "examples"]]):
        tensor = request.inputs[name]
        tensor.dtype = chance.choice([types_pb2.DT_STRING] * 4 + [*types_pb2.DataType.values()])
        if chance.random() < 0.1:
            tensor.tensor_shape.unknown_rank = True
        for _ in range(chance.choice([0, 1, 1, 1, 2, 4, 32, 33, 64, 254, 255])):
            size = chance.choice([0, 1, 1, 2, 32, 10**6, 2**31, 2**62, -1, -(2**63)])
            tensor.tensor_shape.dim.add(size=size)
        tensor.string_val.extend([photo] * chance.choice([0, 1, 1, 1, 2, 40]))
        if chance.random() < 0.2:
            tensor.tensor_content = chance.randbytes(chance.choice([1, 8, 1000]))
        tensor.float_val.extend([0.5] * chance.choice([0, 0, 3]))
    data = request.SerializeToString()
    return broken(chance, data) if chance.random() < 0.4 else data


def rest_body(chance: random.Random, photo: bytes) -> bytes:
    """A body whose nesting, keys, types or bytes are wrong, or all of them."""
    good = {"b64": base64.b64encode(photo).decode()}
    leaf: Any = chance.choice(
        [
            good,
            good,
            {"b64": "?"},
            {"b64": 3},
            {"b64": None},
            "text",
            None,
            1e400,
            10**400,
            True,
            {},
        ]
    )
    value: Any = leaf
    for _ in range(chance.choice([0, 0, 1, 2, 40, 300, 3000])):
        value = [value]
    value = chance.choice([value, [value], [value] * 3, {"image": value}, [{"image": value}]])
    key = chance.choice(["instances", "instances", "inputs", "none", ""])
    text = "[" * 100_000 if chance.random() < 0.02 else _json({key: value})
    body = text.encode()
    return broken(chance, body) if chance.random() < 0.3 else body


def _json(value: Any) -> str:
    try:
        return json.dumps(value)
    except RecursionError:
        return "[" * 3000 + "]" * 3000


def mutated_photo(chance: random.Random, photos: Sequence[bytes]) -> bytes:
    """A photo that is broken, cut off, put together anew, or whose header lies."""
    photo = chance.choice(photos)
    kind = chance.randrange(5)
    if kind == 0:
        return broken(chance, photo)
    if kind == 1:
        return photo[: chance.randrange(len(photo))]
    if kind == 2:  # a part comes again and again
        start = chance.randrange(len(photo))
        part = photo[start : start + chance.choice([2, 20, 2000])]
        return photo[:start] + part * chance.choice([2, 50, 2000]) + photo[start:]
    if kind == 3:  # two photos in one
        other = chance.choice(photos)
        return photo[: chance.randrange(len(photo))] + other[chance.randrange(len(other)) :]
    start = chance.randrange(min(600, len(photo)))  # the header
    return photo[:start] + chance.randbytes(chance.choice([1, 2, 4])) + photo[start + 4 :]


def broken(chance: random.Random, data: bytes) -> bytes:
    """Some bytes replaced by others."""
    changed = bytearray(data)
    for _ in range(chance.choice([1, 3, 30])):
        if changed:
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def good_photos(folder: Path) -> list[bytes]:
    """A few photos in each format that the model reads."""
    found = []
    for path in sorted(folder.iterdir())[:20]:
        image = Image.open(path).convert("RGB").resize((_SIDE, _SIDE))
        for options in ({"format": "JPEG"}, {"format": "JPEG", "progressive": True},
                        {"format": "PNG"}):  # fmt: skip
            file = io.BytesIO()
            image.save(file, **options)
            found.append(file.getvalue())
    return found


def abuse(server: Server, photos: Sequence[bytes], count: int, seed: int) -> list[dict[str, Any]]:
    """Sends everything; returns the figures."""
    chance = random.Random(seed)
    abused = Abused(server, photos[0])
    before = server.memory()

    def by_grpc() -> str:
        return abused.grpc(request_bytes(chance, photos[0]))

    def by_rest() -> str:
        return abused.rest(rest_body(chance, photos[0]))

    def photo() -> str:
        request = server.request(mutated_photo(chance, photos))
        return abused.grpc(request.SerializeToString())

    abused.send("requests", [by_grpc, by_rest] * (count // 2))
    after_requests = server.memory()
    answers = abused.send("photos", [photo] * count)
    growth = server.memory() - before
    return [
        record("mutated requests: growth of memory", after_requests - before, "MiB"),
        record("mutated requests and photos: growth of memory", growth, "MiB"),
        record("mutated photos with an answer", 100 * answers["OK"] / count, "%"),
    ]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of a version")
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos")
    parser.add_argument("--count", type=int, default=20_000, help="requests, and photos")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with serving(options.model) as (server, _):
        figures = abuse(server, good_photos(options.photos), options.count, options.seed)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
