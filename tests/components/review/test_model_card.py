"""The model card has no empty fields, and its figures are those of the evaluation."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import tensorflow_model_analysis as tfma
from markdown_it import MarkdownIt

from components.review import decision, model_card
from components.review.evaluation import read
from components.review.inputs import Inputs, RunFacts
from schemas import features
from tests.components.review import synthetic

HEADINGS = [  # as in Mitchell et al. 2019, plus the out-of-scope uses
    "Model details", "Intended use", "Out-of-scope uses", "Factors", "Metrics", "Evaluation data",
    "Training data", "Quantitative analyses", "Ethical considerations",
    "Caveats and recommendations", "Age assurance practice statement",
]  # fmt: skip
# As in ISO/IEC 27566-1, in the last section.
STATEMENT = ["Functionality", "Performance", "Privacy", "Security", "Acceptability"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    columns: dict[str, Any] = {
        "gender": ["female", "male"] * 150,
        "store": [synthetic.HOSTILE] * 300,
    }
    return synthetic.run(tmp_path_factory.mktemp("run"), synthetic.photos(300, **columns))


def as_html(card: str) -> str:
    """The card as HTML."""
    html: str = MarkdownIt("commonmark", {"html": True}).enable("table").render(card)
    return html


def assert_no_empty_fields(card: str) -> None:
    assert not re.search(r"\bNone\b|\bnan\b|\{\{|\}\}|\{%|: *$|\(\)", card, re.MULTILINE), card
    html = as_html(card)
    assert not re.search(r"<(li|td|th|p|h\d)[^>]*>\s*</", html), html


def test_headings_and_no_empty_fields(inputs: Inputs) -> None:
    card = model_card.markdown(inputs)
    assert re.findall(r"^## (.*)$", card, re.MULTILINE) == HEADINGS
    assert re.findall(r"^### (.*)$", card, re.MULTILINE) == STATEMENT
    assert "Customers pass without ID if they look 25 or older" in card
    assert_no_empty_fields(card)


def test_the_figures_are_those_of_the_evaluation(inputs: Inputs) -> None:
    card = model_card.markdown(inputs)
    folder = inputs.artifacts["evaluation"].path
    result = tfma.load_eval_result(str(folder))
    for slice_key, name in (
        ((), ""),
        (((features.AGE_BAND, "65+"),), "65+"),
        ((("gender", "female"),), "gender female"),
    ):
        value = result.get_metrics_for_slice(slice_key)["mean_absolute_error"]["doubleValue"]
        mae = read(folder)[slice_key]["mean_absolute_error"]
        expected = rf"{re.escape(name)}[^\n]* {value:.2f} \({mae.low:.2f} to {mae.high:.2f}\)"
        assert re.search(expected, card), (name, expected)


def test_nothing_from_the_csv_is_markup(inputs: Inputs) -> None:
    card = model_card.markdown(inputs)
    assert "<" not in card
    html = as_html(card)
    assert "store &lt;script&gt;alert(1)&lt;/script&gt;|*x*" in html


def test_a_run_with_few_facts(inputs: Inputs, tmp_path: Path) -> None:
    few = synthetic.run(
        tmp_path, synthetic.photos(12, seed=1), history={"best_epoch": 1, "epochs": [{}]}
    )
    artifacts = {
        name: dataclasses.replace(artifact, properties={})
        for name, artifact in few.artifacts.items()
        if name not in ("pushed_model", "infra_blessing")
    }
    facts = RunFacts(who="", when="", code="", run_id="", host="")
    card = model_card.markdown(dataclasses.replace(few, artifacts=artifacts, run=facts))
    assert "- Run: not recorded\n" in card and "- Started by: not recorded\n" in card
    assert_no_empty_fields(card)
    assert "none, because the model was not pushed" in card
    assert "Decision of the gate: not passed" in card
    assert "no groups to compare" in card
    assert "not stated by the photos' folder" in card


@pytest.mark.parametrize(
    ("columns", "said"),
    [('["span"]', "up to span 0"), ('["store"]', "none; all photos are in one folder")],
)
def test_span_0_is_a_span(inputs: Inputs, columns: str, said: str) -> None:
    spans = synthetic.with_properties(inputs, "examples", {"extra_columns": columns, "span": 0})
    assert f"Spans (folders of newer photos): {said}" in model_card.markdown(spans)
    tables = synthetic.tables(decision.section(spans))
    lineage = next(rows for caption, rows in tables.items() if caption.startswith("Lineage"))
    content = f"the photos, {said}" if "span" in columns else "the photos"
    assert lineage[0]["content"].text == content
