"""The table of the gate's bounds."""

from __future__ import annotations

import json
from pathlib import Path

from scipy.stats import binomtest

from components.gate import COMPARISON
from components.review import decision
from components.review.page import Cell, Verdict
from schemas import features
from tests.components.review import synthetic


def test_a_bound_that_is_not_met(tmp_path: Path) -> None:
    table = synthetic.photos(200)
    table["candidate"] = table[features.AGE] + 9.0
    chosen = table.index[table["split"] == features.TEST]
    test, refused = len(chosen), chosen[:6]
    table.loc[refused, ["candidate", synthetic.OBJECTION]] = [99.0, features.NO_FACE]
    interval = binomtest(6, test).proportion_ci(0.95, "wilson")
    inputs = synthetic.run(tmp_path, table)
    rows = [
        [cell.text if isinstance(cell, Cell) else cell for cell in row]
        for row in decision.thresholds(inputs)
    ]
    photos = str(test - 6)
    assert rows[0] == [
        "MAE, years",
        "9.00 (9.00 to 9.00)",
        "at most 8.00",
        "-1.00",
        photos,
        "not met",
    ]
    assert rows[1] == ["photos", photos, "at least 30", f"{int(photos) - 30:+}", photos, "met"]
    assert rows[2] == [
        "refused, share of all photos",
        f"{6 / test:.1%} ({interval.low:.1%} to {interval.high:.1%})",
        "at most 5.0%",
        f"{0.05 - 6 / test:+.1%}",
        str(test),
        "not met",
    ]
    assert len(rows) == 4  # no model is live; the last row is the model server's
    assert decision.reasons(inputs) == [
        "MAE 9.00 years is above the bound of 8.00.",
        f"The model refuses {6 / test:.1%} of the test photos, which is above the bound of 5.0% "
        "(guard.max_refused_test).",
    ]


def test_the_comparison_with_the_live_model(tmp_path: Path) -> None:
    inputs = synthetic.run(tmp_path, synthetic.photos(100))
    compared = {
        "mae": {"photos": 40, "difference": 0.3, "lower": 0.12},
        "minors": {"photos": 1, "difference": None, "lower": None},
    }
    inputs = synthetic.with_properties(inputs, "evaluation", {COMPARISON: json.dumps(compared)})
    rows = [
        [cell.text if isinstance(cell, Cell) else cell for cell in row]
        for row in decision.thresholds(inputs)
    ]
    name = ", this model minus the live model, photo by photo"
    assert rows[-3:-1] == [
        ["MAE, years" + name, "+0.30 (at least +0.12, 95 % sure)", "not surely above 0",
         "-0.12", "40", "not met"],
        ["minors who pass without ID" + name, "too few to say", "–", "–", "1", "–"],
    ]  # fmt: skip
    assert decision.reasons(inputs) == [
        "MAE is 0.30 years worse than the live model's on the same 40 photos, and at least 0.12 "
        "(95 % sure)."
    ]


def test_the_challenge_age_comes_first(tmp_path: Path) -> None:
    section = decision.section(synthetic.run(tmp_path, synthetic.photos(100)))
    verdicts = [block for block in section.blocks if isinstance(block, Verdict)]
    assert verdicts[1] == Verdict("Customers pass without ID if they look 25 or older.", True)
    rows = synthetic.tables(section)["Who passes without ID"]
    assert [[cell.text for cell in row.values()] for row in rows] == [
        ["below 18", "eval", "90", "1", "1.1% (0.2% to 6.0%)", "5%"],
        ["below 18", "test", "80", "2", "2.5% (0.7% to 8.7%)", "5%"],
        ["25 to 34", "test", "40", "30", "75.0% (59.8% to 85.8%)", "–"],
    ]
