"""What a step records for the summary, whether it succeeds, fails or is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from components.errors import UserError
from pipeline.kubeflow import records
from pipeline.kubeflow.launcher import RUN_ID
from pipeline.kubeflow.records import LOST, Record

KILLED = """
import os, pathlib, signal, sys
from pipeline.kubeflow.records import Record

with Record("Trainer", pathlib.Path(sys.argv[1])).recording():
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_step_records_its_inputs_and_outputs(tmp_path: Path) -> None:
    record = Record("Trainer", tmp_path)
    with record.recording():
        record.inputs["Transform.examples"] = {"span": 3}
        record.outputs["Trainer.model"] = {"uri": "s3://b/model"}
    (found,) = records.read(tmp_path).values()
    assert found["failure"] is None and found["started"] <= found["ended"]
    assert found["inputs"] == {"Transform.examples": {"span": 3}}
    assert found["outputs"] == {"Trainer.model": {"uri": "s3://b/model"}}
    assert found["peak_rss_mb"] > 10


def test_a_failed_step_says_why_and_fails(tmp_path: Path) -> None:
    with pytest.raises(UserError), Record("Trainer", tmp_path).recording():
        raise UserError("training diverged")
    assert records.read(tmp_path)["Trainer"]["failure"] == "training diverged"


def test_a_killed_step_is_recorded(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path])
    assert done.returncode == -signal.SIGKILL
    assert records.read(tmp_path)["Trainer"]["failure"] == LOST


def test_steps_are_in_the_order_of_their_ends(tmp_path: Path) -> None:
    slow = Record("StatisticsGen", tmp_path)
    with slow.recording(), Record("Transform", tmp_path).recording():
        pass
    assert list(records.read(tmp_path)) == ["Transform", "StatisticsGen"]


def test_a_pod_without_a_run_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RUN_ID, raising=False)
    with pytest.raises(UserError, match=f"{RUN_ID} should hold the run's id"):
        records.run_folder(tmp_path)
    assert records.run_folder(tmp_path, "7f") == tmp_path / "runs" / "7f"
