"""What the models say about each test photo: a table with a row for each photo."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow_model_analysis as tfma

from components.objections import objection
from components.passing import challenged
from schemas import features

FILE = "predictions.parquet"  # in the folder of the Evaluator's artifact `evaluation`

# That folder, while the Evaluator runs. TFX calls `custom_extractors` without it, and in a second
# copy of the module components.evaluator, so the folder cannot be a global of that module.
folder: ContextVar[str] = ContextVar("folder")

FIGURES = (features.AGE_LOW, features.AGE_HIGH, features.P_MINOR)


def column(model: str, output: str) -> str:
    """The column with an output of the model whose ages are in the column `model`."""
    return f"{model}_{output}"


def objection_column(model: str) -> str:
    """The column with the objections of the model whose ages are in the column `model`."""
    return column(model, features.OBJECTION)


def answered(evaluation: Path, model: str) -> pa.Table:
    """The rows of FILE to whose photos a model does not object.

    Args:
        evaluation: the folder of FILE.
        model: the column with the model's ages.
    """
    return pq.read_table(evaluation / FILE, filters=[(objection_column(model), "=", "")])


class Write(beam.PTransform):
    """Writes FILE from TFMA's extracts, one for each photo; returns the extracts unchanged.

    The columns are FILE_NAME, PHOTO_ID and `columns`, strings or null; AGE and one column for each
    model, float32, years; the `objection_column` of each model, string, empty without one; and a
    `column` for each of its FIGURES, float32, and for CHALLENGE, bool; null if the model does not
    give it.

    Args:
        folder: the folder for FILE.
        columns: names of further string features.
        models: the name of the column → TFMA's name of the model.
    """

    def __init__(self, folder: str, columns: Sequence[str], models: Mapping[str, str]):
        super().__init__()
        self._file = os.path.join(folder, FILE)
        self._texts = [features.FILE_NAME, features.PHOTO_ID, *columns]
        self._models = models

    def expand(self, extracts: beam.PCollection) -> beam.PCollection:
        """Adds the file to the pipeline."""
        schema = pa.schema(
            [(name, pa.string()) for name in self._texts]
            + [(name, pa.float32()) for name in (features.AGE, *self._models)]
            + [(objection_column(name), pa.string()) for name in self._models]
            + [(column(name, key), pa.float32()) for name in self._models for key in FIGURES]
            + [(column(name, features.CHALLENGE), pa.bool_()) for name in self._models]
        )
        write = beam.io.WriteToParquet(self._file, schema, num_shards=1, shard_name_template="")
        _ = extracts | "Row" >> beam.Map(self._row) | write
        return extracts

    def _row(self, extracts: tfma.Extracts) -> dict[str, Any]:
        found, given = extracts[tfma.FEATURES_KEY], extracts[tfma.PREDICTIONS_KEY]
        by_model = {
            name: given[tfma_name] if tfma_name else given
            for name, tfma_name in self._models.items()
        }
        return {
            **{name: _text(found.get(name)) for name in self._texts},
            features.AGE: _age(found),
            **{name: _age(outputs) for name, outputs in by_model.items()},
            **{objection_column(name): objection(outputs) for name, outputs in by_model.items()},
            **{
                column(name, key): _figure(outputs, key)
                for name, outputs in by_model.items()
                for key in FIGURES
            },
            **{
                column(name, features.CHALLENGE): challenged(outputs)
                for name, outputs in by_model.items()
            },
        }


def _age(values: Any) -> float:
    # If a model has one output only, TFMA drops its name.
    alone = not isinstance(values, Mapping)
    return float(np.ravel(values if alone else values[features.AGE])[0])


def _figure(outputs: Any, key: str) -> float | None:
    known = isinstance(outputs, Mapping) and key in outputs
    return float(np.ravel(outputs[key])[0]) if known else None


def _text(value: Any) -> str | None:
    """The value of a string feature, dense or sparse; None if the example does not have it."""
    values = np.ravel(getattr(value, "values", value)) if value is not None else np.array([])
    return values[0].decode(errors="replace") if len(values) else None
