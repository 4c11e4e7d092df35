"""There is one line for each advice, and a full disk does not stop an advice."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest
from goodseed_client import Advice, AgeClient, AsyncAgeClient, Kind, Policy, Reason
from goodseed_client.audit import Audit

from tests.disks import small_disk
from tests.pictures import encoded
from tests.serving.client.photos import picture
from tests.serving.client.server import everybody_is, serving

ADVICE = Advice(Reason.OLD_ENOUGH, 40.5, 7, 12.345)
POLICY = Policy.load()


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_says_what_was_advised_and_nothing_of_the_photo(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    photo = tmp_path / "customer.jpg"
    photo.write_bytes(encoded(picture()))
    with (
        serving(everybody_is(40)) as server,
        AgeClient(server, till="till-3", timeout=5, audit=path) as client,
    ):
        advices = [client.check(photo), client.check(b"no photo")]
    first, second = lines(path)
    assert first.keys() == {
        "time", "till", "advice", "reason", "model_version", "policy", "latency_ms",
    }  # fmt: skip
    assert datetime.fromisoformat(str(first["time"])).tzinfo is not None
    assert (first["till"], first["policy"]) == ("till-3", POLICY.hash)
    assert (first["advice"], first["reason"], first["model_version"]) == (
        "NO_CHALLENGE", "old_enough", 7,
    )  # fmt: skip
    assert first["latency_ms"] == pytest.approx(advices[0].latency_ms, abs=0.1)
    assert (second["advice"], second["reason"]) == ("CHALLENGE", "bad_photo")
    assert second["model_version"] is None
    assert path.stat().st_size < 500


def test_files_rotate(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = Audit(path, "a", max_bytes=500, keep=2)
    for number in range(20):
        audit.write(Advice(Reason.OLD_ENOUGH, 40, number, 1), POLICY)
    audit.flush()
    names = ["audit.jsonl.2", "audit.jsonl.1", "audit.jsonl"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)
    assert all((tmp_path / name).stat().st_size <= 500 for name in names)
    kept = [line["model_version"] for name in names for line in lines(tmp_path / name)]
    assert kept == list(range(20 - len(kept), 20)) and len(kept) >= 5


def test_a_file_that_was_moved_away_is_created_again(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = Audit(path, "a")
    audit.write(ADVICE, POLICY)
    audit.flush()
    path.rename(tmp_path / "taken")
    audit.write(ADVICE, POLICY)
    audit.flush()
    assert len(lines(path)) == len(lines(tmp_path / "taken")) == 1


def test_lost_lines_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "gone" / "audit.jsonl"
    audit = Audit(path, "a")
    for _ in range(3):
        audit.write(ADVICE, POLICY)
    audit.flush()
    assert [record.getMessage()[:30] for record in caplog.records] == [
        "audit lines are being lost: [E"
    ]
    path.parent.mkdir()
    audit.write(ADVICE, POLICY)
    audit.flush()
    assert caplog.records[-1].getMessage() == f"3 audit lines were lost in {path}"
    assert len(lines(path)) == 1


def test_a_path_that_no_file_can_have(caplog: pytest.LogCaptureFixture) -> None:
    audit = Audit("a\0b", "a")
    audit.write(ADVICE, POLICY)
    audit.flush()
    assert "audit lines are being lost" in caplog.text


def test_a_disk_that_hangs_holds_up_no_advice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A FIFO that nobody reads blocks whoever opens it. The advices come all the same."""
    fifo = tmp_path / "audit.jsonl"
    os.mkfifo(fifo)
    audit = Audit(fifo, "a")
    for _ in range(1100):
        audit.write(ADVICE, POLICY)
    audit.flush()  # it gives up
    assert caplog.messages == [f"audit lines are being lost: 1,000 lines wait for {fifo}"]

    async def check(server: str) -> Advice:
        async with AsyncAgeClient(server, timeout=5, audit=fifo) as client:
            return await client.check(encoded(picture()))

    with serving(everybody_is(40)) as server:
        assert asyncio.run(check(server)).kind is Kind.NO_CHALLENGE
    os.close(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))  # the thread goes on


WRITING = """
import sys
from goodseed_client import Advice, Policy, Reason
from goodseed_client.audit import Audit

audit = Audit(sys.argv[1], "a", max_bytes=5_000, keep=500)
for number in range(800):
    audit.write(Advice(Reason.OLD_ENOUGH, 40.0, number, 1.0), Policy.load())
    if not number % 100:
        audit.flush()
"""


def test_processes_and_clients_share_a_file_that_rotates(tmp_path: Path) -> None:
    """No line is lost, and none is torn."""
    path = tmp_path / "audit.jsonl"
    command = [sys.executable, "-c", WRITING, str(path)]
    writers = [subprocess.Popen(command) for _ in range(3)]
    audits = [Audit(path, "a", max_bytes=5_000, keep=500) for _ in range(2)]
    for number in range(400):
        for audit in audits:
            audit.write(Advice(Reason.OLD_ENOUGH, 40.0, number, 1.0), POLICY)
        if not number % 100:
            audits[0].flush()
    for audit in audits:  # what is not written yet may turn the files over while they are read
        audit.flush()
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    found = [line["model_version"] for file in tmp_path.iterdir() for line in lines(file)]
    assert Counter(found) == Counter([*range(800)] * 3 + [*range(400)] * 2)
    assert all(file.stat().st_size <= 5_000 for file in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) > 50


def test_advices_continue_on_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, ballast = tmp_path / "audit.jsonl", tmp_path / "ballast"
    with small_disk(tmp_path, "64k"):
        ballast.write_bytes(b"\0" * 40_000)
        with (
            serving(everybody_is(40)) as server,
            AgeClient(server, till="3", timeout=5, audit=path) as client,
        ):
            photo = encoded(picture(120, 160))
            audit = Audit(path, "3")  # of the same file
            while "No space left" not in caplog.text:
                assert client.check(photo).kind is Kind.NO_CHALLENGE
                audit.flush()
            before = len(lines(path))
            assert client.check(photo).kind is Kind.NO_CHALLENGE
            audit.flush()
            ballast.unlink()
            assert client.check(photo).kind is Kind.NO_CHALLENGE
        assert len(lines(path)) == before + 1  # and each is a whole line
        assert "2 audit lines were lost" in caplog.text
