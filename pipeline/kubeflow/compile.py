"""The graph as a package for Kubeflow Pipelines: a container component for each node.

The package names the steps, what flows between them, and what their pods get. The code of the
steps is in the image. The tasks are the plan, the nodes of the graph, `pushed`, which only runs
after a push, and the summary, which also runs after a failure.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from kfp import compiler, dsl, kubernetes
from tfx.dsl.compiler import compiler as tfx_compiler
from tfx.proto.orchestration import pipeline_pb2

from components.errors import UserError
from pipeline.config import PIPELINE_NAME, Config, Resources
from pipeline.graph import NEVER_CACHED, create_pipeline
from pipeline.kubeflow.launcher import ACCOUNT, RUN_ID
from pipeline.kubeflow.node import NODE, PUSHER
from pipeline.kubeflow.parameters import KNOBS, OTHER_OPTIONS, arguments, parameter_name
from pipeline.kubeflow.plan import CODE
from pipeline.kubeflow.records import NO_VERSION, PLAN, PUSHED, SUMMARY, VERSION
from pipeline.kubeflow.report import SUMMARY as SUMMARY_KEY
from pipeline.kubeflow.views import METRICS, REPORT, VIEWS

COMMAND = ("python", "-m", "pipeline.kubeflow.step")
EXECUTOR_INPUT = "{{$}}"  # KFP replaces it by the ExecutorInput of the task

_DESCRIPTION = "Trains a model that estimates ages from photos, evaluates it and pushes it."
_TRAINER, _REVIEW = "Trainer", "Review"
_RETRIES_END = 7 * 24 * 3600  # seconds after the start of the first attempt
# The steps that read the photos and the serving root. Every step has the run folder.
_READS_PHOTOS = frozenset({PLAN, "PhotoExampleGen"})
_READS_SERVING = frozenset({PLAN, "ServedModel", PUSHER})
_VIEW_KINDS = {METRICS: dsl.Metrics, REPORT: dsl.HTML}


def compile_package(config: Config, package: Path) -> None:
    """Writes the pipeline's IR (schema 2.1.0) and its Kubernetes platform document as YAML.

    Args:
        config: the package fixes `kubeflow`; the other sections become the defaults of the
            pipeline's parameters.
        package: a .yaml file; written whole or not at all.

    Raises:
        UserError: the configuration can't run in pods, or the file can't be written.
    """
    if package.suffix not in (".yaml", ".yml"):
        raise UserError(f"{package}: the name of a package must end in .yaml")
    defaults = arguments(config)
    ir = tfx_compiler.Compiler().compile(create_pipeline(config))
    nodes = [node.pipeline_node for node in ir.nodes]
    _check(config, defaults, [node.node_info.id for node in nodes])
    try:
        with tempfile.TemporaryDirectory(prefix=".", dir=package.parent) as aside:
            whole = os.path.join(aside, package.name)
            compiler.Compiler().compile(_pipeline(config, defaults, nodes), whole)
            _allow_late_retries(Path(whole))
            os.replace(whole, package)
    except OSError as error:
        raise UserError(f"{package}: {error.strerror}; name a file that you may write") from None


def _allow_late_retries(package: Path) -> None:
    """Lets a step of more than an hour be tried again.

    The backend counts `backoffMaxDuration` from the start of the first attempt. The SDK caps it at
    an hour, and no option changes that.
    """
    ir, cap = package.read_text("utf-8"), "backoffMaxDuration: 3600s"
    package.write_text(ir.replace(cap, f"backoffMaxDuration: {_RETRIES_END}s"), "utf-8")


def _check(config: Config, defaults: Mapping[str, Any], nodes: Sequence[str]) -> None:
    pods = config.kubeflow
    name, _, tag = pods.image.rpartition("/")[2].partition(":")
    if not pods.image or ("@sha256:" not in pods.image and (not tag or tag == "latest")):
        raise UserError(
            f"kubeflow.image={pods.image or 'none'}: name an image by digest ({name or 'image'}"
            "@sha256:…) or by a tag that changes with the code: KFP's cache trusts this name"
        )
    inside = [
        ("data.photos", defaults["photos"], pods.photos_mount),
        ("serving.root", defaults["serving_root"], pods.serving_mount),
        ("run_dir", config.run_dir, pods.work_mount),
    ]
    if defaults["initial_weights"] not in ("imagenet", "none"):
        inside.append(("trainer.initial_weights", defaults["initial_weights"], pods.work_mount))
    if config.data.exclude:
        inside.append(("data.exclude", config.data.exclude, pods.photos_mount))
    for option, path, mount in inside:
        if "://" in path:
            raise UserError(
                f"{option}={path}: a step reads and writes files; mount the bucket as a volume"
                f" (with its CSI driver) and name a folder below {mount}"
            )
        if not PurePosixPath(path).is_relative_to(mount):
            raise UserError(f"{option}={path} is outside the volume mounted at {mount}")
    for step in pods.steps.keys() - {*nodes, PLAN, PUSHED, SUMMARY}:
        raise UserError(f"kubeflow.steps: no step {step}; there are {', '.join(sorted(nodes))}")
    text = json.dumps([defaults, config.run_dir, pods.image])
    # Argo and Kubernetes replace these in arguments.
    if found := re.search(r"\{\{|\$\(|\$\$", text):
        raise UserError(f"no option may hold {found[0]}: Argo and Kubernetes would replace it")


def _pipeline(
    config: Config, defaults: Mapping[str, Any], nodes: Sequence[pipeline_pb2.PipelineNode]
) -> Any:
    """The pipeline function that KFP's compiler takes."""

    def steps(*values: Any) -> None:
        given = dict(zip(defaults, values, strict=True))
        summary = _component(
            config, SUMMARY, "Writes the run's summary, also after a failure.",
            outputs={SUMMARY_KEY: dsl.Dataset, REPORT: dsl.HTML},
        )()  # fmt: skip
        _place(config, summary, SUMMARY)
        with dsl.ExitHandler(summary):
            parts = [parameter_name(node.node_info.id) for node in nodes]
            plan = _component(
                config, PLAN, "Compiles the graph from the parameters; fingerprints the photos.",
                parameters={name: type(value) for name, value in defaults.items()},
                output_parameters=[CODE, *parts],
            )(**given)  # fmt: skip
            _place(config, plan, PLAN)
            tasks: dict[str, dsl.PipelineTask] = {}
            for node in nodes:
                tasks[node.node_info.id] = _task(config, node, plan, tasks)
            version = tasks[PUSHER].outputs[VERSION]
            with dsl.If(version != NO_VERSION, "if-pushed"):
                pushed = _component(
                    config, PUSHED, "Runs only after a push, so that its state tells the outcome.",
                    parameters={VERSION: str},
                )(**{VERSION: version})  # fmt: skip
                _place(config, pushed, PUSHED)

    steps.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, _POSITIONAL, default=value, annotation=type(value))
            for name, value in defaults.items()
        ]
    )
    described = "\n".join(f"    {name}: {_described(name)}" for name in defaults)
    steps.__doc__ = f"{_DESCRIPTION}\n\nArgs:\n{described}\n"
    return dsl.pipeline(name=PIPELINE_NAME)(steps)


_POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD


def _described(parameter: str) -> str:
    if parameter == OTHER_OPTIONS:
        return "Every other option, by section, as in pipeline/config.py"
    section, key = KNOBS[parameter].split(".")
    fields = Config.model_fields[section].annotation.model_fields  # type: ignore[union-attr]
    return f"{fields[key].description} ({KNOBS[parameter]})"


def _task(
    config: Config,
    node: pipeline_pb2.PipelineNode,
    plan: dsl.PipelineTask,
    tasks: Mapping[str, dsl.PipelineTask],
) -> dsl.PipelineTask:
    """A node's task: it follows the tasks that give it artifacts or that it has to wait for."""
    name = node.node_info.id
    channels = {key: spec.channels[0] for key, spec in node.inputs.inputs.items()}
    made = {key: _kind(spec.artifact_spec.type.name) for key, spec in node.outputs.outputs.items()}
    shown = {key: _VIEW_KINDS[key] for key in VIEWS[name].keys} if name in VIEWS else {}
    component = _component(
        config, name, node.node_info.type.name,
        parameters={NODE: str, CODE: str},
        inputs={key: _kind(c.artifact_query.type.name) for key, c in channels.items()},
        outputs={**made, **shown},
        output_parameters=[VERSION] if name == PUSHER else [],
    )  # fmt: skip
    task = component(
        **{NODE: plan.outputs[parameter_name(name)], CODE: plan.outputs[CODE]},
        **{
            key: tasks[channel.producer_node_query.id].outputs[channel.output_key]
            for key, channel in channels.items()
        },
    )
    task.after(*(tasks[upstream] for upstream in node.upstream_nodes))
    _place(config, task, name)
    return task


def _component(
    config: Config,
    step: str,
    description: str,
    *,
    parameters: Mapping[str, type] | None = None,
    inputs: Mapping[str, type] | None = None,
    outputs: Mapping[str, type] | None = None,
    output_parameters: Sequence[str] = (),
) -> Any:
    """A container component. KFP's decorator reads its interface from a function's signature."""

    def function(*_: Any) -> dsl.ContainerSpec:
        # The step's name is in the arguments, because the backend merges two components with equal
        # image, command and arguments, even if their inputs and outputs differ.
        return dsl.ContainerSpec(
            image=config.kubeflow.image,
            command=list(COMMAND),
            args=["--run-dir", config.run_dir, step, EXECUTOR_INPUT],
        )

    annotations = {
        **(parameters or {}),
        **{key: dsl.Input[kind] for key, kind in (inputs or {}).items()},
        **{key: dsl.Output[kind] for key, kind in (outputs or {}).items()},
        **{key: dsl.OutputPath(str) for key in output_parameters},
    }
    function.__name__ = parameter_name(step)
    function.__doc__ = description
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(n, _POSITIONAL, annotation=a) for n, a in annotations.items()]
    )
    return dsl.container_component(function)


def _kind(name: str) -> type[dsl.Artifact]:
    """Kubeflow's type for one of TFX's types.

    The server knows only its own types. A step takes TFX's types from the graph. `dsl.Artifact` is
    too general: the compiler connects it with every type, so it would not notice a wrong input.
    """
    return dsl.Model if name in ("Model", "PushedModel") else dsl.Dataset


def _place(config: Config, task: dsl.PipelineTask, step: str) -> None:
    """Sets the resources, volumes, retries and caching of a task."""
    pods = config.kubeflow
    needs = pods.steps.get(step, pods.resources)
    task.set_caching_options(step not in NEVER_CACHED | {PLAN, PUSHED, SUMMARY})
    _limit(task, needs)
    if pods.retries and step != PLAN:  # the plan fails because of wrong parameters
        task.set_retry(pods.retries, f"{pods.backoff_seconds}s", 2.0)
    kubernetes.set_security_context(task, run_as_non_root=True)
    kubernetes.use_field_path_as_env(task, RUN_ID, "metadata.labels['pipeline/runid']")
    if step == _REVIEW:
        kubernetes.use_field_path_as_env(task, ACCOUNT, "spec.serviceAccountName")
    if pods.image_pull_secret:
        kubernetes.set_image_pull_secrets(task, [pods.image_pull_secret])
    kubernetes.mount_pvc(task, pods.work_claim, pods.work_mount)
    if step in _READS_PHOTOS:
        kubernetes.mount_pvc(task, pods.photos_claim, pods.photos_mount)
    if step in _READS_SERVING:
        kubernetes.mount_pvc(task, pods.serving_claim, pods.serving_mount)
    if step == _TRAINER and pods.gpus:
        _on_gpus(config, task)


def _limit(task: dsl.PipelineTask, needs: Resources) -> None:
    task.set_cpu_request(needs.cpu).set_cpu_limit(needs.cpu)
    task.set_memory_request(needs.memory).set_memory_limit(needs.memory)


def _on_gpus(config: Config, task: dsl.PipelineTask) -> None:
    pods = config.kubeflow
    task.set_accelerator_type(pods.gpu_resource).set_accelerator_limit(pods.gpus)
    for label, value in pods.gpu_node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for taint in pods.gpu_tolerations:
        kubernetes.add_toleration(task, **taint.model_dump())
    # Collective operations between GPUs, and tf.data, need more than a pod's 64 MB.
    kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", "Memory", pods.shared_memory)
