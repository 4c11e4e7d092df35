"""The client's wheel works alone, with the oldest and the newest requirements that it allows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TESTS = Path(__file__).parent.relative_to(ROOT)
PYTEST = """\
[pytest]
addopts = --import-mode=importlib --noconftest -p no:cacheprovider -q
markers =
    slow
    e2e
"""


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True)


def uv(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "uv", *words)


def installed(python: Path) -> dict[str, str]:
    """The versions of the packages that an interpreter has."""
    listed = uv("pip", "list", "--format", "freeze", "--python", python).stdout
    return dict(line.split("==") for line in listed.splitlines())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because setuptools writes into the source tree."""
    folder = tmp_path_factory.mktemp("dist")
    ignored = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    source = shutil.copytree(ROOT / "serving/client", folder / "client", ignore=ignored)
    built = uv(
        "build", "--wheel", "--no-build-isolation", "--python", sys.executable,
        "--out-dir", folder, source,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("goodseed_client-*-py3-none-any.whl")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("resolution", ["lowest", "highest"])
def test_the_wheel_alone_passes_the_clients_tests(
    resolution: str, wheel: Path, tmp_path: Path
) -> None:
    venv = tmp_path / "venv"
    assert uv("venv", "--python", sys.executable, venv).returncode == 0
    python = venv / "bin/python"
    tools = uv("pip", "install", "--python", python, "hypothesis", "pytest", "pytest-timeout")
    if tools.returncode:
        pytest.skip(f"needs a package index: {tools.stderr.splitlines()[-1]}")
    client = uv(
        "pip", "install", "--python", python, "--only-binary", ":all:",
        "--resolution", resolution, f"goodseed-client[analytics] @ {wheel.as_uri()}",
    )  # fmt: skip
    assert client.returncode == 0, client.stderr

    versions = installed(python)
    print(versions)
    assert not versions.keys() & {"tensorflow", "tfx", "goodseed-age-check"}
    if resolution == "lowest":
        assert versions["protobuf"].startswith("6.31.1") and versions["pillow"] == "11.0.0"

    where = run(python, "-c", "import goodseed_client; print(goodseed_client.__file__)")
    assert where.stdout.startswith(str(venv))
    # The configuration of the tree would put the tree's client on the path.
    (tmp_path / "pytest.ini").write_text(PYTEST)
    passed = run(
        python, "-m", "pytest", "-c", tmp_path / "pytest.ini", "--rootdir", ROOT,
        "-m", "not slow and not e2e", TESTS,
    )  # fmt: skip
    assert passed.returncode == 0, passed.stdout[-5000:]
