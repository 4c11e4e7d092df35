"""StatisticsGen: TFDV's statistics of the raw examples, the picture summarised as an image."""

from __future__ import annotations

import tensorflow_data_validation as tfdv
import tfx.components
from tfx.components.statistics_gen import executor
from tfx.dsl.components.base import executor_spec
from tfx.types import BaseChannel
from tfx_bsl.public.proto import slicing_spec_pb2

from components import heap
from components.beam_step import BeamStep
from schemas import features


class Executor(heap.GivesBack, BeamStep, executor.Executor):
    """TFX's, whose memory hardly grows with the number of photos."""


class StatisticsGen(tfx.components.StatisticsGen):
    """TFX's StatisticsGen with the executor above.

    Distinct strings are counted by sketches: TFDV's exact counts hold every file name and photo_id,
    some 3 KiB of memory a photo.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(self, examples: BaseChannel, schema: BaseChannel):
        super().__init__(
            examples=examples,
            schema=schema,
            stats_options=tfdv.StatsOptions(
                enable_semantic_domain_stats=True,
                use_sketch_based_topk_uniques=True,
                # Each span by itself, too, where there are spans: what is new may have drifted.
                slicing_config=slicing_spec_pb2.SlicingConfig(
                    slicing_specs=[slicing_spec_pb2.SlicingSpec(feature_keys=[features.SPAN])]
                ),
            ),
        )
