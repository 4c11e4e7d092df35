"""A run's artifacts without the run: TFDV's statistics and TFMA's evaluation of a table of photos."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow_data_validation as tfdv
import tensorflow_model_analysis as tfma
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2

from components.evaluator import age_bands, eval_config
from components.photo_example_gen.rejects import Reject, write
from components.review.inputs import Artifact, Inputs, RunFacts
from pipeline.config import Config
from schemas import features

_NO_COLUMNS = ("split", "candidate", features.AGE_BAND)  # beside the raw features
FACTS = RunFacts("reviewer", "2024-05-01T12:00:00Z", "0.1.0 (abc)", "run-1", "local")
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


def photos(count: int = 200, seed: int = 0, **columns: Any) -> pd.DataFrame:
    """Photos in three splits; the older, the more an estimate is off. More columns may be given."""
    random = np.random.default_rng(seed)
    ages = random.uniform(0, 90, count).astype(np.float32)
    table = {
        "split": np.array(features.SPLITS)[random.choice(3, count, p=[0.6, 0.1, 0.3])],
        features.AGE: ages,
        features.AGE_BAND: [band.decode() for band in age_bands(ages)],
        "candidate": ages + random.normal(0, 1 + ages / 10).astype(np.float32),
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
    return pd.DataFrame(table)


def run(
    folder: Path,
    table: pd.DataFrame,
    rejects: Sequence[Reject] = (),
    history: dict[str, Any] | None = None,
    **settings: Any,
) -> Inputs:
    """What the Review step would read of a run on these photos; settings are of `review`."""
    columns = [name for name in table if name not in (*features.RAW_FEATURES, *_NO_COLUMNS)]
    _statistics(folder / "statistics", table)
    for split in features.SPLITS:
        file = folder / "anomalies" / f"Split-{split}" / "SchemaDiff.pb"
        file.parent.mkdir(parents=True)
        file.write_bytes(anomalies_pb2.Anomalies().SerializeToString())
    for name in ("examples", "model_run"):
        (folder / name).mkdir()
    write(rejects, folder / "examples" / "rejects.csv")
    (folder / "model_run" / "history.json").write_text(json.dumps(history or HISTORY))
    evaluate(folder / "evaluation", table[table["split"] == features.TEST], columns)
    properties: dict[str, dict[str, Any]] = {
        "examples": {
            "passengers": json.dumps(columns),
            "rejects": json.dumps(dict.fromkeys((reject.reason for reject in rejects), 1)),
            "span": 0,
        },
        "blessing": {"blessed": 1},
        "infra_blessing": {"blessed": 1},
        "pushed_model": {"pushed_version": "1795575202"},
    }
    return Inputs(
        artifacts={
            name: Artifact(name, 1, str(folder / name), folder / name, properties.get(name, {}))
            for name in (
                "examples", "statistics", "anomalies", "model_run", "evaluation", "blessing",
                "infra_blessing", "pushed_model",
            )  # fmt: skip
        },
        settings=Config(run_dir="run", data={"photos": "photos"}, review=settings).model_dump(),
        run=FACTS,
    )


def _statistics(folder: Path, table: pd.DataFrame) -> None:
    """As StatisticsGen leaves them: of all photos of a split, and of each span in it."""
    for split in features.SPLITS:
        rows = table[table["split"] == split].drop(columns=["split", "candidate"])
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
    """TFMA's metrics as the Evaluator has them computed, by age band, column and both."""
    config = eval_config(max_mae=8.0, max_mae_increase=0.25)
    del config.model_specs[:]
    config.model_specs.add(label_key=features.AGE, prediction_key="candidate")
    for column in columns:
        config.slicing_specs.add(feature_keys=[column])
        config.slicing_specs.add(feature_keys=[features.AGE_BAND, column])
    config.metrics_specs[0].metrics[0].ClearField("per_slice_thresholds")
    tfma.analyze_raw_data(test, config, str(folder))
