"""Fixtures of the container tests: the image, and a way to run it with the rights of a pod."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence

import pytest

# Kubeflow and OpenShift run a container with any user, no capabilities and a read-only root.
POD = [
    "--user=1000620000:0",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--read-only",
    "--tmpfs=/tmp:mode=1777",
]

Run = Callable[..., str]


def built(variable: str, target: str) -> str:
    """The image that a target of the Makefile has built; skips the test if there is none."""
    image = os.environ.get(variable, "")
    if not image or shutil.which("docker") is None:
        pytest.skip(f"needs Docker and {variable}: make {target}")
    return image


@pytest.fixture(scope="session")
def image() -> str:
    """The image of the steps."""
    return built("GOODSEED_IMAGE", "test-containers")


@pytest.fixture(scope="session")
def in_pod(image: str) -> Run:
    """Runs a command in the image with the rights of a pod, and returns its output.

    There is no network, because no step may need one.
    """

    def run(
        *command: str,
        options: Sequence[str] = ("--network=none",),
        statuses: Sequence[int] = (0,),
    ) -> str:
        done = subprocess.run(
            ["docker", "run", "--rm", *POD, *options, image, *command],
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode in statuses, done.stdout + done.stderr
        return done.stdout

    return run
