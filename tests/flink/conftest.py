"""Fixtures of the tests on Flink: the images."""

from __future__ import annotations

import pytest

from tests.containers.conftest import built, image, in_pod

__all__ = ["beam_image", "image", "in_pod"]


@pytest.fixture(scope="session")
def beam_image() -> str:
    """The image of Flink and Beam's job server."""
    return built("GOODSEED_BEAM_IMAGE", "test-flink")
