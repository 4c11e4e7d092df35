"""The Kubernetes objects match each other, the flags of the server and its files."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from serving.server import config_files, flags
from tests.k8s.manifests import Manifests, Object, build

OVERLAYS = ["overlays/dev", "overlays/prod", "overlays/gpu"]


@pytest.fixture(params=["base", *OVERLAYS])
def manifests(request: pytest.FixtureRequest) -> Manifests:
    return build(request.param)


@pytest.fixture(params=["overlays/prod", "overlays/gpu"])
def production(request: pytest.FixtureRequest) -> Manifests:
    return build(request.param)


@pytest.fixture
def model(manifests: Manifests) -> ModelConfig:
    return models(manifests)


def models(manifests: Manifests) -> ModelConfig:
    text = manifests.config("model_config_file")
    (model,) = text_format.Parse(text, ModelServerConfig()).model_config_list.config
    return model


# ---- single objects -----------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_schema(manifests: Manifests, version: str) -> None:
    for object_ in manifests.objects:
        kubernetes_validate.validate(object_, version, strict=True)


def test_the_namespace_enforces_the_security_settings_of_the_pods(manifests: Manifests) -> None:
    namespace = manifests.one("Namespace")["metadata"]
    assert namespace["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for object_ in manifests.objects:
        if object_["kind"] != "Namespace" and manifests is not build("base"):
            assert object_["metadata"]["namespace"] == namespace["name"], object_["kind"]


def test_the_container_has_few_rights(manifests: Manifests) -> None:
    pod, container = manifests.pod["spec"], manifests.container
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    for mount in container["volumeMounts"]:
        assert mount.get("readOnly") or "emptyDir" in manifests.volume(mount["name"])


def test_requests_and_limits(manifests: Manifests) -> None:
    resources = manifests.container["resources"]
    for kind in ("requests", "limits"):
        assert {"cpu", "memory"} <= set(resources[kind])
    # If a pod uses more memory than its request, the kernel may kill it.
    assert resources["requests"]["memory"] == resources["limits"]["memory"]


def test_the_image_is_pinned(manifests: Manifests) -> None:
    assert re.fullmatch(
        r"tensorflow/serving(:\d+\.\d+\.\d+(-gpu)?)?(@sha256:[0-9a-f]{64})?",
        manifests.container["image"],
    )
    assert {":", "@"} & set(manifests.container["image"])


# ---- references between objects -----------------------------------------------------------------


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def test_selectors_match_the_pods(manifests: Manifests) -> None:
    labels = manifests.pod["metadata"]["labels"]
    assert selects(manifests.one("Service")["spec"]["selector"], labels)
    assert selects(manifests.one("Deployment")["spec"]["selector"]["matchLabels"], labels)
    assert selects(manifests.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"], labels)
    for budget in manifests.all("PodDisruptionBudget"):
        assert selects(budget["spec"]["selector"]["matchLabels"], labels)
    spread = manifests.pod["spec"]["topologySpreadConstraints"]
    assert {constraint["topologyKey"] for constraint in spread} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }
    for constraint in spread:
        assert selects(constraint["labelSelector"]["matchLabels"], labels)


def test_ports_by_name(manifests: Manifests) -> None:
    ports = {port["name"]: port["containerPort"] for port in manifests.container["ports"]}
    assert ports == {
        "grpc": int(manifests.flags["port"]),
        "http": int(manifests.flags["rest_api_port"]),
    }
    service = manifests.one("Service")["spec"]
    assert {port["name"]: port["targetPort"] for port in service["ports"]} == {
        name: name for name in ports
    }
    # A headless Service does not map ports: its clients connect to the ports of the pod.
    assert service["clusterIP"] == "None"
    assert {port["name"]: port["port"] for port in service["ports"]} == ports
    assert {port["name"]: port["appProtocol"] for port in service["ports"]} == {
        "grpc": "kubernetes.io/h2c",
        "http": "http",
    }
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert manifests.container[probe]["httpGet"]["port"] == "http"


def test_the_network_policy_allows_tills_and_prometheus_only(manifests: Manifests) -> None:
    policy = manifests.one("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"] and "egress" not in policy
    allowed = {rule["ports"][0]["port"]: rule for rule in policy["ingress"]}
    assert set(allowed) == {
        port["targetPort"] for port in manifests.one("Service")["spec"]["ports"]
    }
    assert all(len(rule["ports"]) == len(rule["from"]) == 1 for rule in policy["ingress"])
    assert allowed["grpc"]["from"] == [
        {"namespaceSelector": {"matchLabels": {"goodseed/pos": "true"}}}
    ]
    # Both selectors are in one entry, so a pod has to match both.
    assert allowed["http"]["from"][0].keys() == {"namespaceSelector", "podSelector"}


def test_autoscaler_and_budget_fit_the_deployment(manifests: Manifests) -> None:
    deployment = manifests.one("Deployment")
    for autoscaler in manifests.all("HorizontalPodAutoscaler"):
        target = autoscaler["spec"]["scaleTargetRef"]
        assert target == {
            "apiVersion": deployment["apiVersion"],
            "kind": deployment["kind"],
            "name": deployment["metadata"]["name"],
        }
        assert "replicas" not in deployment["spec"]  # an apply would overwrite it
        assert 1 < autoscaler["spec"]["minReplicas"] < autoscaler["spec"]["maxReplicas"]
    assert bool(manifests.all("HorizontalPodAutoscaler")) == bool(
        manifests.all("PodDisruptionBudget")
    )


def test_the_serving_root_is_read_only_and_holds_the_model(
    manifests: Manifests, model: ModelConfig
) -> None:
    (mount,) = [m for m in manifests.container["volumeMounts"] if m["name"] == "serving-root"]
    claim = manifests.volume("serving-root")["persistentVolumeClaim"]
    assert claim == {
        "claimName": manifests.one("PersistentVolumeClaim")["metadata"]["name"],
        "readOnly": True,
    }
    assert mount["readOnly"] and model.base_path == f"{mount['mountPath']}/{model.name}"


# ---- the server: flags, files, probes -----------------------------------------------------------


def test_the_server_knows_the_flags(manifests: Manifests) -> None:
    known = {field.name: type(field.default) for field in dataclasses.fields(flags.Flags)}
    del known["host"]  # only the local server has it
    assert set(manifests.flags) <= set(known)
    values = dict(manifests.flags)
    for name, value in values.items():
        values[name] = value.replace("$(CPUS)", "2")
        assert known[name] is not bool or value in ("true", "false")
    flags.parse([f"--{name}={value}" for name, value in values.items()])


def test_the_flags_name_all_files(manifests: Manifests) -> None:
    files = {
        Path(value).name: manifests.config(flag)
        for flag, value in manifests.flags.items()
        if flag.endswith("_file")
    }
    assert all(files.values())
    maps = manifests.all("ConfigMap")
    assert {key for map_ in maps for key in map_["data"]} == set(files)


def test_a_change_of_labels_keeps_the_pods_but_other_changes_replace_them(
    manifests: Manifests,
) -> None:
    names = [map_["metadata"]["name"] for map_ in manifests.all("ConfigMap")]
    assert "goodseed-models" in names
    if manifests is not build("base"):
        assert any(re.fullmatch("goodseed-serving-[a-z0-9]{10}", name) for name in names)
    assert int(manifests.flags["model_config_file_poll_wait_seconds"]) > 0
    # At its start, the server has no version to check a label against.
    assert manifests.flags["allow_version_labels_for_unavailable_models"] == "true"


def test_batching(manifests: Manifests) -> None:
    text = manifests.config("batching_parameters_file")
    batching = text_format.Parse(text, config_files.BatchingParameters())
    assert manifests.flags["enable_batching"] == "true"
    # A request holds its thread while its batch fills (session_bundle_config.proto).
    assert int(manifests.flags["grpc_max_threads"]) >= 2 * batching.max_batch_size.value
    cpus = int(manifests.container["resources"]["limits"]["cpu"])
    assert batching.num_batch_threads.value >= cpus  # otherwise a core would be idle
    sizes = list(batching.allowed_batch_sizes)
    assert sizes == sorted(set(sizes))
    assert not sizes or sizes[-1] == batching.max_batch_size.value


def test_the_annotations_give_the_path_of_the_metrics(manifests: Manifests) -> None:
    annotations = manifests.pod["metadata"]["annotations"]
    assert annotations["prometheus.io/scrape"] == "true"
    assert annotations["prometheus.io/port"] == manifests.flags["rest_api_port"]
    text = manifests.config("monitoring_config_file")
    monitoring = text_format.Parse(text, config_files.MonitoringConfig()).prometheus_config
    assert monitoring.enable and monitoring.path == annotations["prometheus.io/path"]


def test_the_paths_of_the_probes(manifests: Manifests, model: ModelConfig) -> None:
    def path(probe: str) -> str:
        return str(manifests.container[probe]["httpGet"]["path"])

    assert path("livenessProbe") == f"/v1/models/{model.name}"
    assert path("startupProbe") == f"/v1/models/{model.name}/metadata"
    by_label = model.model_version_policy.WhichOneof("policy_choice") == "specific"
    stable = "/labels/stable" if by_label else ""
    assert path("readinessProbe") == f"/v1/models/{model.name}{stable}/metadata"


def test_a_pod_answers_until_all_tills_have_another_connection(manifests: Manifests) -> None:
    pairs = [pair.split("=") for pair in manifests.flags["grpc_channel_arguments"].split(",")]
    arguments = {name: int(value) / 1000 for name, value in pairs}
    # gRPC varies the age by ± 10 % (GRPC_ARG_MAX_CONNECTION_AGE_MS).
    longest = 1.1 * arguments["grpc.max_connection_age_ms"]
    longest += arguments["grpc.max_connection_age_grace_ms"]
    wait = manifests.container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert longest < wait < manifests.pod["spec"]["terminationGracePeriodSeconds"]


def test_threads_follow_the_cpu_limit(manifests: Manifests) -> None:
    env = {entry["name"]: entry for entry in manifests.container["env"]}
    assert env["CPUS"]["valueFrom"] == {"resourceFieldRef": {"resource": "limits.cpu"}}
    for flag in ("tensorflow_intra_op_parallelism", "tensorflow_inter_op_parallelism"):
        assert manifests.flags[flag] == "$(CPUS)"


# ---- overlays -----------------------------------------------------------------------------------


def test_development_serves_the_newest_version() -> None:
    dev = build("overlays/dev")
    assert models(dev).model_version_policy.latest.num_versions == 1
    assert dev.one("Deployment")["spec"]["replicas"] == 1
    assert not dev.all("HorizontalPodAutoscaler")
    assert dev.one("Namespace")["metadata"]["name"] == "goodseed-dev"


def test_a_push_does_not_change_production(production: Manifests) -> None:
    policy = models(production).model_version_policy
    assert policy.WhichOneof("policy_choice") == "specific"
    assert set(models(production).version_labels.values()) <= set(policy.specific.versions)
    assert production.one("Namespace")["metadata"]["name"] == "goodseed"


def test_production_survives_the_loss_of_a_pod(production: Manifests) -> None:
    least = production.one("HorizontalPodAutoscaler")["spec"]["minReplicas"]
    assert least > production.one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    rolling = production.one("Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert (rolling["maxUnavailable"], rolling["maxSurge"]) in ((0, 1), (1, 0))


def version_of(manifests: Manifests) -> str:
    return str(manifests.container["image"]).partition(":")[2].partition("@")[0]


def test_the_gpu_variant_is_production_on_gpus() -> None:
    prod, gpu = build("overlays/prod"), build("overlays/gpu")
    assert version_of(gpu) == version_of(prod) + "-gpu"
    assert gpu.container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in gpu.pod[
        "spec"
    ]["tolerations"]
    assert _identities(gpu) == _identities(prod)
    assert gpu.config("model_config_file") == prod.config("model_config_file")
    assert gpu.config("batching_parameters_file") != prod.config("batching_parameters_file")
    assert gpu.config("monitoring_config_file") == prod.config("monitoring_config_file")


def _identities(manifests: Manifests) -> set[Any]:
    def identity(object_: Object) -> tuple[str, str]:
        name = object_["metadata"]["name"]
        return object_["kind"], re.sub("^(goodseed-serving)-[a-z0-9]{10}$", r"\1", name)

    return {identity(object_) for object_ in manifests.objects}
