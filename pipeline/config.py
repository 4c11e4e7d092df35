"""Every knob of the pipeline, typed, with its unit. Profiles are YAML files in profiles/.

Components take their section from here. So this module imports none of them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.errors import UserError

PIPELINE_NAME = "goodseed-age-check"

_PATTERN = "*?[\\"  # what TensorFlow's file functions take for a pattern
_SURROGATE = re.compile("[\ud800-\udfff]")  # stands for a byte that is not in the locale's encoding


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
    train_share: float = Field(
        0.70, gt=0, lt=1, description="Share of the photos in the train split, 0 to 1"
    )
    eval_share: float = Field(
        0.15, gt=0, lt=1,
        description="Share of the photos in the eval split, 0 to 1; the test split gets the rest",
    )  # fmt: skip
    max_rejected: float = Field(
        0.05, ge=0, le=1, description="Largest share of the rows that may be rejected, 0 to 1"
    )
    max_pixels: int = Field(
        50_000_000,
        gt=0,
        le=178_956_970,  # Pillow refuses more
        description="Width × height of the largest picture that is read, pixels",
    )
    conflict_years: float = Field(
        3.0, ge=0, description="Largest difference between two ages of one picture, years"
    )
    appa_crops: Literal["full", "faces"] | None = Field(
        None,
        description="APPA-REAL's own release: its full photos, or the faces cut out of them "
        "(default: full if transform.face finds the face, faces if it takes photos as_is)",
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
    """How a photo becomes the network's input: the same in training, evaluation and serving."""

    image_size: int = Field(224, ge=32, le=1024, description="Side of the square picture, pixels")
    jpeg_quality: int = Field(
        92, ge=50, le=100, description="JPEG quality of the stored square, 0 to 100"
    )
    face: Literal["find", "as_is"] = Field(
        "find",
        description="find: cut the face out of the photo; as_is: take the centre square, for "
        "photos that are cropped already",
    )
    min_face: int = Field(
        48, ge=16, description="Height of the smallest face that is accepted, pixels of the photo"
    )
    margin: float = Field(
        0.0, ge=0, le=1, description="What is added around a face on each side, share of its height"
    )
    min_score: float = Field(
        0.8, gt=0, lt=1, description="Score from which the face finder says that it is a face"
    )
    mirror: bool = Field(True, description="Whether training also sees each photo's mirror image")
    max_without_face: float = Field(
        0.2, ge=0, le=1,
        description="Largest share of the train and eval photos without a usable face, 0 to 1",
    )  # fmt: skip


class Trainer(Section):
    """The network and its training."""

    initial_weights: str = Field(
        "imagenet", description="imagenet, none, or a file of ResNet50 weights without the top"
    )
    head: Literal["distribution", "regression"] = Field(
        "distribution",
        description="What the network learns: the probability of each age, or the age alone",
    )
    batch_size: int = Field(64, ge=1, description="Photos in a step, over all devices")
    head_epochs: int = Field(
        1, ge=0, description="Epochs of training the head alone; ignored without initial weights"
    )
    epochs: int = Field(8, ge=1, description="Most epochs of training the whole network")
    head_learning_rate: float = Field(
        1e-2, gt=0, description="Adam's learning rate for the head alone, per step"
    )
    learning_rate: float = Field(
        5e-4, gt=0, description="AdamW's highest learning rate for the whole network, per step"
    )
    warmup_share: float = Field(
        0.1, ge=0, lt=1, description="Share of the steps in which the learning rate rises, 0 to 1"
    )
    weight_decay: float = Field(
        1e-4, ge=0, description="AdamW's decoupled weight decay, times the learning rate"
    )
    dropout: float = Field(
        0.3, ge=0, lt=1, description="Share of the pooled features that is dropped, 0 to 1"
    )
    patience: int = Field(4, ge=1, description="Epochs without a better eval MAE before it stops")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Number type of the training; auto: the fastest on this hardware"
    )
    seed: int = Field(0, ge=0, description="Seed of the weights, the order and the dropout")


class Guard(Section):
    """The model's objection to pictures that are unlike those that it was trained on."""

    max_refused: float = Field(
        0.02, ge=0, lt=1, description="Share of the eval photos that the guard refuses, 0 to 1"
    )
    max_refused_test: float = Field(
        0.05, ge=0, lt=1,
        description="Gate: largest share of the test photos with any objection, 0 to 1",
    )  # fmt: skip


class Policy(Section):
    """How many minors may pass without ID. The Trainer derives from it who passes."""

    legal_age: int = Field(18, ge=1, le=100, description="Age from which one may buy, years")
    max_minor_pass_rate: float = Field(
        0.05, gt=0, lt=1,
        description="Largest share of all minors that may pass without ID, 0 to 1",
    )  # fmt: skip
    max_hard_pass_rate: float = Field(
        0.1, gt=0, lt=1,
        description="Largest share of the minors of the last three years that may pass, 0 to 1",
    )  # fmt: skip
    min_challenge_age: float = Field(
        25.0, ge=0, le=120, description="Who looks younger is asked, whatever is proved, years"
    )
    uncertified: Literal["challenge_everybody", "min_challenge_age"] = Field(
        "challenge_everybody",
        description="Whom a model asks if nothing is proved: all, or who looks younger than that",
    )


class Evaluator(Section):
    """The gate, and the slices."""

    max_mae: float = Field(8.0, gt=0, description="Largest MAE on the test split, years")
    max_mae_increase: float = Field(
        0.25, ge=0, description="Largest difference to the live model's MAE, years"
    )
    min_test_photos: int = Field(
        30, ge=1, description="Smallest number of test photos that the model does not refuse"
    )
    slice_columns: tuple[str, ...] = Field(
        (),
        description="Extra columns of the CSV that make slices, as [gender, store]; empty: all "
        "columns of at most 50 values",
    )


class Review(Section):
    """The page for the reviewers."""

    thumbnails: bool = Field(
        True, description="Whether the page shows small photos of the worst mistakes"
    )
    photos: int = Field(24, ge=0, description="Most photos of each kind on the page")
    min_photos: int = Field(30, ge=2, description="Photos that a slice needs to be judged")
    interval_width: float = Field(
        2.0, gt=0, description="Largest width of the interval of an age band's MAE, years"
    )
    population: str | None = Field(
        None, description="CSV of the reference population; none: Germany's of 2023"
    )
    data_licence: str = Field(
        "not stated by the photos' folder", description="What the model card says about the photos"
    )


class Serving(Section):
    """Where the model goes live."""

    root: str | None = Field(
        None, description="Serving root; none: RUN_DIR/serving, in pods kubeflow.serving_mount"
    )
    model_name: str = Field(
        "goodseed_age", pattern=r"^[A-Za-z0-9_.-]+$", description="Name of the servable"
    )
    max_batch_size: int = Field(
        32, ge=1, description="Photos in the largest batch of the model server"
    )


class Beam(Section):
    """Where Beam works. This does not change the steps' results, so no cache compares it."""

    runner: Literal["direct", "flink", "portable"] = Field(
        "direct",
        description="direct: one worker in the step's process; flink: a Flink cluster, as k8s/beam "
        "deploys it; portable: another cluster with a job server of Beam, described by options",
    )
    endpoint: str | None = Field(
        None, pattern=r"^[^\s/]+:\d{1,5}$", description="HOST:PORT of the cluster's job server"
    )
    parallelism: int = Field(2, ge=1, description="Task slots of Flink that a job uses at once")
    options: tuple[str, ...] = Field((), description="Further options of Beam, as --name=value")

    @model_validator(mode="after")
    def _has_its_endpoint(self) -> Beam:
        if self.runner != "direct" and self.endpoint is None:
            raise ValueError(f"the runner {self.runner} needs beam.endpoint=HOST:PORT")
        if self.runner == "direct" and self.endpoint is not None:
            raise ValueError("an endpoint needs beam.runner=flink, or portable")
        return self


# Kubernetes uses the name of a claim or secret as the name of a volume: a DNS label, without dots.
_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|[KMGT]i?)?$"


class Resources(Section):
    """Request and limit of a step's pod."""

    model_config = ConfigDict(coerce_numbers_to_str=True)  # `cpu: 8`, as in Kubernetes

    cpu: str = Field("2", pattern=_QUANTITY, description="Cores, as Kubernetes writes them")
    memory: str = Field("4Gi", pattern=_QUANTITY, description="Bytes, as Kubernetes writes them")


class Toleration(Section):
    """A taint of the GPU nodes that the training pod tolerates."""

    key: str
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Kubeflow(Section):
    """What the pods of a Kubeflow pipeline get. Fixed when the package is compiled."""

    image: str = Field("", description="Image with this code, by digest or by a tag of its own")
    image_pull_secret: str | None = Field(None, pattern=_LABEL, description="Name of the secret")
    photos_claim: str = Field(
        "goodseed-photos", pattern=_LABEL, description="Volume claim with the photos"
    )
    photos_mount: str = Field(
        "/photos", description="Mount point of that volume; data.photos is inside"
    )
    serving_claim: str = Field(
        "goodseed-serving", pattern=_LABEL, description="Volume claim that the model servers read"
    )
    serving_mount: str = Field(
        "/serving", description="Mount point of that volume; serving.root is inside"
    )
    work_claim: str = Field(
        "goodseed-work", pattern=_LABEL, description="Volume claim for summaries and resumed runs"
    )
    work_mount: str = Field("/work", description="Mount point of that volume; run_dir is inside")
    resources: Resources = Field(
        Resources(), description="Resources of every step that `steps` does not name"
    )
    steps: dict[str, Resources] = Field(
        {"Trainer": Resources(cpu="4", memory="12Gi")},
        description="Resources of single steps, by the step's name",
    )
    retries: int = Field(2, ge=0, description="How often a failed step is tried again")
    backoff_seconds: int = Field(
        60, ge=0, description="Seconds before the first retry; doubles with each retry"
    )
    gpus: int = Field(0, ge=0, description="GPUs of the training pod")
    gpu_resource: str = Field("nvidia.com/gpu", description="Kubernetes' name of the GPU resource")
    gpu_node_selector: dict[str, str] = Field({}, description="Labels of the nodes for training")
    gpu_tolerations: tuple[Toleration, ...] = Field(
        (Toleration(key="nvidia.com/gpu", effect="NoSchedule"),),
        description="Taints of those nodes that the training pod tolerates",
    )
    shared_memory: str = Field(
        "2Gi", pattern=_QUANTITY,
        description="Size of /dev/shm for training on GPUs, bytes as Kubernetes writes them; "
        "counts as memory",
    )  # fmt: skip


class Config(Section):
    """One run's configuration."""

    run_dir: str = Field(description="Folder of the run: artifacts, metadata, serving, summary")
    data: Data
    transform: Transform = Transform()
    trainer: Trainer = Trainer()
    guard: Guard = Guard()
    policy: Policy = Policy()
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
    """The configuration of a profile, with overrides.

    Args:
        profile: one of `profiles()`.
        photos: `data.photos`.
        run_dir: `run_dir`.
        exclude: `data.exclude`, unless an override gives it.
        overrides: `section.key=value` instead of the profile's value; the value is YAML.
        here: whether the paths are on this machine. Then they are made absolute, so that a step
            may run in any working directory. Paths in a pod stay as they are.

    Raises:
        UserError: an unknown profile, section or key, a value outside its bounds, or one that is
            given twice.
    """
    for option, path in {"--photos": photos, "--run-dir": run_dir, "--exclude": exclude}.items():
        if path and _SURROGATE.search(path):
            raise UserError(
                f"{option} {path!a}: the name is not in {sys.getfilesystemencoding()}: rename "
                "it, or set LC_ALL to a locale of its encoding, such as C.UTF-8"
            )
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
            raise UserError(f"--set data.{name}: use --{name} alone")
        data[name] = value
    values["run_dir"] = run_dir
    config = validate(values)
    return _absolute(config) if here else config


def validate(values: dict[str, Any]) -> Config:
    """The configuration from nested values: each section is a dictionary.

    Raises:
        UserError: an unknown section or key, or a value outside its bounds.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError(_one_line(error)) from None


def apply(values: dict[str, Any], override: str) -> None:
    """Puts a `section.key=value` into nested values; the value is YAML.

    Raises:
        UserError: the override has another form, or there is no such section.
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


def check_folder(folder: str, option: str) -> None:
    """Checks that TensorFlow can write and read artifacts and models in a folder.

    Raises:
        UserError: TensorFlow would take the path for a pattern, or for another path: it writes
            paths in UTF-8, whatever the locale is.
    """
    utf8 = sys.getfilesystemencoding() == "utf-8"
    found = {c for c in folder if c in _PATTERN or _SURROGATE.match(c) or not (utf8 or c.isascii())}
    if found:
        raise UserError(
            f"{option} {folder}: TensorFlow can't work in a folder with "
            f"{' or '.join(sorted(found))} in its path: give another folder"
        )


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
        review = review.model_copy(update={"population": str(Path(review.population).absolute())})
    run_dir = str(Path(config.run_dir).absolute())
    check_folder(run_dir, "--run-dir")
    check_folder(serving.root or "", "serving.root")
    changed = {"data": data, "trainer": trainer, "serving": serving, "review": review}
    return config.model_copy(update={"run_dir": run_dir, **changed})


def _one_line(error: ValidationError) -> str:
    return "; ".join(
        ".".join(str(part) for part in e["loc"])
        + (": no such option" if e["type"] == "extra_forbidden" else f": {e['msg']}")
        for e in error.errors()
    )
