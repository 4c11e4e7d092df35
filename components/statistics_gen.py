"""StatisticsGen: TFDV's statistics of the raw examples."""

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

    Semantic domains stay off, as they are by default: TFDV would take file names and columns of
    dates, phone numbers or sentences for other types than those of the curated schema.
    """
    return StatisticsGen(
        examples=examples,
        schema=schema,
        stats_options=tfdv.StatsOptions(
            use_sketch_based_topk_uniques=True,
            # If there are spans, also the statistics of each: new photos may have drifted.
            slicing_config=slicing_spec_pb2.SlicingConfig(
                slicing_specs=[slicing_spec_pb2.SlicingSpec(feature_keys=[features.SPAN])]
            ),
        ),
    )
