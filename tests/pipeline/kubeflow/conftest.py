"""A configuration whose volumes are folders of a test."""

from __future__ import annotations

from pathlib import Path

from pipeline import config
from tests.pipeline.conftest import TINY

IMAGE = "registry.example/goodseed:abc123"


def configuration(photos: Path, volumes: Path, *overrides: str) -> config.Config:
    """The configuration of a small run; its pods mount the volumes at these folders."""
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
            "beam.workers=1",  # several workers are tested in tests/containers
            *TINY,
            *overrides,
        ],
    )
