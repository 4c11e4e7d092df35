"""Each step gets its whole section of the configuration: no knob is declared twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tfx.dsl.compiler import compiler

from pipeline.config import Data, load
from pipeline.graph import create_pipeline
from pipeline.kubeflow import plan


def test_steps_get_their_sections(tmp_path: Path) -> None:
    loaded = load(
        profile="demo", photos=str(tmp_path), run_dir=str(tmp_path),
        overrides=["data.train_share=0.5", "transform.jpeg_quality=80", "evaluator.max_mae=7.5",
                   "trainer.seed=3"],
    )  # fmt: skip
    given = {step.id: step.exec_properties for step in create_pipeline(loaded).components}
    data = Data.model_validate_json(given["PhotoExampleGen"]["data"])
    assert data == loaded.data.model_copy(update={"appa_crops": "full"})
    custom = json.loads(given["Transform"]["custom_config"])
    assert custom.items() >= loaded.transform.model_dump().items()
    gate = json.loads(given["Evaluator"]["eval_config"])["metrics_specs"][0]["metrics"][0]
    bound = gate["per_slice_thresholds"][0]["threshold"]["value_threshold"]["upper_bound"]
    assert bound == 7.5
    assert json.loads(given["Review"]["settings"]) == loaded.model_dump(
        mode="json", exclude={"kubeflow"}
    )


@pytest.mark.parametrize(
    ("overrides", "crops"),
    [
        (["transform.face=find"], "full"),
        (["transform.face=as_is"], "faces"),
        (["transform.face=as_is", "data.appa_crops=full"], "full"),
    ],
)
def test_which_of_appa_reals_pictures(tmp_path: Path, overrides: list[str], crops: str) -> None:
    loaded = load(profile="demo", photos=str(tmp_path), run_dir=str(tmp_path), overrides=overrides)
    first = create_pipeline(loaded).components[0]
    assert Data.model_validate_json(first.exec_properties["data"]).appa_crops == crops


def test_the_cache_does_not_look_at_where_beam_works(tmp_path: Path) -> None:
    """TFX puts Beam's arguments into the key of its cache, and KFP the whole part of a node."""
    (tmp_path / "final_files").mkdir()
    (tmp_path / "labels.csv").write_text("file_name,real_age\n")

    def compiled(*overrides: str) -> list[str]:
        loaded = load(
            profile="demo", photos=str(tmp_path), run_dir=str(tmp_path), overrides=overrides
        )
        ir = compiler.Compiler().compile(create_pipeline(loaded))
        nodes = [node.pipeline_node for node in ir.nodes]
        # Review never comes from a cache: it tells where the run was.
        return [plan.part(ir, node) for node in nodes if node.node_info.id != "Review"]

    flink = ["beam.runner=flink", "beam.endpoint=flink:8099"]
    here, there = compiled(), compiled(*flink)
    assert here == there == compiled(*flink, "beam.parallelism=40", "beam.options=[--x=1]")
