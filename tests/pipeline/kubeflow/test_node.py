"""Beam's options in the pod of a node."""

from __future__ import annotations

from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from google.protobuf import json_format
from tfx.dsl.compiler import compiler
from tfx.proto.orchestration import pipeline_pb2

from pipeline.graph import create_pipeline
from pipeline.kubeflow import node, plan
from pipeline.kubeflow.parameters import arguments
from pipeline.kubeflow.parameters import configuration as in_a_pod
from tests.pipeline.kubeflow.conftest import configuration


@pytest.mark.parametrize(
    ("workers", "expected", "mode"),
    [(0, 3, "multi_processing"), (2, 2, "multi_processing"), (1, 1, "in_memory")],
)
def test_workers_are_as_many_as_the_pod_has_cores(
    workers: int, expected: int, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pod may use fewer cores than the machine has."""
    monkeypatch.setattr(node, "cores", lambda: 3)
    outside = configuration(tmp_path, tmp_path, f"beam.workers={workers}")
    ir = compiler.Compiler().compile(create_pipeline(in_a_pod(arguments(outside), tmp_path)))
    (mine,) = (n.pipeline_node for n in ir.nodes if n.pipeline_node.node_info.id == "StatisticsGen")
    alone = json_format.Parse(plan.part(ir, mine), pipeline_pb2.Pipeline())
    given = node._operator(alone, "StatisticsGen").beam_pipeline_args
    options = PipelineOptions([one.value.string_value for one in given]).view_as(DirectOptions)
    assert options.direct_num_workers == expected
    assert options.direct_running_mode == mode
