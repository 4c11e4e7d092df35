"""Makes the artifacts of a run from a table of photos, without a run."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
import tensorflow_data_validation as tfdv
from PIL import Image
from scipy.special import expit
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2

from components import predictions
from components.evaluator import eval_config
from components.gate import CHALLENGE, MAE, MEASURED, REFUSED
from components.photo_example_gen.rejects import Reject, write
from components.review.inputs import Artifact, Inputs, RunFacts
from components.review.page import Cell, Chart, Section, Table, Text, as_cell
from components.trainer.component import HISTORY_FILE, LEFT_OUT_COLUMNS, LEFT_OUT_FILE
from pipeline.config import Config, Data, Evaluator, Guard
from schemas import features
from tests.components import tfma_run
from tests.conftest import ROOT

OBJECTION = predictions.objection_column("candidate")
# Columns of the table that are not from the CSV.
LOW, HIGH, P_MINOR = (predictions.column("candidate", name) for name in predictions.FIGURES)
_OWN_COLUMNS = ("split", "candidate", OBJECTION, LOW, HIGH, P_MINOR)
FACTS = RunFacts("reviewer", "2024-05-01T12:00:00Z", "0.1.0 (abc)", "run-1", "local")
REVIEW: dict[str, Any] = {
    "thumbnails": True,
    "photos": 24,
    "interval_width": 2.0,
    "population": None,
    "min_photos": 30,
    "data_licence": "not stated by the photos' folder",
}
CHALLENGED: dict[str, Any] = {
    "age": 25.0,
    "max_p_minor": 0.0001,
    "certified": True,
    "sentences": ["Customers pass without ID if they look 25 or older."],
    "minors_on_eval": [
        {"youngest": 0, "oldest": 17, "photos": 90, "passed": 1, "max_share": 0.05, "missing": 0}
    ],
    "minors_on_test": [
        {"youngest": 0, "oldest": 17, "photos": 80, "passed": 2, "max_share": 0.05, "missing": 0}
    ],
    "adults_on_test": [{"youngest": 25, "oldest": 34, "photos": 40, "passed": 30}],
}
HISTORY: dict[str, Any] = {
    "parameters": 23_589_761,
    "precision": "bfloat16",
    "stopped": "patience",
    "best_epoch": 2,
    "epochs": [
        {
            "epoch": number,
            "phase": "head" if number == 1 else "whole",
            "loss": 200.0 / number,
            "mae": 12.0 / number,
            "val_loss": 100.0 + abs(number - 2),
            "val_mae": 8.0 + abs(number - 2),
            "learning_rate": 5e-4 / number,
            "seconds": 10.0 * number,
        }
        for number in (1, 2, 3)
    ],
}
HOSTILE = "<script>alert(1)</script>|*x*"


def passes(estimates: pd.Series, p_minor: pd.Series) -> pd.Series:
    """Who passes by the rule of CHALLENGED."""
    return (estimates >= CHALLENGED["age"]) & (p_minor <= CHALLENGED["max_p_minor"])


def photos(count: int = 200, seed: int = 0, **columns: Any) -> pd.DataFrame:
    """Photos in three splits, with larger errors for older people.

    Args:
        count: number of photos.
        seed: seed of the random numbers.
        columns: extra columns.
    """
    random = np.random.default_rng(seed)
    ages = random.uniform(0, 90, count).astype(np.float32)
    table = {
        "split": np.array(features.SPLITS)[random.choice(3, count, p=[0.6, 0.1, 0.3])],
        features.AGE: ages,
        features.AGE_BAND: [features.age_band(age) for age in ages],
        "candidate": ages + random.normal(0, 1 + ages / 10).astype(np.float32),
        OBJECTION: "",
        features.FILE_NAME: [f"final_files/{number}.jpg" for number in range(count)],
        features.PHOTO_ID: [f"{number:064x}" for number in range(count)],
        features.WIDTH: random.integers(100, 400, count),
        features.HEIGHT: random.integers(100, 400, count),
        features.SQUARENESS: random.uniform(0.5, 1, count).astype(np.float32),
        features.FORMAT: random.choice(["JPEG", "PNG"], count, p=[0.9, 0.1]),
        features.MODE: "RGB",
        features.BRIGHTNESS: random.uniform(0.2, 0.8, count).astype(np.float32),
        features.SHARPNESS: random.uniform(50, 1500, count).astype(np.float32),
        **columns,
    }
    found = pd.DataFrame(table)
    estimates = found["candidate"]
    minor = expit(18 - estimates)
    return found.assign(**{LOW: estimates - 9, HIGH: estimates + 9, P_MINOR: minor})


def trained(folder: Path, history: dict[str, Any]) -> Inputs:
    """The inputs of the Review step for a training with this history."""
    (folder / HISTORY_FILE).write_text(json.dumps(history))
    return _inputs({"model_run": Artifact("ModelRun", 1, str(folder), folder, {})})


def _inputs(artifacts: dict[str, Artifact], **settings: Any) -> Inputs:
    config = Config(run_dir="run", data=Data(photos="photos")).model_dump()
    return Inputs(artifacts, {**config, "review": REVIEW | settings}, FACTS)


def run(
    folder: Path,
    table: pd.DataFrame,
    rejects: Sequence[Reject] = (),
    history: dict[str, Any] | None = None,
    **settings: Any,
) -> Inputs:
    """The inputs of the Review step for a run on these photos.

    `settings` are options of the section `review`.
    """
    columns = [name for name in table if name not in (*features.RAW_FEATURES, *_OWN_COLUMNS)]
    statistics(folder / "statistics", table)
    anomalies(folder / "anomalies")
    for name in ("examples", "model_run"):
        (folder / name).mkdir()
    write(rejects, folder / "examples" / "rejects.csv")
    (folder / "model_run" / HISTORY_FILE).write_text(json.dumps(history or HISTORY))
    left_out = table[(table["split"] != features.TEST) & (table[OBJECTION] != "")]
    left_out.rename(columns={OBJECTION: features.OBJECTION}).to_csv(
        folder / "model_run" / LEFT_OUT_FILE, columns=list(LEFT_OUT_COLUMNS), index=False
    )
    schema = (ROOT / "schemas" / "curated.pbtxt").read_text()
    (folder / "schema").mkdir()
    (folder / "schema" / "schema.pbtxt").write_text(schema)
    test = table[table["split"] == features.TEST]
    evaluate(folder / "evaluation", test, columns)
    answered = test[test[OBJECTION] == ""]
    properties: dict[str, dict[str, Any]] = {
        "examples": {
            "extra_columns": json.dumps(columns),
            "extra_values": json.dumps({name: table[name].nunique() for name in columns}),
            "rejects": json.dumps(dict.fromkeys((reject.reason for reject in rejects), 1)),
            "span": 0,
        },
        "evaluation": {
            MAE: float((answered["candidate"] - answered[features.AGE]).abs().mean()),
            MEASURED: len(answered),
            REFUSED: 1 - len(answered) / len(test),
            CHALLENGE: json.dumps(CHALLENGED),
        },
        "blessing": {"blessed": 1},
        "infra_blessing": {"blessed": 1},
        "baseline_model": {"served_version": 0},
        "pushed_model": {"pushed_version": "1795575202"},
    }
    names = (
        "examples", "statistics", "schema", "anomalies", "model_run", "evaluation", "blessing",
        "infra_blessing", "pushed_model", "model", "baseline_model",
    )  # fmt: skip
    artifacts = {
        name: Artifact(name, 1, str(folder / name), folder / name, properties.get(name, {}))
        for name in names
    }
    return _inputs(artifacts, **settings)


def write_test_shard(examples: Path, table: pd.DataFrame) -> None:
    """Writes the raw examples of the test photos: one picture of 200 × 100 pixels for all."""
    jpeg = io.BytesIO()
    Image.new("RGB", (200, 100), (90, 120, 60)).save(jpeg, "JPEG")
    (examples / f"Split-{features.TEST}").mkdir()
    file = examples / f"Split-{features.TEST}" / "data.gz"
    with tf.io.TFRecordWriter(str(file), "GZIP") as writer:
        for photo_id in table.loc[table["split"] == features.TEST, features.PHOTO_ID]:
            example = tf.train.Example()
            values = example.features.feature
            values[features.PHOTO_ID].bytes_list.value.append(photo_id.encode())
            values[features.IMAGE].bytes_list.value.append(jpeg.getvalue())
            writer.write(example.SerializeToString())


def with_settings(inputs: Inputs, **settings: Any) -> Inputs:
    """The same run with other settings of the section `review`."""
    review = inputs.settings["review"] | settings
    return replace(inputs, settings={**inputs.settings, "review": review})


def with_folders(inputs: Inputs, **folders: Path) -> Inputs:
    """The same run with some artifacts in other folders."""
    artifacts = {
        name: replace(inputs.artifacts[name], path=folder) for name, folder in folders.items()
    }
    return replace(inputs, artifacts={**inputs.artifacts, **artifacts})


def with_properties(inputs: Inputs, name: str, properties: dict[str, Any]) -> Inputs:
    """The same run with further properties of an artifact."""
    artifact = inputs.artifacts[name]
    changed = replace(artifact, properties={**artifact.properties, **properties})
    return replace(inputs, artifacts={**inputs.artifacts, name: changed})


def anomalies(folder: Path, **descriptions: str) -> None:
    """Anomalies as ExampleValidator writes them: by feature, all in the split eval."""
    for split in features.SPLITS:
        found = anomalies_pb2.Anomalies()
        if split == features.EVAL:
            for feature, description in descriptions.items():
                found.anomaly_info[feature].description = description
        file = folder / f"Split-{split}" / "SchemaDiff.pb"
        file.parent.mkdir(parents=True)
        file.write_bytes(found.SerializeToString())


def statistics(folder: Path, table: pd.DataFrame) -> None:
    """Statistics as StatisticsGen writes them: of all photos of a split, and of each span in it."""
    for split in features.SPLITS:
        rows = table[table["split"] == split].drop(columns=list(_OWN_COLUMNS))
        every = _described(rows)
        if "span" in rows:
            every.datasets[0].name = "All Examples"
            for span, some in rows.groupby("span"):
                every.datasets.append(_described(some).datasets[0])
                every.datasets[-1].name = f"span_{span}"
        file = folder / f"Split-{split}" / "FeatureStats.pb"
        file.parent.mkdir(parents=True)
        file.write_bytes(every.SerializeToString())


def _described(rows: pd.DataFrame) -> statistics_pb2.DatasetFeatureStatisticsList:
    return tfdv.generate_statistics_from_dataframe(rows, n_jobs=1)


def evaluate(folder: Path, test: pd.DataFrame, columns: Sequence[str]) -> None:
    """Writes TFMA's metrics by age band, column and both, and the estimate of each photo."""
    config = eval_config(Evaluator(), Guard(), legal_age=18)
    for column in columns:
        config.slicing_specs.add(feature_keys=[column])
        config.slicing_specs.add(feature_keys=[features.AGE_BAND, column])
    asked = (test[OBJECTION] != "") | ~passes(test["candidate"], test[P_MINOR])
    photos = [
        tfma_run.extracts(
            row[features.AGE],
            tfma_run.outputs(row["candidate"], row[OBJECTION], asked[at]),
            **{column: row[column] for column in columns},
        )
        for at, row in test.iterrows()
    ]
    tfma_run.evaluate(folder, photos, config)
    names = [features.FILE_NAME, features.PHOTO_ID, features.AGE_BAND, *columns]
    test[[*names, features.AGE, "candidate", OBJECTION, LOW, HIGH, P_MINOR]].to_parquet(
        folder / predictions.FILE
    )


def tables(section: Section) -> dict[str, list[dict[str, Any]]]:
    """The tables of a section by caption; each row by column."""
    return {
        block.caption: [
            {
                column: cell if isinstance(cell, Cell) else as_cell(cell)
                for column, cell in zip(block.columns, row, strict=True)
            }
            for row in block.rows
        ]
        for block in section.blocks
        if isinstance(block, Table)
    }


def charts(section: Section) -> dict[str, Chart]:
    """The charts of a section by title."""
    return {block.title: block for block in section.blocks if isinstance(block, Chart)}


def text_of(section: Section) -> str:
    """The paragraphs of a section."""
    texts = [block.paragraphs for block in section.blocks if isinstance(block, Text)]
    return "\n".join(paragraph for paragraphs in texts for paragraph in paragraphs)
