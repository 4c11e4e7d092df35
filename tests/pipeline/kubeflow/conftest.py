"""A package with volumes in a test's folder."""

from __future__ import annotations

from pathlib import Path

from pipeline import config
from tests.pipeline.conftest import TINY

IMAGE = "registry.example/goodseed:abc123"


def configuration(photos: Path, volumes: Path, *overrides: str) -> config.Config:
    """The configuration of a small run. These folders take the place of its volumes."""
    (volumes / "serving").mkdir(parents=True, exist_ok=True)
    (volumes / "work").mkdir(exist_ok=True)
    return config.load(
        profile="demo",
        photos=str(photos),
        run_dir=str(volumes / "work"),
        here=False,
        overrides=[
            f"kubeflow.image={IMAGE}",
            f"kubeflow.photos_mount={photos}",
            f"kubeflow.serving_mount={volumes / 'serving'}",
            f"kubeflow.work_mount={volumes / 'work'}",
            *TINY,
            *overrides,
        ],
    )
