"""Fixtures of the tests on Flink: the images."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.containers.conftest import image, in_pod

__all__ = ["beam_image", "image", "in_pod"]


@pytest.fixture(scope="session")
def beam_image() -> str:
    """The image that `make test-flink` has built."""
    image = os.environ.get("GOODSEED_BEAM_IMAGE", "")
    if not image or shutil.which("docker") is None:
        pytest.skip("needs Docker and GOODSEED_BEAM_IMAGE: make test-flink")
    return image
