"""Our distributions are always installed from this tree.

No public index has them, so a stranger could publish packages under their names.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

OURS = re.compile(r"goodseed([-_.]\w+)*", re.IGNORECASE)


def requirement_names(lock: str) -> list[str]:
    return re.findall(r"^([\w.-]+) *(?:\[.*?\])?(?:==| @ )", lock, re.MULTILINE)


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-gpu.lock"])
def test_no_lock_file_names_our_distributions(name: str) -> None:
    names = requirement_names((ROOT / name).read_text())
    assert names
    assert not list(filter(OURS.fullmatch, names))


def commands(file: str) -> Iterator[list[str]]:
    """The commands of a script, with continued lines joined."""
    text = (ROOT / file).read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if "install" in line and not line.lstrip().startswith("#"):
            yield shlex.split(line, comments=True)


@pytest.mark.parametrize(
    ("file", "folders"),
    [("bootstrap.sh", {".", "serving/client"}), ("Dockerfile", {"/src", "/src/serving/client"})],
)
def test_set_up_and_image_install_both_from_the_tree(file: str, folders: set[str]) -> None:
    (command,) = (words for words in commands(file) if folders <= set(words))
    assert "--no-deps" in command
