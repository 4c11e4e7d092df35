"""TFMA's metrics and their intervals."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import config_pb2

from components.evaluator import ALL_PHOTOS, COUNT
from components.gate import MAE, REFUSED
from components.intervals import Figure, share
from components.review.evaluation import MEAN_ERROR, OVERALL, absolute_errors, read
from schemas import features
from tests.components.review import synthetic


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("run")
    photos = synthetic.photos(400, gender=["female", synthetic.HOSTILE] * 200)
    test = photos[photos["split"] == features.TEST]
    synthetic.evaluate(folder, test, ["gender"])
    return folder, test


def test_the_metrics_are_those_of_tfma(evaluated: tuple[Path, pd.DataFrame]) -> None:
    folder, photos = evaluated
    errors = photos["candidate"] - photos[features.AGE]
    overall = read(folder)[OVERALL]
    metrics = tfma.load_eval_result(str(folder)).get_metrics_for_slice()
    assert overall[MAE].value == metrics[MAE]["doubleValue"]
    assert overall[MAE].value == pytest.approx(errors.abs().mean())
    assert overall[MEAN_ERROR].value == pytest.approx(errors.mean(), abs=1e-4)
    assert 0 <= overall[MAE].low < overall[MAE].value < overall[MAE].high


def test_photos_with_an_objection_have_no_error(tmp_path: Path) -> None:
    photos = synthetic.photos(200)
    children = photos[features.AGE_BAND] == "0–12"
    photos.loc[children, synthetic.OBJECTION] = features.SMALL_FACE
    synthetic.evaluate(tmp_path, photos, [])
    found, refused = read(tmp_path), int(children.sum())
    overall, band = found[OVERALL], found[((features.AGE_BAND, "0–12"),)]
    answered = photos[~children]
    errors = (answered["candidate"] - answered[features.AGE]).abs()
    assert overall[MAE].value == pytest.approx(errors.mean())
    assert (overall[COUNT].value, overall[ALL_PHOTOS].value) == (200 - refused, 200)
    assert overall[REFUSED] == share(refused, 200)
    # TFMA says that the error of no photo is 0.
    assert math.isnan(band[MAE].value) and math.isnan(band[MEAN_ERROR].value)
    assert band[REFUSED].value == 1 and band[ALL_PHOTOS].value == refused
    assert len(absolute_errors(tmp_path)) == 200 - refused


@pytest.mark.slow
def test_intervals_that_tfma_computed_are_read(tmp_path: Path) -> None:
    """Also for a metric that our code does not know."""
    photos = pd.DataFrame({"age": [1.0, 2, 30, 60] * 30, "candidate": [2.0, 2, 25, 66] * 30})
    config = config_pb2.EvalConfig(slicing_specs=[config_pb2.SlicingSpec()])
    config.model_specs.add(label_key="age", prediction_key="candidate")
    config.options.compute_confidence_intervals.value = True
    names = ("MeanAbsoluteError", "ExampleCount", "SquaredPearsonCorrelation")
    config.metrics_specs.add(metrics=[config_pb2.MetricConfig(class_name=n) for n in names])
    result = tfma.analyze_raw_data(photos, config, str(tmp_path))
    bounded = {
        name: value["boundedValue"]
        for name, value in result.get_metrics_for_slice().items()
        if "boundedValue" in value
    }
    assert set(bounded) == {MAE, "squared_pearson_correlation"}
    found = read(tmp_path)[OVERALL]
    for name, bounds in bounded.items():
        assert found[name] == Figure(bounds["value"], bounds["lowerBound"], bounds["upperBound"])
    assert found[COUNT].value == 120


def test_outputs_and_sub_keys_are_parts_of_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = {"": {"": {"m": {"doubleValue": "NaN"}}, "k": {"m": {"bytesValue": "eA=="}}},
               "age": {"": {"m": {"doubleValue": 2.0}}}}  # fmt: skip
    result = SimpleNamespace(slicing_metrics=[((), metrics)])
    monkeypatch.setattr(tfma, "load_eval_result", lambda *_, **__: result)
    found = {name: figure.value for name, figure in read(Path())[OVERALL].items()}
    assert found.keys() == {"m", "m k", "m age"} and found["m age"] == 2
    assert math.isnan(found["m"]) and math.isnan(found["m k"])
