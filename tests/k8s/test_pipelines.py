"""The Kubernetes objects for the pipeline match each other and the defaults of the package."""

from __future__ import annotations

import kubernetes_validate
import pytest
from kubernetes.utils.quantity import parse_quantity

from pipeline.config import Kubeflow
from tests.k8s.manifests import Manifests, build

NAME = "goodseed-pipeline"


@pytest.fixture
def manifests() -> Manifests:
    return build("pipelines")


@pytest.fixture
def priority() -> Manifests:
    return build("pipelines/gpu_priority")


def test_schema(manifests: Manifests) -> None:
    for version in ("1.30", "1.37"):
        for object_ in manifests.objects:
            kubernetes_validate.validate(object_, version, strict=True)


def test_schema_of_the_priority(priority: Manifests) -> None:
    for object_ in priority.objects:
        kubernetes_validate.validate(object_, "1.37", strict=True)


def test_all_objects_are_in_one_namespace_with_kubeflows_label(manifests: Manifests) -> None:
    namespace = manifests.one("Namespace")["metadata"]
    assert namespace["labels"]["pipelines.kubeflow.org/enabled"] == "true"
    for object_ in manifests.objects:
        if object_["kind"] != "Namespace":
            assert object_["metadata"]["namespace"] == namespace["name"], object_["kind"]
    subjects = manifests.one("RoleBinding")["subjects"]
    assert all(subject["namespace"] == namespace["name"] for subject in subjects)


def test_the_package_mounts_these_claims(manifests: Manifests) -> None:
    pods = Kubeflow()
    claims = {claim["metadata"]["name"]: claim for claim in manifests.all("PersistentVolumeClaim")}
    assert set(claims) == {pods.photos_claim, pods.serving_claim, pods.work_claim}
    for claim in claims.values():  # the steps of a run are on several nodes
        assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_account_has_few_rights(manifests: Manifests) -> None:
    binding = manifests.one("RoleBinding")
    assert binding["roleRef"]["name"] == manifests.one("Role")["metadata"]["name"] == NAME
    assert [subject["name"] for subject in binding["subjects"]] == [
        manifests.one("ServiceAccount")["metadata"]["name"]
    ]
    assert not manifests.all("ClusterRole") and not manifests.all("ClusterRoleBinding")
    for rule in manifests.one("Role")["rules"]:
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
        assert rule["apiGroups"] == ["argoproj.io"] or rule["resourceNames"], (
            "core objects need a name"
        )
        assert not {"delete", "update", "escalate", "bind"} & set(rule["verbs"])


def test_the_network_policy_allows_no_ingress_and_little_egress(manifests: Manifests) -> None:
    policy = manifests.one("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"] and "ingress" not in policy
    for rule in policy["egress"]:
        anywhere = "to" not in rule
        ports = {port["port"] for port in rule["ports"]}
        assert not anywhere or ports == {443, 6443}


def test_two_runs_fit_into_the_quota(manifests: Manifests) -> None:
    pods = Kubeflow()
    hard = manifests.one("ResourceQuota")["spec"]["hard"]
    largest = max(
        (pods.resources, *pods.steps.values()), key=lambda needs: parse_quantity(needs.memory)
    )
    for kind in ("requests", "limits"):
        for resource in ("cpu", "memory"):
            # Two trainings, and three other steps for each of them.
            needed = 2 * parse_quantity(getattr(largest, resource))
            needed += 6 * parse_quantity(getattr(pods.resources, resource))
            assert parse_quantity(hard[f"{kind}.{resource}"]) >= needed, (kind, resource)
    assert int(hard[f"requests.{pods.gpu_resource}"]) >= 1
    assert int(hard["persistentvolumeclaims"]) >= len(manifests.all("PersistentVolumeClaim"))
    # With a quota, Kubernetes rejects a container without requests and limits.
    (limits,) = manifests.one("LimitRange")["spec"]["limits"]
    assert limits["type"] == "Container"
    assert set(limits["default"]) == set(limits["defaultRequest"]) == {"cpu", "memory"}


def test_the_priority_is_for_gpu_pods_in_the_namespace_of_the_pipeline(
    manifests: Manifests, priority: Manifests
) -> None:
    class_ = priority.one("PriorityClass")
    policy = priority.one("MutatingAdmissionPolicy")
    binding = priority.one("MutatingAdmissionPolicyBinding")["spec"]
    assert binding["policyName"] == policy["metadata"]["name"]
    assert binding["matchResources"]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": manifests.one("Namespace")["metadata"]["name"]
    }
    (condition,) = policy["spec"]["matchConditions"]
    assert f"'{Kubeflow().gpu_resource}'" in condition["expression"]
    (mutation,) = policy["spec"]["mutations"]
    patch = mutation["jsonPatch"]["expression"]
    assert f'"/spec/priorityClassName", value: "{class_["metadata"]["name"]}"' in patch
    assert f'"/spec/priority", value: {class_["value"]}' in patch
    assert f'"/spec/preemptionPolicy", value: "{class_["preemptionPolicy"]}"' in patch
    assert not class_.get("globalDefault")
