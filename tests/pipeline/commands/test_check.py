"""`goodseed check` prints an advice per photo; its exit status says whether all may pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline import cli
from tests.pictures import encoded
from tests.ports import free_port
from tests.serving.client.photos import picture
from tests.serving.client.server import everybody_is, serving


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(picture()))
    return path


def check(*words: object) -> int:
    return cli.main(["check", *map(str, words)])


def test_a_customer_who_is_old_enough(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(everybody_is(40)) as server:
        assert check(photo, "--server", server, "--timeout", 20) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{photo}: NO_CHALLENGE: Looks old enough")
    assert "age 40.0, version 7, " in printed.out
    assert printed.err == ""


def test_a_strict_policy(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "policy.json").write_text('{"legal_age": 18, "challenge_age": 41}')
    (tmp_path / "no_photo.jpg").write_text("text")
    with serving(everybody_is(40)) as server:
        status = check(
            photo, tmp_path / "no_photo.jpg", "--server", server, "--json", "--timeout", 20,
            "--policy", tmp_path / "policy.json",
            "--audit", tmp_path / "audit.jsonl", "--till", 3,
        )  # fmt: skip
    assert status == 3
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["advice"], first["reason"], first["age"]) == ("CHALLENGE", "too_young", 40)
    assert (second["advice"], second["reason"], second["age"]) == ("CHALLENGE", "bad_photo", None)
    audit = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [line["till"] for line in audit] == ["3", "3"]


def test_no_server(photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(photo, "--server", f"127.0.0.1:{free_port()}", "--timeout", "0.5") == 3
    assert "CHALLENGE: The age check can't be reached: ask for ID." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.jpg"], "none.jpg: no such file"),
        ([__file__, "--server", "localhost"], "is not host:port"),
        ([__file__, "--policy", "none.json"], "none.json: No such file"),
        ([__file__, "--timeout", "-1"], "timeout -1.0 should be"),
        ([__file__, "--tls-ca", "none.pem"], "none.pem: No such file"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(*words) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("goodseed: ") and said in line
    assert printed.out == ""
