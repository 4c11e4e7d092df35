"""`goodseed review`: what it serves, and the page of a real run in a real browser."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tensorflow_model_analysis as tfma
from ml_metadata.proto import metadata_store_pb2

from components.gate import MAE
from components.review import PAGE_TYPE
from components.review.slices import label
from pipeline.local.store import metadata_store
from tests.browser import Browser
from tests.conftest import ROOT, goodseed_command
from tests.pipeline.conftest import Command, First


@contextmanager
def served(*arguments: str | Path) -> Iterator[str]:
    """The URL that `goodseed review` serves at."""
    command = goodseed_command("review", *arguments)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield process.stdout.readline().split()[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    finally:
        process.kill()
        process.wait()


def rows(browser: Browser) -> list[list[str]]:
    """The cells of the table of all slices."""
    found: list[list[str]] = browser.run(
        "return [...document.querySelectorAll('#slices table.interactive tbody tr')]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    return found


def columns(browser: Browser) -> list[str]:
    found: list[str] = browser.run(
        "return [...document.querySelectorAll('#slices table.interactive thead th')]"
        ".map((cell) => cell.textContent.trim())"
    )
    return found


@pytest.mark.e2e
@pytest.mark.parametrize("width", [375, 1440])
def test_accessibility(browser: Browser, first: First, width: int) -> None:
    browser.open(Path(first[2]["review"]), width)
    assert browser.console_messages() == []
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.accessibility_violations() == []


@pytest.mark.e2e
def test_the_figures_are_those_of_tfma(browser: Browser, first: First) -> None:
    browser.open(Path(first[2]["review"]))
    (folder,) = (first[0] / "artifacts" / "Evaluator" / "evaluation").iterdir()
    result = tfma.load_eval_result(str(folder))
    at = columns(browser).index("MAE, years")
    shown = {row[0]: row for row in rows(browser)}
    assert len(shown) == len(result.slicing_metrics)
    for key, metrics in result.slicing_metrics:
        value, count = (metrics[""][""][n]["doubleValue"] for n in (MAE, "example_count"))
        expected = rf"{value:.2f}\b" if count else "–"  # all its photos may be refused
        assert re.match(expected, shown[label(key)][at])
        assert shown[label(key)][2] == f"{count:.0f}"
    decision = browser.run("return document.querySelector('#decision .verdict').textContent")
    assert f"pushed as version {first[2]['pushed_version']}" in decision
    assert f"{first[2]['gate']['value']:.2f}" in browser.run(
        "return document.querySelector('#decision').textContent"
    )


@pytest.mark.e2e
def test_slices_are_sorted_and_filtered(browser: Browser, first: First) -> None:
    browser.open(Path(first[2]["review"]))
    header = "document.querySelectorAll('#slices table.interactive thead th')[2]"
    browser.run(f"{header}.querySelector('[role=button]').click()")
    counts = [int(row[2]) for row in rows(browser)]
    assert counts == sorted(counts)
    browser.run(
        "const select = document.querySelector('#slices select'); select.value = 'age × gender';"
        "select.dispatchEvent(new Event('change'))"
    )
    assert {row[1] for row in rows(browser)} == {"age × gender"}


@pytest.mark.e2e
def test_printing_keeps_every_table(browser: Browser, first: First) -> None:
    browser.open(Path(first[2]["review"]))
    captions = browser.run("return [...document.querySelectorAll('caption')].map(c => c.innerText)")
    names = [row[0] for row in rows(browser)]
    printed = " ".join(browser.printed().split())
    for text in [*captions, *names]:
        assert " ".join(text.split()) in printed


@pytest.mark.e2e
def test_two_runs_side_by_side(browser: Browser, first: First, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(first[0], other, symlinks=True)
    with served(first[0], "--compare", other) as url:
        browser.open(url)
        assert browser.console_messages() == [] == browser.accessibility_violations()
        named = columns(browser)
        mine, theirs = (named.index(f"{run}: MAE, years") for run in (first[0], other))
        found = rows(browser)
        assert all(row[mine] == row[theirs] for row in found)
        compared = [row for row in found if row[mine] != "–"]  # all photos may be refused
        assert compared and all(row[-1].startswith("+0.00") for row in compared)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """The folder of a run, as far as `goodseed review` reads it."""
    page = tmp_path / "artifacts" / "Review"
    page.mkdir(parents=True)
    (page / "index.html").write_text("<!doctype html>")
    (page / "suspects.csv").write_text("file_name,age\n")
    store = metadata_store(tmp_path / "metadata.db")
    kind = store.put_artifact_type(metadata_store_pb2.ArtifactType(name=PAGE_TYPE))
    live = metadata_store_pb2.Artifact.LIVE
    artifact = metadata_store_pb2.Artifact(type_id=kind, uri=str(page), state=live)
    store.put_artifacts([artifact])
    return tmp_path


def test_the_server_gives_the_page_and_nothing_else(run_dir: Path, command: Command) -> None:
    with served(run_dir) as url:
        with urllib.request.urlopen(url) as answer:
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.read() == b"<!doctype html>"
        with urllib.request.urlopen(f"{url}suspects.csv") as answer:
            assert answer.read().startswith(b"file_name,")
        for path in ("../", "%2e%2e/%2e%2e/", "/"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"{url}{path}etc/passwd")
        port = url.rsplit(":", 1)[1].strip("/")
        taken = command("review", run_dir, "--port", port)
        assert taken.status == 2 and f"goodseed: port {port}: " in taken.err


def test_a_page_is_found_without_tfx(run_dir: Path) -> None:
    """The import of TFX takes many seconds."""
    program = (
        "import sys, pathlib, pipeline.local.reviews as reviews; "
        "print(reviews.newest(pathlib.Path(sys.argv[1])), {'tfx', 'tensorflow'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(run_dir)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"{run_dir / 'artifacts' / 'Review'} set()\n"


def test_a_folder_without_a_run_is_one_line(tmp_path: Path, command: Command) -> None:
    said = command("review", tmp_path)
    assert said.status == 2
    assert said.err == (
        f"goodseed: {tmp_path} is not the folder of a run: name the --run-dir of a run\n"
    )
