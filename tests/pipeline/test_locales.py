"""The command in locales whose encoding is not UTF-8: its files are in UTF-8 all the same."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, goodseed_command
from tests.pipeline.conftest import arguments

CHARSETS = {
    "C": "ascii", "en_US.ISO-8859-1": "iso8859-1", "ru_RU.KOI8-R": "koi8-r",
    "ja_JP.EUC-JP": "euc_jp",
}  # fmt: skip
SHOP = "магазин – ¥ é"  # no charset of these has all of it


@pytest.fixture(scope="session", params=CHARSETS)
def locale(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The environment of a process in this locale."""
    name, folder = request.param, tmp_path_factory.mktemp("locales")
    if "." in name:
        language, charset = name.split(".")
        make = ["localedef", "-i", language, "-f", charset, str(folder / name)]
        if not shutil.which("localedef") or subprocess.run(make, capture_output=True).returncode:
            pytest.skip("needs localedef and the sources of the locales")
    python = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # otherwise, "C" means UTF-8
    environment = {**os.environ, "LOCPATH": str(folder), "LC_ALL": name, **python}
    environment.pop("PYTHONIOENCODING", None)
    program = [sys.executable, "-c", "import sys; print(sys.getfilesystemencoding())"]
    assert subprocess.check_output(program, env=environment).split() == [CHARSETS[name].encode()]
    return environment


def run(environment: dict[str, str], *words: str) -> tuple[int, str, str]:
    """The exit status of `goodseed`, its output and its errors."""
    charset = CHARSETS[environment["LC_ALL"]]
    done = subprocess.run(
        goodseed_command(*words), cwd=ROOT, env=environment, capture_output=True, timeout=600
    )
    return done.returncode, done.stdout.decode(charset), done.stderr.decode(charset)


def test_what_the_terminal_cannot_show_is_replaced(locale: dict[str, str]) -> None:
    status, out, err = run(locale, "config", "--profile", "demo")
    assert (status, err) == (0, "")
    assert "Width ? height" in out.replace("×", "?")


@pytest.mark.slow
def test_a_failed_step_is_one_line(locale: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "photos" / "final_files").mkdir(parents=True)
    labels = tmp_path / "photos" / "labels.csv"
    labels.write_text(f"file_name,real_age\n{SHOP}.jpg,33\n", "utf-8")
    status, _, err = run(locale, *arguments(tmp_path / "photos", tmp_path / "run"))
    assert status == 1
    assert err.startswith("goodseed: PhotoExampleGen: ") and len(err.splitlines()) == 2
    summary = json.loads((tmp_path / "run" / "summary.json").read_text("utf-8"))
    assert "rejected" in summary["failure"]


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.parametrize("locale", ["ru_RU.KOI8-R"], indirect=True)
def test_a_whole_run(locale: dict[str, str], drawn_photos: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(drawn_photos, photos)
    with (photos / "labels.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    with (photos / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([[*header, "shop"], *([*row, SHOP] for row in rows)])
    status, out, err = run(locale, *arguments(photos, tmp_path / "run"))
    assert (status, err) == (0, "")
    assert "pushed version" in out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text("utf-8"))
    assert SHOP in Path(summary["review"]).read_text("utf-8")
