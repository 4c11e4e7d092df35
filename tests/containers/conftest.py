"""What the container tests share: the image under test, and pods' rights in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence

import pytest

# As Kubeflow and OpenShift run a pod's container: some user, no capability, nothing to write but
# what is mounted.
POD = [
    "--user=1000620000:0",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--read-only",
    "--tmpfs=/tmp:mode=1777",
]

Run = Callable[..., str]


@pytest.fixture(scope="session")
def image() -> str:
    """The image that `make test-containers` has made."""
    image = os.environ.get("GOODSEED_IMAGE", "")
    if not image or shutil.which("docker") is None:
        pytest.skip("needs Docker and GOODSEED_IMAGE: make test-containers")
    return image


@pytest.fixture(scope="session")
def in_pod(image: str) -> Run:
    """Runs a command in the image as a pod's container does, and returns what it printed.

    There is no network, since no step may need one.
    """

    def run(*command: str, options: Sequence[str] = ("--network=none",)) -> str:
        done = subprocess.run(
            ["docker", "run", "--rm", *POD, *options, image, *command],
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
