"""The command itself: its help, its version, and what it does not import."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

from pipeline import DISTRIBUTION, cli
from tests.conftest import ROOT


def test_without_a_command_it_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    said = capsys.readouterr().out
    for command in ("run", "sample-photos", "config", "review", "kfp", "serve", "serving", "check"):
        assert f"\n    {command} " in said or f"\n    {command}\n" in said


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"goodseed {metadata.version(DISTRIBUTION)}\n"


def test_an_unknown_command_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["rum"])
    assert "invalid choice: 'rum'" in capsys.readouterr().err


def test_the_servers_flags_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from serving.server import main

    monkeypatch.setattr(main, "main", lambda flags: len(flags))
    assert cli.main(["serve", "--port=0", "--help"]) == 2


def test_it_starts_without_the_libraries_of_single_commands() -> None:
    program = (
        "import sys, pipeline.cli; "
        "heavy = {'tensorflow', 'tfx', 'apache_beam', 'kfp', 'ml_metadata', 'scipy'}; "
        "print(heavy & {*sys.modules})"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
