"""The graph: its steps, and what flows between them. A runner decides where they run."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from tfx.components import SchemaGen
from tfx.orchestration import metadata
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import pusher_pb2

from components.beam_jobs import ARGUMENTS
from components.curated_schema import CuratedSchema
from components.evaluator import Evaluator, check_slice_columns, eval_config
from components.example_validator import ExampleValidator
from components.photo_example_gen import PhotoExampleGen, labels
from components.pusher import Pusher
from components.review.component import Review
from components.served_model import ServedModel
from components.serving_check import ServingCheck
from components.statistics_gen import statistics_gen
from components.trainer import trainer
from components.transform import transform
from pipeline.config import PIPELINE_NAME, Config

# Steps that always run: the live model changes without the graph, and the page describes one run.
NEVER_CACHED = frozenset({"ServedModel", "Pusher", "Review"})


def check_columns(config: Config) -> None:
    """Checks that the photos have the columns by which the Evaluator slices, hours before it runs.

    Raises:
        UserError: a column is missing, or the photos' table can't be read.
    """
    if chosen := config.evaluator.slice_columns:
        check_slice_columns(chosen, labels.read(config.data).extra_columns)


def create_pipeline(config: Config) -> Pipeline:
    """The graph from a folder of photos to a pushed model and a page for the reviewers."""
    run_dir = Path(config.run_dir)
    crops = config.data.appa_crops or {"find": "full", "as_is": "faces"}[config.transform.face]
    examples = PhotoExampleGen(config.data.model_copy(update={"appa_crops": crops}))
    raw = examples.outputs["examples"]
    schema = resources.files("schemas").joinpath("curated.pbtxt").read_text("utf-8")
    curated = CuratedSchema(examples=raw, curated=schema)
    statistics = statistics_gen(raw, curated.outputs["schema"])
    inferred = SchemaGen(statistics=statistics.outputs["statistics"])
    validator = ExampleValidator(
        statistics=statistics.outputs["statistics"], schema=curated.outputs["schema"]
    )
    transformed = transform(raw, curated.outputs["schema"], config.transform)
    # Training waits until the validator has passed the photos.
    transformed.add_upstream_node(validator)
    trained = trainer(
        transformed.outputs["transformed_examples"],
        transformed.outputs["transform_graph"],
        settings=config.trainer,
        preprocessing=config.transform,
        max_refused=config.guard.max_refused,
        policy=config.policy,
        max_pixels=config.data.max_pixels,
        max_batch_size=config.serving.max_batch_size,
        resume_root=str(run_dir / "resume"),
    )
    served = ServedModel(serving_base=str(config.serving_base))
    evaluator = Evaluator(
        examples=raw,
        model=trained.outputs["model"],
        baseline_model=served.outputs["model"],
        schema=curated.outputs["schema"],
        eval_config=eval_config(config.evaluator, config.guard, config.policy.legal_age),
    )
    check = ServingCheck(
        model=trained.outputs["model"],
        examples=raw,
        max_batch_size=config.serving.max_batch_size,
        face=config.transform.face,
    )
    check.add_upstream_node(evaluator)
    pusher = Pusher(
        model=trained.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=check.outputs["blessing"],
        push_destination=pusher_pb2.PushDestination(
            filesystem=pusher_pb2.PushDestination.Filesystem(
                base_directory=str(config.serving_base)
            )
        ),
    )
    review = Review(
        examples=raw,
        statistics=statistics.outputs["statistics"],
        inferred_schema=inferred.outputs["schema"],
        schema=curated.outputs["schema"],
        anomalies=validator.outputs["anomalies"],
        model=trained.outputs["model"],
        model_run=trained.outputs["model_run"],
        baseline_model=served.outputs["model"],
        evaluation=evaluator.outputs["evaluation"],
        blessing=evaluator.outputs["blessing"],
        infra_blessing=check.outputs["blessing"],
        pushed_model=pusher.outputs["pushed_model"],
        settings=config.model_dump_json(exclude={"kubeflow"}),
    )
    return Pipeline(
        pipeline_name=PIPELINE_NAME,
        pipeline_root=str(run_dir / "artifacts"),
        components=[
            examples,
            curated,
            statistics,
            inferred,
            validator,
            transformed,
            trained,
            served,
            evaluator,
            check,
            pusher,
            review,
        ],
        enable_cache=True,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(
            str(run_dir / "metadata.db")
        ),
        beam_pipeline_args=ARGUMENTS,
    )
