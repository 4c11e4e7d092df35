"""The Kubernetes objects for Beam on Flink match each other and the configurations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import kubernetes_validate
import pytest
import yaml
from kubernetes.utils.quantity import parse_quantity

from components.beam_jobs import CACHE_SECONDS, WORKERS
from components.flink import PORT
from pipeline.config import Beam, Kubeflow
from tests.k8s.manifests import K8S, Manifests, Object, build

JOBMANAGER = "goodseed-flink-jobmanager"
TASKMANAGER = "goodseed-flink-taskmanager"
STEPS = "steps"  # the pods of a run


@pytest.fixture
def manifests() -> Manifests:
    return build("beam")


@pytest.fixture
def config(manifests: Manifests) -> dict[str, Any]:
    """Flink's configuration."""
    (files,) = manifests.all("ConfigMap")
    settings: dict[str, Any] = yaml.safe_load(files["data"]["config.yaml"])
    return settings


def pod(manifests: Manifests, deployment: str) -> Object:
    spec: Object = manifests.one("Deployment", deployment)["spec"]["template"]["spec"]
    return spec


def containers(manifests: Manifests) -> dict[str, Object]:
    pods = (pod(manifests, name) for name in (JOBMANAGER, TASKMANAGER))
    return {container["name"]: container for pod in pods for container in pod["containers"]}


def ports(container: Object) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container["ports"]}


def flags(container: Object) -> dict[str, str]:
    return dict(argument.removeprefix("--").split("=", 1) for argument in container["args"])


# ---- single objects -----------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_schema(manifests: Manifests, version: str) -> None:
    for object_ in manifests.objects:
        kubernetes_validate.validate(object_, version, strict=True)


def test_all_objects_are_in_the_namespace_of_the_pipeline(manifests: Manifests) -> None:
    namespace = manifests.one("Namespace")["metadata"]["name"]
    for object_ in manifests.objects:
        if object_["kind"] != "Namespace":
            assert object_["metadata"]["namespace"] == namespace, object_["kind"]
    names = {(object_["kind"], object_["metadata"]["name"]) for object_ in manifests.objects}
    for object_ in build("pipelines").objects:
        assert (object_["kind"], object_["metadata"]["name"]) in names


@pytest.mark.parametrize("deployment", [JOBMANAGER, TASKMANAGER])
def test_the_pods_have_few_rights(manifests: Manifests, deployment: str) -> None:
    spec = pod(manifests, deployment)
    assert spec["automountServiceAccountToken"] is False
    # Variables such as GOODSEED_FLINK_PORT would be of no use.
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"] == {  # user and group of the image, so of the steps
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 0,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
    for volume in spec["volumes"]:
        assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"]


def test_requests_and_limits(manifests: Manifests) -> None:
    for container in containers(manifests).values():
        resources = container["resources"]
        for kind in ("requests", "limits"):
            assert set(resources[kind]) == {"cpu", "memory"}
        # If a pod uses more memory than its request, the kernel may kill it.
        assert resources["requests"]["memory"] == resources["limits"]["memory"]


def test_all_containers_have_probes_of_their_own_ports(manifests: Manifests) -> None:
    for container in containers(manifests).values():
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            action = container[probe].get("httpGet") or container[probe]["tcpSocket"]
            assert action["port"] in ports(container)


def test_the_images_have_names_to_replace(manifests: Manifests) -> None:
    kustomization = yaml.safe_load((K8S / "beam/kustomization.yaml").read_text())
    images = {i["name"]: f"{i['newName']}:{i['newTag']}" for i in kustomization["images"]}
    assert set(images) == {"goodseed", "goodseed-beam"}
    for name, container in containers(manifests).items():
        assert container["image"] == images["goodseed" if name == "workers" else "goodseed-beam"]


# ---- references between objects -----------------------------------------------------------------


def test_selectors_match_the_pods(manifests: Manifests) -> None:
    for deployment in (JOBMANAGER, TASKMANAGER):
        spec = manifests.one("Deployment", deployment)["spec"]
        selector = {"app.kubernetes.io/name": deployment}
        assert spec["selector"]["matchLabels"] == selector
        assert selector.items() <= spec["template"]["metadata"]["labels"].items()
    service = manifests.one("Service")["spec"]
    assert service["selector"] == {"app.kubernetes.io/name": JOBMANAGER}


def test_the_workers_see_the_files_of_the_steps(manifests: Manifests) -> None:
    steps = Kubeflow()
    spec = pod(manifests, TASKMANAGER)
    claims = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in spec["volumes"]
        if "persistentVolumeClaim" in volume
    }
    mounts = {
        (claims[mount["name"]], mount["mountPath"], mount.get("readOnly", False))
        for mount in containers(manifests)["workers"]["volumeMounts"]
        if mount["name"] in claims
    }
    assert mounts == {
        (steps.photos_claim, steps.photos_mount, True),
        (steps.work_claim, steps.work_mount, False),
    }
    existing = {claim["metadata"]["name"] for claim in manifests.all("PersistentVolumeClaim")}
    assert set(claims.values()) <= existing


def test_a_change_of_flinks_configuration_replaces_the_pods(manifests: Manifests) -> None:
    (files,) = manifests.all("ConfigMap")
    assert re.fullmatch("goodseed-flink-[a-z0-9]{10}", files["metadata"]["name"])
    assert set(files["data"]) == {"config.yaml", "log4j2.properties"}
    for deployment in (JOBMANAGER, TASKMANAGER):
        volumes = {volume["name"]: volume for volume in pod(manifests, deployment)["volumes"]}
        assert volumes["config"]["configMap"]["name"] == files["metadata"]["name"]
    found = containers(manifests)
    del found["workers"]  # Flink's configuration is not for them
    for container in found.values():
        (mount,) = [m for m in container["volumeMounts"] if m["name"] == "config"]
        # With a subPath, the path would not be the folder.
        assert mount == {"name": "config", "mountPath": "/config", "readOnly": True}
        assert {"/config", "--flink-conf-dir=/config"} & set(container["args"])


# ---- ports --------------------------------------------------------------------------------------


def test_the_containers_listen_where_flinks_configuration_says(
    manifests: Manifests, config: dict[str, Any]
) -> None:
    found = containers(manifests)
    assert ports(found["jobmanager"]) == {
        "rpc": config["jobmanager.rpc.port"],
        "blob": config["blob.server.port"],
        "rest": config["rest.port"],
    }
    assert ports(found["taskmanager"]) == {
        "rpc": config["taskmanager.rpc.port"],
        "data": config["taskmanager.data.port"],
    }
    jobs = flags(found["job-server"])
    assert ports(found["job-server"]) == {
        "artifacts": int(jobs["artifact-port"]),
        "jobs": int(jobs["job-port"]),
    }
    assert jobs["flink-master"] == f"localhost:{config['rest.port']}"
    assert ports(found["workers"]) == {"workers": int(flags(found["workers"])["port"])}


def test_the_service_names_the_jobmanagers_pod(
    manifests: Manifests, config: dict[str, Any]
) -> None:
    service = manifests.one("Service")
    assert service["metadata"]["name"] == config["jobmanager.rpc.address"]
    # A headless Service does not map ports: its clients connect to the ports of the pod.
    assert service["spec"]["clusterIP"] == "None"
    found = containers(manifests)
    expected = ports(found["jobmanager"]) | ports(found["job-server"])
    assert {port["name"]: port["port"] for port in service["spec"]["ports"]} == expected
    assert {port["name"]: port["targetPort"] for port in service["spec"]["ports"]} == {
        name: name for name in expected
    }
    # The JobManager looks its own name up before it is ready.
    assert service["spec"]["publishNotReadyAddresses"] is True


def test_the_network_policies_allow_these_calls_only(manifests: Manifests) -> None:
    found = containers(manifests)
    jobmanager, jobs = ports(found["jobmanager"]), ports(found["job-server"])
    taskmanager = ports(found["taskmanager"])
    calls = {
        (STEPS, JOBMANAGER, jobmanager["rest"]),
        (STEPS, JOBMANAGER, jobs["artifacts"]),
        (STEPS, JOBMANAGER, jobs["jobs"]),
        (TASKMANAGER, JOBMANAGER, jobmanager["rpc"]),
        (TASKMANAGER, JOBMANAGER, jobmanager["blob"]),
        (JOBMANAGER, TASKMANAGER, taskmanager["rpc"]),
        (TASKMANAGER, TASKMANAGER, taskmanager["data"]),
    }
    policies = {p["metadata"]["name"]: p["spec"] for p in manifests.all("NetworkPolicy")}
    unchanged = build("pipelines").one("NetworkPolicy")
    assert policies.pop(unchanged["metadata"]["name"]) == unchanged["spec"]
    received, sent = set(), set()
    for policy in policies.values():
        own = selected(policy["podSelector"])
        assert ("Ingress" in policy["policyTypes"]) == (own != STEPS)
        assert "Egress" in policy["policyTypes"]
        received |= {(peer, own, port) for peer, port in peers(policy.get("ingress", []), "from")}
        sent |= {(own, peer, port) for peer, port in peers(policy["egress"], "to")}
    assert received == calls
    dns = {(own, "dns", 53) for own in (JOBMANAGER, TASKMANAGER)}
    assert sent == calls | dns


def peers(rules: list[Object], key: str) -> Iterator[tuple[str, int]]:
    for rule in rules:
        (peer,) = rule[key]
        for port in rule["ports"]:
            if "namespaceSelector" in peer:
                assert peer["podSelector"] == {"matchLabels": {"k8s-app": "kube-dns"}}
                yield "dns", port["port"]
            else:
                assert port["protocol"] == "TCP"
                yield selected(peer["podSelector"]), port["port"]


def selected(selector: Object) -> str:
    """Deployment whose pods a selector of a policy means, or STEPS."""
    if "matchLabels" in selector:
        (name,) = selector["matchLabels"].values()
        return str(name)
    own = build("pipelines").one("NetworkPolicy")["spec"]
    assert selector == own["podSelector"]
    return STEPS


# ---- sizes --------------------------------------------------------------------------------------


def mebibytes(text: str) -> int:
    number, unit = text[:-1], text[-1]
    assert unit == "m"
    return int(number)


def java(container: Object, option: str) -> int:
    """Mebibytes of an option of the JVM."""
    (value,) = [word for word in container["command"] if word.startswith(option)]
    return mebibytes(value.removeprefix(option))


def limit(container: Object) -> float:
    """Mebibytes."""
    return float(parse_quantity(container["resources"]["limits"]["memory"]) / 2**20)


def test_the_jvms_fit_into_their_containers(manifests: Manifests) -> None:
    found = containers(manifests)
    for name in ("jobmanager", "job-server", "taskmanager"):
        container = found[name]
        options = ("-Xmx", "-XX:MaxDirectMemorySize=", "-XX:MaxMetaspaceSize=")
        needed = sum(java(container, option) for option in options)
        # Threads, compiled code and the collector also need some.
        assert needed + 200 <= limit(container), name


def test_the_taskmanagers_memory(manifests: Manifests, config: dict[str, Any]) -> None:
    container = containers(manifests)["taskmanager"]
    prefix = "taskmanager.memory."
    memory = {
        key.removeprefix(prefix): mebibytes(value)
        for key, value in config.items()
        if key.startswith(prefix)
    }
    for part in ("network", "jvm-overhead"):
        assert memory[f"{part}.min"] == memory.pop(f"{part}.max")
    assert sum(memory.values()) <= limit(container)
    assert java(container, "-Xmx") == memory["framework.heap.size"] + memory["task.heap.size"]
    assert java(container, "-XX:MaxDirectMemorySize=") == (
        memory["framework.off-heap.size"] + memory["task.off-heap.size"] + memory["network.min"]
    )
    assert java(container, "-XX:MaxMetaspaceSize=") == memory["jvm-metaspace.size"]


def test_two_runs_and_flink_fit_into_the_quota(manifests: Manifests) -> None:
    runs = build("pipelines").one("ResourceQuota")["spec"]["hard"]
    hard = manifests.one("ResourceQuota")["spec"]["hard"]
    assert set(hard) == set(runs)
    for kind in ("requests", "limits"):
        for resource in ("cpu", "memory"):
            needed = parse_quantity(runs[f"{kind}.{resource}"])
            for deployment in manifests.all("Deployment"):
                for container in deployment["spec"]["template"]["spec"]["containers"]:
                    size = parse_quantity(container["resources"][kind][resource])
                    needed += deployment["spec"]["replicas"] * size
            assert parse_quantity(hard[f"{kind}.{resource}"]) >= needed, (kind, resource)
    # So an update does not need more.
    strategies = {d["metadata"]["name"]: d["spec"]["strategy"] for d in manifests.all("Deployment")}
    assert strategies[JOBMANAGER] == {"type": "Recreate"}
    assert strategies[TASKMANAGER]["rollingUpdate"]["maxSurge"] == 0


# ---- the steps ----------------------------------------------------------------------------------


def test_the_steps_find_flink_and_its_workers(manifests: Manifests) -> None:
    found = containers(manifests)
    assert ports(found["jobmanager"])["rest"] == PORT
    assert ports(found["workers"])["workers"] == WORKERS
    assert manifests.one("Deployment", TASKMANAGER)["spec"]["replicas"] == Beam().parallelism


# ---- failures -----------------------------------------------------------------------------------


def test_a_restart_finds_no_worker_of_the_failed_attempt(config: dict[str, Any]) -> None:
    assert config["restart-strategy.type"] == "exponential-delay"
    prefix = "restart-strategy.exponential-delay."
    delay = config[f"{prefix}initial-backoff"]
    assert delay == config[f"{prefix}max-backoff"]
    assert config[f"{prefix}jitter-factor"] == 0
    number, unit = delay.split()
    assert unit == "s" and int(number) > CACHE_SECONDS


def test_a_lost_taskmanager_does_not_use_up_the_attempts(config: dict[str, Any]) -> None:
    prefix = "restart-strategy.exponential-delay."
    delay = 1000 * int(config[f"{prefix}initial-backoff"].split()[0])
    attempts = config[f"{prefix}attempts-before-reset-backoff"]
    assert config["heartbeat.interval"] < config["heartbeat.timeout"] < attempts * delay / 2


# ---- the image ----------------------------------------------------------------------------------


def test_the_checksums_are_those_of_the_versions_in_the_pom() -> None:
    lines = (K8S / "beam/SHA256SUMS").read_text().splitlines()
    jars = [re.fullmatch(r"[0-9a-f]{64}  (\S+\.jar)", line) for line in lines]
    assert all(jars), "sha256sum's format"
    names = [jar[1] for jar in jars if jar]
    assert len(set(names)) == len(names)
    namespace = {"": "http://maven.apache.org/POM/4.0.0"}
    pom = ElementTree.parse(K8S / "beam/pom.xml").getroot()
    properties = pom.find("properties", namespace)
    assert properties is not None
    versions = {p.tag.rpartition("}")[2]: p.text for p in properties}
    dependencies = pom.findall(".//dependency", namespace)
    assert dependencies
    for dependency in dependencies:
        artifact = dependency.findtext("artifactId", None, namespace)
        version = dependency.findtext("version", "", namespace)
        version = re.sub(r"\$\{(.+?)\}", lambda match: versions[match[1]] or "", version)
        assert f"{artifact}-{version}.jar" in names
    # Flink's parts speak one protocol: they have one version, also those that others bring along.
    flink_jars = [n for n in names if re.match("flink-(?!shaded)", n)]
    assert all(name.endswith(f"-{versions['flink.version']}.jar") for name in flink_jars)
