"""What the tests share: drawn photos, the real faces where they are, transformed examples."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session")
def faces() -> Path:
    """The folder of 6,000 real photos; obligatory where GOODSEED_REQUIRE_SHARED is set."""
    folder = SHARED / "faces"
    if not folder.is_dir():
        reason = (
            f"needs the real photos in {folder.relative_to(SHARED.parent)}, beside the checkout"
        )
        if os.environ.get("GOODSEED_REQUIRE_SHARED"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
