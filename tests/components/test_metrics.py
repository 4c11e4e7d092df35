"""Errors are the same however the photos are shared out among workers."""

from __future__ import annotations

from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import tensorflow_model_analysis as tfma
from apache_beam.options.pipeline_options import PipelineOptions
from hypothesis import given
from hypothesis import strategies as st
from tfx_bsl.arrow import table_util

from components.evaluator import eval_config
from components.metrics import AbsoluteError, SquaredError
from pipeline.config import Beam, Evaluator
from pipeline.graph import beam_args
from schemas import features

PAIRS = st.lists(st.tuples(st.floats(0, 120, width=32), st.floats(0, 120, width=32)), min_size=1)


@given(st.lists(PAIRS, min_size=1, max_size=5))
def test_shares_are_counted_once(shares: list[list[tuple[float, float]]]) -> None:
    ages, given_ = np.array([pair for share in shares for pair in share]).T
    errors = given_ - ages
    for metric, expected in (
        (AbsoluteError(), np.abs(errors).mean()),
        (SquaredError(), np.square(errors).mean()),
    ):
        (found,) = metric.computations()
        accumulators = []
        for share in shares:
            accumulator = found.combiner.create_accumulator()
            for age, estimate in share:
                photo = tfma.metrics.StandardMetricInputs(
                    labels=np.array([age]), predictions=np.array([estimate])
                )
                accumulator = found.combiner.add_input(accumulator, photo)
            accumulators.append(accumulator)
        merged = found.combiner.merge_accumulators(accumulators)
        assert found.combiner.extract_output(merged) == {
            found.keys[0]: pytest.approx(expected, rel=1e-6, abs=1e-9)
        }


def test_two_threads_make_the_same_of_the_photos(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    ages = random.uniform(0, 90, 400).astype(np.float32)
    estimates = ages + random.normal(0, 8, 400).astype(np.float32)
    bands = [features.age_band(age) for age in ages]
    batches = [
        table_util.CanonicalizeRecordBatch(
            pa.RecordBatch.from_pydict(
                {
                    features.AGE: ages[at : at + 20],
                    "estimate": estimates[at : at + 20],
                    features.AGE_BAND: bands[at : at + 20],
                }
            )
        )
        for at in range(0, 400, 20)
    ]
    config = eval_config(Evaluator())
    del config.model_specs[:]
    config.model_specs.add(label_key=features.AGE, prediction_key="estimate")
    config.metrics_specs[0].metrics[0].ClearField("per_slice_thresholds")
    options = PipelineOptions(beam_args(Beam(mode="multi_threading", workers=2)))
    with beam.Pipeline(options=options) as pipeline:
        _ = (
            pipeline
            | beam.Create(batches)
            | tfma.ExtractEvaluateAndWriteResults(eval_config=config, output_path=str(tmp_path))
        )
    errors = np.abs(estimates - ages)
    for key, metrics in tfma.load_eval_result(str(tmp_path)).slicing_metrics:
        inside = np.array([not key or key[0][1] == band for band in bands])
        mae = metrics[""][""]["mean_absolute_error"]["doubleValue"]
        mse = metrics[""][""]["mean_squared_error"]["doubleValue"]
        assert mae == pytest.approx(errors[inside].mean(), rel=1e-5), key
        assert mse == pytest.approx(np.square(errors[inside]).mean(), rel=1e-5), key
