"""The Review step: makes the reviewers' page from the artifacts of a run."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tfx.types
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import (
    ExampleAnomalies,
    Examples,
    ExampleStatistics,
    InfraBlessing,
    Model,
    ModelBlessing,
    ModelEvaluation,
    ModelRun,
    PushedModel,
    Schema,
)

from components.review import (
    PAGE,
    PAGE_TYPE,
    certainty,
    data,
    decision,
    fairness,
    mistakes,
    model_card,
    refused,
    slices,
    training,
)
from components.review.inputs import Artifact, Inputs, RunFacts, run_facts
from components.review.page import render

# In the order of the page.
SECTIONS = (
    decision, slices, fairness, refused, certainty, mistakes, data, training, model_card,
)  # fmt: skip
RUN = "run"  # custom property of the review artifact: the RunFacts as JSON


class ReviewPage(tfx.types.Artifact):
    """A folder with PAGE and the files that the page links to."""

    TYPE_NAME = PAGE_TYPE


@component
def Review(
    examples: InputArtifact[Examples],
    statistics: InputArtifact[ExampleStatistics],
    inferred_schema: InputArtifact[Schema],
    schema: InputArtifact[Schema],
    anomalies: InputArtifact[ExampleAnomalies],
    model: InputArtifact[Model],
    model_run: InputArtifact[ModelRun],
    baseline_model: InputArtifact[Model],
    evaluation: InputArtifact[ModelEvaluation],
    blessing: InputArtifact[ModelBlessing],
    infra_blessing: InputArtifact[InfraBlessing],
    pushed_model: InputArtifact[PushedModel],
    review: OutputArtifact[ReviewPage],
    settings: Parameter[str],
    run_id: Parameter[str] = "",
    who: Parameter[str] = "",
) -> None:
    """Writes the page, the model card and the suspected labels, also for a model that did not pass.

    This step must not be cached, because the page describes this run.

    Args:
        examples: raw examples.
        statistics: statistics of the raw examples.
        inferred_schema: from SchemaGen.
        schema: the curated schema.
        anomalies: from ExampleValidator.
        model: the candidate.
        model_run: the history of the training.
        baseline_model: the live model, or an empty artifact.
        evaluation: from the Evaluator, with the predictions.
        blessing: from the Evaluator.
        infra_blessing: from ServingCheck.
        pushed_model: from the Pusher; it says whether the model was pushed.
        review: output; gets PAGE, model_card.md, suspects.csv and the custom property RUN.
        settings: the configuration of the run, as JSON.
        run_id: the runner's name of the run; empty: the run folder.
        who: the person or account that runs it; empty: the user of this process.

    Raises:
        UserError: the table of the reference population is wrong.
    """
    artifacts = {
        "examples": examples, "statistics": statistics, "inferred_schema": inferred_schema,
        "schema": schema, "anomalies": anomalies, "model": model, "model_run": model_run,
        "baseline_model": baseline_model, "evaluation": evaluation, "blessing": blessing,
        "infra_blessing": infra_blessing, "pushed_model": pushed_model,
    }  # fmt: skip
    values = json.loads(settings)
    facts = run_facts(run_id or values["run_dir"], who)
    write(inputs_of(artifacts, values, facts), Path(review.uri))
    review.set_string_custom_property(RUN, json.dumps(asdict(facts)))


def inputs_of(
    artifacts: Mapping[str, tfx.types.Artifact], settings: Mapping[str, Any], facts: RunFacts
) -> Inputs:
    """What the sections read.

    Args:
        artifacts: by the names of the step's parameters.
        settings: the configuration of the run.
        facts: about the run.
    """
    found = {name: _artifact(artifact) for name, artifact in artifacts.items()}
    return Inputs(found, settings, facts)


def _artifact(artifact: tfx.types.Artifact) -> Artifact:
    proto = artifact.mlmd_artifact
    values = {**proto.properties, **proto.custom_properties}
    return Artifact(
        kind=artifact.type_name,
        id=artifact.id,
        uri=artifact.uri,
        path=Path(artifact.uri),
        properties={name: getattr(v, v.WhichOneof("value")) for name, v in values.items()},
    )


def write(inputs: Inputs, folder: Path) -> None:
    """Writes the page and its files. Writes nothing if one of them can't be made."""
    sections = [part.section(inputs) for part in SECTIONS]
    files = {
        model_card.FILE: model_card.markdown(inputs),
        mistakes.SUSPECTS_FILE: mistakes.suspects_csv(inputs),
    }
    files[PAGE] = render("Good Seed Age Check: review of a model", sections, list(files))
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
