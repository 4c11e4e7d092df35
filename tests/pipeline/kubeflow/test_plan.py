"""The hash of the code, for KFP's cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.kubeflow import plan


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("components/trainer/fit.py", True),
        ("schemas/curated.pbtxt", True),
        ("components/trainer/__pycache__/fit.pyc", False),  # differs between machines
        ("tests/test_fit.py", False),
    ],
)
def test_a_change_of_the_code_changes_its_hash(
    file: str, counts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_ROOT", tmp_path)
    changed = tmp_path / file
    changed.parent.mkdir(parents=True)
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "cli.py").touch()
    before = plan._code()
    changed.write_text("a")
    assert (plan._code() != before) == counts
    written = plan._code()
    changed.write_text("b")
    assert (plan._code() != written) == counts
    changed.rename(changed.with_stem("renamed"))
    assert (plan._code() != written) == counts
