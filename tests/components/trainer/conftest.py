"""What the Trainer's tests share: photos that TFX's Transform has transformed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from tfx.components.transform import executor
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.types import Channel, artifact_utils, standard_artifacts

from components.transform import transform
from schemas import features
from tests.components.trainer import tiny
from tests.conftest import ROOT

# (height, width): square, wide, tall, tiny, smaller than the result, with odd sides.
SHAPES = [(64, 64), (48, 200), (180, 60), (5, 7), (20, 33), (131, 97), (33, 32), (240, 320)]
COUNTS = {features.TRAIN: 24, features.EVAL: 8, features.TEST: 8}


@dataclass(frozen=True)
class Transformed:
    """Photos of many sizes, before and after Transform."""

    raw: Path  # has a folder Split-… of raw examples for each split
    examples: Path  # the same photos, transformed
    graph: Path

    def files(self, split: str) -> list[str]:
        """The patterns that TFX gives to a run_fn."""
        return [f"{self.examples}/Split-{split}/*"]


@pytest.fixture(scope="session")
def transformed(tmp_path_factory: pytest.TempPathFactory) -> Transformed:
    """Drawn photos, transformed by TFX's Transform."""
    folder = tmp_path_factory.mktemp("transformed")
    first = 0
    for split, count in COUNTS.items():
        records = []
        for number in range(first, first + count):
            age = number * 37 % 90
            jpeg = tiny.photo(SHAPES[number % len(SHAPES)], age, number)
            records.append(tiny.example(jpeg, age, f"{number}"))
        first += count
        tiny.write(folder / "raw" / f"Split-{split}" / "data.gz", records)
    curated = ROOT / "schemas" / "curated.pbtxt"
    (folder / "schema").mkdir()
    (folder / "schema" / "schema.pbtxt").write_text(curated.read_text())

    raw, schema = standard_artifacts.Examples(), standard_artifacts.Schema()
    raw.uri, schema.uri = str(folder / "raw"), str(folder / "schema")
    raw.split_names = artifact_utils.encode_split_names(list(features.SPLITS))
    graph, examples = standard_artifacts.TransformGraph(), standard_artifacts.Examples()
    graph.uri, examples.uri = str(folder / "graph"), str(folder / "examples")
    step = transform(
        Channel(type=standard_artifacts.Examples),
        Channel(type=standard_artifacts.Schema),
        tiny.PREPROCESSING,
    )
    executor.Executor(BaseBeamExecutor.Context(beam_pipeline_args=[])).Do(
        {"examples": [raw], "schema": [schema]},
        {"transform_graph": [graph], "transformed_examples": [examples]},
        step.exec_properties,
    )
    return Transformed(folder / "raw", folder / "examples", folder / "graph")
