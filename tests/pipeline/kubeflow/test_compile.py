"""The package meets the rules of KFP's backend."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp import components
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from components.errors import UserError
from pipeline import config
from pipeline.graph import NEVER_CACHED
from pipeline.kubeflow.compile import compile_package
from pipeline.kubeflow.parameters import KNOBS, OTHER_OPTIONS, arguments, configuration
from tests.pipeline.kubeflow.conftest import IMAGE
from tests.pipeline.local.test_runner import STEPS

GPU_NODES = "kubeflow.gpu_node_selector={accelerator.example/kind: l4}"


def load(*overrides: str, profile: str = "gpu", photos: str = "/photos/2024") -> config.Config:
    return config.load(
        profile=profile,
        photos=photos,
        run_dir="/work",
        here=False,
        overrides=[f"kubeflow.image={IMAGE}", *overrides],
    )


class Package:
    """A compiled package, read from its file."""

    def __init__(self, path: Path):
        self.text = path.read_text()
        self.documents = list(yaml.safe_load_all(self.text))
        self.spec = json_format.ParseDict(self.documents[0], pipeline_spec_pb2.PipelineSpec())
        executors = json_format.MessageToDict(self.spec.deployment_spec)["executors"]
        self.containers = {label: e["container"] for label, e in executors.items()}
        self.platform = self.documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        tasks = self.spec.components["comp-exit-handler-1"].dag.tasks
        (self.condition,) = [task for task in tasks.values() if task.trigger_policy.condition]
        self.tasks = {
            **{name: task for name, task in tasks.items() if task is not self.condition},
            **self.spec.components[self.condition.component_ref.name].dag.tasks,
            "summary": self.spec.root.dag.tasks["summary"],
        }


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    path = tmp_path_factory.mktemp("package") / "package.yaml"
    compile_package(load(GPU_NODES, "kubeflow.image_pull_secret=pull"), path)
    return Package(path)


def label(step: str) -> str:
    return "exec-" + re.sub(r"(?<=[a-z])(?=[A-Z])", "-", step).lower()


def test_it_is_a_pipeline_spec(package: Package) -> None:
    assert package.spec.schema_version == "2.1.0"
    assert package.spec.sdk_version == "kfp-2.16.1"
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,127}", package.spec.pipeline_info.name)
    components.load_component_from_text(package.text)


def test_there_is_a_task_for_each_node(package: Package) -> None:
    assert set(package.containers) == {label(s) for s in [*STEPS, "plan", "pushed", "summary"]}
    for name in package.tasks:
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name)
    for component in package.spec.components.values():
        for name in component.input_definitions.parameters:
            assert re.fullmatch(r"[a-z][a-z0-9_-]*", name)


def test_the_backend_keeps_components_apart(package: Package) -> None:
    """The backend merges components with equal image, command and arguments."""
    seen = {json.dumps([c["image"], c["command"], c["args"]]) for c in package.containers.values()}
    assert len(seen) == len(package.containers)


def test_names_stay_apart_when_the_local_runner_shortens_them(package: Package) -> None:
    names = [task.component_ref.name.removeprefix("comp-") for task in package.tasks.values()]
    assert len(set(names)) == len(names)


def test_every_command_exists(package: Package) -> None:
    for name, container in package.containers.items():
        python, dash_m, module = container["command"]
        assert (python, dash_m) == ("python", "-m")
        assert importlib.util.find_spec(module)
        *_, step, executor_input = container["args"]
        assert label(step) == name
        assert executor_input == "{{$}}"
        assert container["image"] == IMAGE


def test_argo_and_kubernetes_replace_nothing_in_the_arguments(package: Package) -> None:
    for container in package.containers.values():
        for argument in container["args"]:
            assert argument == "{{$}}" or not re.search(r"\{\{|\}\}|\$", argument)
            assert len(argument) < 128 * 1024
    defaults = json.dumps(package.documents[0]["root"]["inputDefinitions"])
    assert "{{" not in defaults and "$" not in defaults


def test_what_is_connected_has_one_type_and_the_server_knows_it(package: Package) -> None:
    known = {"system.Dataset", "system.Model", "system.Metrics", "system.HTML"}
    for task in package.tasks.values():
        mine = package.spec.components[task.component_ref.name]
        for output in mine.output_definitions.artifacts.values():
            assert output.artifact_type.schema_title in known
        for key, source in task.inputs.artifacts.items():
            made = source.task_output_artifact
            producer = package.tasks[made.producer_task].component_ref.name
            definitions = package.spec.components[producer].output_definitions.artifacts
            wanted = mine.input_definitions.artifacts[key].artifact_type.schema_title
            given = definitions[made.output_artifact_key].artifact_type.schema_title
            assert wanted == given


def test_the_open_source_backend_runs_everything(package: Package) -> None:
    executors = json_format.MessageToDict(package.spec.deployment_spec)["executors"].values()
    assert all(set(executor) == {"container"} for executor in executors)  # no importer, no resolver
    assert "lifecycle" not in package.text
    assert "system.Artifact" not in package.text


def test_the_graph_says_what_waits_for_what(package: Package) -> None:
    waits = {name: set(task.dependent_tasks) for name, task in package.tasks.items()}
    assert waits["transform"] == {
        "plan",
        "curated-schema",
        "example-validator",
        "photo-example-gen",
    }
    assert waits["serving-check"] == {"plan", "evaluator", "photo-example-gen", "trainer"}
    assert waits["served-model"] == {"plan"}


def test_a_task_of_its_own_runs_only_after_a_push(package: Package) -> None:
    (source,) = package.condition.inputs.parameters.values()
    made = source.task_output_parameter
    assert (made.producer_task, made.output_parameter_key) == ("pusher", "version")
    assert package.condition.trigger_policy.condition.endswith(" != 'none'")
    assert set(package.tasks["pushed"].inputs.parameters) == {"version"}


def test_the_cache_is_asked_where_that_is_safe(package: Package) -> None:
    fresh = {n for n, task in package.tasks.items() if not task.caching_options.enable_cache}
    never = {label(step).removeprefix("exec-") for step in NEVER_CACHED}
    ours = {"plan", "pushed", "summary"}
    assert fresh == never | ours
    for name in set(package.tasks) - ours:
        # `node` holds the fingerprint of the photos if needed; `code` is the hash of the code.
        assert set(package.tasks[name].inputs.parameters) == {"node", "code"}


def test_a_failed_step_is_tried_again_but_not_the_plan(package: Package) -> None:
    for name, task in package.tasks.items():
        policy = json_format.MessageToDict(task.retry_policy)
        if name == "plan":
            assert policy == {}
        else:
            assert policy["maxRetryCount"] == 2
            assert (policy["backoffDuration"], policy["backoffFactor"]) == ("60s", 2.0)
            # From the start of the first attempt: a training of days can be tried again.
            assert policy["backoffMaxDuration"] == "604800s"


def test_no_step_runs_as_root(package: Package) -> None:
    platform = package.documents[1]["platforms"]["kubernetes"]
    for executor in platform["deploymentSpec"]["executors"].values():
        assert executor["securityContext"] == {"runAsNonRoot": True}


def test_the_exit_handler_relies_on_nothing(package: Package) -> None:
    task = package.spec.root.dag.tasks["summary"]
    assert not task.inputs.parameters and not task.inputs.artifacts
    assert task.dependent_tasks == ["exit-handler-1"]
    strategy = task.trigger_policy.TriggerStrategy.ALL_UPSTREAM_TASKS_COMPLETED
    assert task.trigger_policy.strategy == strategy


def test_the_server_knows_the_fields_of_the_platform_document(package: Package) -> None:
    """The server ignores the whole document if it does not know one of its top-level fields."""
    assert set(package.documents[1]) == {"platforms"}
    platform = json_format.ParseDict(package.documents[1], pipeline_spec_pb2.PlatformSpec())
    executors = platform.platforms["kubernetes"].deployment_spec.executors
    for struct in executors.values():
        document = json_format.MessageToDict(struct)
        json_format.ParseDict(document, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
    assert set(executors) == set(package.containers)


def test_the_training_gets_gpus(package: Package) -> None:
    limits = package.containers["exec-trainer"]["resources"]["accelerator"]
    assert (limits["resourceType"], limits["resourceCount"]) == ("nvidia.com/gpu", "1")
    trainer = package.platform["exec-trainer"]
    assert trainer["nodeSelector"] == {"labels": {"accelerator.example/kind": "l4"}}
    assert trainer["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]
    (memory,) = trainer["emptyDirMounts"]
    assert (memory["mountPath"], memory["medium"]) == ("/dev/shm", "Memory")
    others = set(package.platform) - {"exec-trainer"}
    assert not any("nodeSelector" in package.platform[name] for name in others)
    assert not any("accelerator" in package.containers[n]["resources"] for n in others)


def test_pods_get_what_they_need_and_no_more(package: Package) -> None:
    mounts = {
        name: {mount["mountPath"]: mount["constant"] for mount in document["pvcMount"]}
        for name, document in package.platform.items()
    }
    readers = {path: {n for n in mounts if path in mounts[n]} for path in ("/photos", "/serving")}
    assert readers["/photos"] == {"exec-plan", "exec-photo-example-gen"}
    assert readers["/serving"] == {"exec-plan", "exec-served-model", "exec-pusher"}
    assert all(mount["/work"] == "goodseed-work" for mount in mounts.values())
    for name, document in package.platform.items():
        assert document["imagePullSecret"][0]["secretName"] == "pull"
        paths = [variable["fieldPath"] for variable in document["fieldPathAsEnv"]]
        account = ["spec.serviceAccountName"] if name == "exec-review" else []
        assert paths == ["metadata.labels['pipeline/runid']", *account]
        resources = package.containers[name]["resources"]
        assert resources["resourceCpuLimit"] and resources["resourceMemoryLimit"]


def test_parameters_have_defaults_and_descriptions(package: Package) -> None:
    definitions = package.documents[0]["root"]["inputDefinitions"]["parameters"]
    assert set(definitions) == {*KNOBS, OTHER_OPTIONS}
    for definition in definitions.values():
        assert definition["description"] and "defaultValue" in definition
    assert definitions["epochs"]["defaultValue"] == 30


@pytest.mark.parametrize("profile", config.profiles())
def test_parameters_are_the_whole_configuration(profile: str) -> None:
    loaded = load(profile=profile)
    back = configuration(as_the_server_gives(arguments(loaded)), Path(loaded.run_dir))
    want = loaded.model_dump(exclude={"kubeflow"})
    want["serving"]["root"] = "/serving"
    assert back.model_dump(exclude={"kubeflow"}) == want


def as_the_server_gives(values: dict[str, Any]) -> dict[str, Any]:
    """The server returns the numbers of a struct as floats."""
    return json.loads(json.dumps(values), parse_int=float)


def test_an_option_has_one_place() -> None:
    values = arguments(load())
    values[OTHER_OPTIONS]["trainer"]["epochs"] = 3
    with pytest.raises(UserError, match=r"trainer\.epochs is the pipeline's parameter epochs"):
        configuration(values, Path("/work"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("kubeflow.image=''", "name an image by digest"),
        ("kubeflow.image=registry:5000/goodseed", "a tag that changes with the code"),
        ("kubeflow.image=goodseed:latest", "a tag that changes with the code"),
        ("serving.root=s3://bucket/serving", "mount the bucket as a volume"),
        ("serving.root=/elsewhere", "outside the volume mounted at /serving"),
        ("trainer.initial_weights=/photos/a.h5", "outside the volume mounted at /work"),
        ("kubeflow.steps={Trainr: {cpu: 1}}", "no step Trainr"),
        ("data.labels_file='{{workflow.name}}.csv'", "no option may hold {{"),
        ("data.labels_file='$(HOME).csv'", r"no option may hold \$\("),
        ("data.labels_file=a$$b.csv", r"no option may hold \$\$"),
    ],
)
def test_what_pods_can_not_do_is_said_at_once(override: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        compile_package(load(override), tmp_path / "package.yaml")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("override", ["kubeflow.photos_claim=a.b", "kubeflow.image_pull_secret=A"])
def test_names_of_volumes_are_labels(override: str) -> None:
    with pytest.raises(UserError, match="kubeflow"):
        load(override)


@pytest.mark.slow
def test_an_image_by_digest(tmp_path: Path) -> None:
    compile_package(load(f"kubeflow.image=r/g@sha256:{'0' * 64}"), tmp_path / "package.yaml")
