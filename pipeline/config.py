"""Every knob of the pipeline, typed, with its unit; profiles are YAML files beside this one."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.errors import UserError
from components.review import population

PIPELINE_NAME = "goodseed-age-check"


class Section(BaseModel):
    """A group of knobs; an unknown one is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Section):
    """Which photos are read, and how they are split."""

    photos: str = Field(description="Folder with a labels CSV and pictures, or with span-N folders")
    labels_file: str = Field("labels.csv", description="Name of the CSV beside final_files/")
    file_column: str = Field("file_name", description="CSV column with the picture's file name")
    age_column: str = Field("real_age", description="CSV column with the age in years")
    span_window: int = Field(0, ge=0, description="How many of the newest spans are read; 0: all")
    train_share: float = Field(0.70, gt=0, lt=1, description="Share of photos that train")
    eval_share: float = Field(0.15, gt=0, lt=1, description="Share that stops training early")
    max_rejected: float = Field(0.05, ge=0, le=1, description="Share of rows that may be rejected")
    max_pixels: int = Field(50_000_000, gt=0, description="Largest picture that is decoded, pixels")
    conflict_years: float = Field(
        3.0, ge=0, description="Ages of one picture may differ by so many years"
    )
    exclude: str | None = Field(
        None, description="CSV whose column file_name lists photos to leave out (--exclude)"
    )

    @model_validator(mode="after")
    def _leaves_a_test_split(self) -> Data:
        if self.train_share + self.eval_share >= 1:
            raise ValueError("train_share + eval_share must leave a share for the test split")
        return self


class Transform(Section):
    """How a photo becomes the network's input, in training, evaluation and serving alike."""

    image_size: int = Field(224, ge=32, le=1024, description="Side of the square, pixels")
    jpeg_quality: int = Field(92, ge=50, le=100, description="JPEG quality it is stored with")


class Trainer(Section):
    """The network and its training."""

    initial_weights: str = Field(
        "imagenet", description="imagenet, none, or a file of ResNet50 weights without top"
    )
    batch_size: int = Field(64, ge=1, description="Photos a step, over all devices")
    head_epochs: int = Field(1, ge=0, description="Epochs of the head alone; 0 from no weights")
    epochs: int = Field(8, ge=1, description="Epochs of the whole network, at most")
    head_learning_rate: float = Field(1e-2, gt=0, description="Adam's, for the head alone")
    learning_rate: float = Field(5e-4, gt=0, description="AdamW's peak, for the whole network")
    warmup_share: float = Field(0.1, ge=0, lt=1, description="Share of the steps that warm up")
    weight_decay: float = Field(1e-4, ge=0, description="AdamW's decoupled weight decay")
    dropout: float = Field(0.3, ge=0, lt=1, description="Share of pooled features dropped")
    patience: int = Field(4, ge=1, description="Epochs without a better eval MAE before stopping")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="What training computes in; auto: what the hardware gains from"
    )
    seed: int = Field(0, ge=0, description="Seed of weights, order and dropout")


class Evaluator(Section):
    """The gate."""

    max_mae: float = Field(8.0, gt=0, description="Largest MAE on the test split, years")
    max_mae_increase: float = Field(
        0.25, ge=0, description="How much worse than the live model it may be, years of MAE"
    )


class Review(Section):
    """The page that reviewers open."""

    thumbnails: bool = Field(True, description="Whether it shows photos, small: the worst mistakes")
    photos: int = Field(24, ge=0, description="How many photos of each kind it shows, at most")
    min_photos: int = Field(30, ge=2, description="Photos that a slice needs to be judged")
    interval_width: float = Field(
        2.0, gt=0, description="How wide the interval of a band's MAE may be, years"
    )
    population: str | None = Field(
        None, description="CSV of the reference population; none: Germany's of 2023"
    )
    data_licence: str = Field(
        "not stated by the photos' folder", description="What the model card says of the photos"
    )


class Serving(Section):
    """Where the model goes live."""

    root: str | None = Field(
        None, description="Serving root; none: RUN_DIR/serving, or kubeflow.serving_mount in pods"
    )
    model_name: str = Field("goodseed_age", pattern=r"^[A-Za-z0-9_.-]+$", description="Servable")
    max_batch_size: int = Field(32, ge=1, description="Largest batch that the server makes, photos")


class Beam(Section):
    """Where Beam works and how it shares the work out."""

    runner: str = Field(
        "FnApiRunner",
        description="FnApiRunner: in the step itself; or PortableRunner, FlinkRunner, SparkRunner, "
        "DataflowRunner, whose workers have to see the artifacts' files",
    )
    options: tuple[str, ...] = Field((), description="Further options of Beam's, as --name=value")
    mode: Literal["in_memory", "multi_threading", "multi_processing"] | None = Field(
        None,
        description="FnApiRunner's direct_running_mode; none: in_memory for one worker; for more "
        "multi_threading on this machine, multi_processing in a pod",
    )
    workers: int = Field(0, ge=0, description="FnApiRunner's direct_num_workers; 0: one a core")


# What Kubernetes calls a claim or a secret becomes the name of a volume: a DNS label, so no dots.
_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|[KMGT]i?)?$"


class Resources(Section):
    """What a step's pod asks for, and may not exceed."""

    model_config = ConfigDict(coerce_numbers_to_str=True)  # `cpu: 8`, as in Kubernetes

    cpu: str = Field("2", pattern=_QUANTITY, description="Cores, as Kubernetes writes them")
    memory: str = Field("4Gi", pattern=_QUANTITY, description="As Kubernetes writes it")


class Toleration(Section):
    """A taint of the GPU nodes that the training puts up with."""

    key: str
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Kubeflow(Section):
    """What the pods of a Kubeflow pipeline get. Fixed when the package is compiled."""

    image: str = Field("", description="The image with this code, by digest or by a tag of its own")
    image_pull_secret: str | None = Field(None, pattern=_LABEL, description="Name of the secret")
    photos_claim: str = Field(
        "goodseed-photos", pattern=_LABEL, description="Volume claim with the photos"
    )
    photos_mount: str = Field("/photos", description="Where it is in a pod; data.photos is inside")
    serving_claim: str = Field(
        "goodseed-serving", pattern=_LABEL, description="Volume claim that the model servers read"
    )
    serving_mount: str = Field(
        "/serving", description="Where it is in a pod; serving.root is inside (none: all of it)"
    )
    work_claim: str = Field(
        "goodseed-work", pattern=_LABEL, description="Volume claim for summaries and resumed runs"
    )
    work_mount: str = Field("/work", description="Where it is in a pod; run_dir is inside")
    resources: Resources = Field(Resources(), description="Of every step that `steps` leaves out")
    steps: dict[str, Resources] = Field(
        {"Trainer": Resources(cpu="4", memory="12Gi")}, description="By the node's name"
    )
    retries: int = Field(2, ge=0, description="How often a failed step is tried again")
    backoff_seconds: int = Field(60, ge=0, description="Before the first retry; doubles each time")
    gpus: int = Field(0, ge=0, description="GPUs of the training")
    gpu_resource: str = Field("nvidia.com/gpu", description="What Kubernetes calls them")
    gpu_node_selector: dict[str, str] = Field({}, description="Labels of the training's nodes")
    gpu_tolerations: tuple[Toleration, ...] = Field(
        (Toleration(key="nvidia.com/gpu", effect="NoSchedule"),),
        description="Taints of those nodes",
    )
    shared_memory: str = Field(
        "2Gi", pattern=_QUANTITY, description="The training's /dev/shm, with GPUs; counts as memory"
    )


class Config(Section):
    """One run's configuration."""

    run_dir: str = Field(description="Folder of the run: artifacts, metadata, serving, summary")
    data: Data
    transform: Transform = Transform()
    trainer: Trainer = Trainer()
    evaluator: Evaluator = Evaluator()
    review: Review = Review()
    serving: Serving = Serving()
    beam: Beam = Beam()
    kubeflow: Kubeflow = Kubeflow()

    @property
    def serving_base(self) -> Path:
        """The folder whose subfolders are the servable's versions."""
        root = Path(self.serving.root) if self.serving.root else Path(self.run_dir) / "serving"
        return root / self.serving.model_name


def profiles() -> list[str]:
    """Names of the profiles that come with the package."""
    folder = resources.files("pipeline").joinpath("profiles")
    return sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".yaml"))


def load(
    *,
    profile: str,
    photos: str,
    run_dir: str,
    exclude: str | None = None,
    overrides: Sequence[str] = (),
    here: bool = True,
) -> Config:
    """The profile's configuration with `section.key=value` overrides (values are YAML).

    Args:
        profile: one of `profiles()`.
        photos: `data.photos`.
        run_dir: `run_dir`.
        exclude: `data.exclude`, where it is not among the overrides.
        overrides: what the profile says is not what is wanted.
        here: whether the paths are this machine's. They are then made absolute, so that a step may
            run in any working directory; paths in a pod stay as they are.

    Raises:
        UserError: unknown profile, section or key, a value outside its bounds, or one that is given
            in both ways.
    """
    if profile not in profiles():
        raise UserError(f"unknown profile '{profile}': choose one of {', '.join(profiles())}")
    text = resources.files("pipeline").joinpath(f"profiles/{profile}.yaml").read_text("utf-8")
    values: dict[str, Any] = yaml.safe_load(text) or {}
    for override in overrides:
        apply(values, override)
    data = values.setdefault("data", {})
    for name, value in (("photos", photos), ("exclude", exclude)):
        if value is None:
            continue
        if name in data:
            raise UserError(f"--set data.{name}: say it with --{name} alone")
        data[name] = value
    values["run_dir"] = run_dir
    config = validate(values)
    return _absolute(config) if here else config


def validate(values: dict[str, Any]) -> Config:
    """The configuration that nested values describe, each section a dictionary.

    Raises:
        UserError: unknown section or key, or a value outside its bounds.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError(_one_line(error)) from None


def apply(values: dict[str, Any], override: str) -> None:
    """Puts a `section.key=value` (the value is YAML) into nested values.

    Raises:
        UserError: it is not of that form, or there is no such section.
    """
    name, equals, value = override.partition("=")
    section, dot, key = name.partition(".")
    if not (equals and dot and section in Config.model_fields and section != "run_dir"):
        sections = ", ".join(f for f in Config.model_fields if f != "run_dir")
        raise UserError(f"--set {override!r}: write section.key=value, section one of {sections}")
    try:
        values.setdefault(section, {})[key] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError(f"--set {override!r}: the value is not YAML") from None


def _absolute(config: Config) -> Config:
    data, trainer, serving, review = config.data, config.trainer, config.serving, config.review
    data = data.model_copy(update={"photos": str(Path(data.photos).absolute())})
    if data.exclude:
        data = data.model_copy(update={"exclude": str(Path(data.exclude).absolute())})
    if trainer.initial_weights not in ("imagenet", "none"):
        weights = Path(trainer.initial_weights).absolute()
        if not weights.is_file():
            raise UserError(
                f"trainer.initial_weights: no file {weights}; write imagenet, none or a file"
            )
        trainer = trainer.model_copy(update={"initial_weights": str(weights)})
    if serving.root:
        serving = serving.model_copy(update={"root": str(Path(serving.root).absolute())})
    if review.population:
        table = str(Path(review.population).absolute())
        population.read(table)  # now, rather than at the end of the run
        review = review.model_copy(update={"population": table})
    changed = {"data": data, "trainer": trainer, "serving": serving, "review": review}
    return config.model_copy(update={"run_dir": str(Path(config.run_dir).absolute()), **changed})


def _one_line(error: ValidationError) -> str:
    return "; ".join(
        ".".join(str(part) for part in e["loc"])
        + (": no such option" if e["type"] == "extra_forbidden" else f": {e['msg']}")
        for e in error.errors()
    )
