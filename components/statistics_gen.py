"""StatisticsGen: TFDV's statistics of the raw examples, with the picture summarised as an image."""

from __future__ import annotations

import tensorflow_data_validation as tfdv
from tfx.components import StatisticsGen
from tfx.types import BaseChannel
from tfx_bsl.public.proto import slicing_spec_pb2

from schemas import features


def statistics_gen(examples: BaseChannel, schema: BaseChannel) -> StatisticsGen:
    """TFX's StatisticsGen with our options.

    It counts distinct strings by sketches. TFDV's exact counts hold every file name and photo_id in
    memory.
    """
    return StatisticsGen(
        examples=examples,
        schema=schema,
        stats_options=tfdv.StatsOptions(
            enable_semantic_domain_stats=True,
            use_sketch_based_topk_uniques=True,
            # If there are spans, also the statistics of each: new photos may have drifted.
            slicing_config=slicing_spec_pb2.SlicingConfig(
                slicing_specs=[slicing_spec_pb2.SlicingSpec(feature_keys=[features.SPAN])]
            ),
        ),
    )
