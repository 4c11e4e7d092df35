"""The objects that `kubectl apply -k` sends, as Python objects."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

K8S = Path(__file__).parents[2] / "k8s"

Object = dict[str, Any]


class Manifests:
    """The objects of one overlay or of the base."""

    def __init__(self, objects: list[Object]):
        self.objects = objects

    def all(self, kind: str) -> list[Object]:
        return [object_ for object_ in self.objects if object_["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> Object:
        found = [o for o in self.all(kind) if name in (None, o["metadata"]["name"])]
        assert len(found) == 1, f"{len(found)} objects {kind} {name or ''}"
        return found[0]

    @property
    def pod(self) -> Object:
        """The Deployment's pod template."""
        template: Object = self.one("Deployment")["spec"]["template"]
        return template

    @property
    def container(self) -> Object:
        (container,) = self.pod["spec"]["containers"]
        return container

    @property
    def flags(self) -> dict[str, str]:
        """The server's arguments by name."""
        split = (argument.removeprefix("--").partition("=") for argument in self.container["args"])
        return {name: value for name, _, value in split}

    def config(self, flag: str) -> str:
        """The text of the file that a flag names, found by mount, volume and ConfigMap."""
        path = Path(self.flags[flag])
        (mount,) = [
            mount
            for mount in self.container["volumeMounts"]
            if mount["mountPath"] == str(path.parent)
        ]
        # With a subPath, the container would not see a change of the file.
        assert "subPath" not in mount
        text: str = self.one("ConfigMap", self.volume(mount["name"])["configMap"]["name"])["data"][
            path.name
        ]
        return text

    def volume(self, name: str) -> Object:
        (volume,) = [volume for volume in self.pod["spec"]["volumes"] if volume["name"] == name]
        return volume


@functools.cache
def build(target: str) -> Manifests:
    """Reads k8s/base, or builds an overlay with kubectl. Without kubectl, skips the test."""
    if target == "base":
        return Manifests(_base())
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("needs kubectl to build the overlays")
    command = [kubectl, "kustomize", str(K8S / target)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert not built.stderr  # deprecations
    return Manifests(list(yaml.safe_load_all(built.stdout)))


def _base() -> list[Object]:
    """The same as kustomize makes, without the suffixes of the ConfigMaps' names."""
    folder = K8S / "base"
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    objects: list[Object] = [
        yaml.safe_load((folder / name).read_text()) for name in kustomization["resources"]
    ]
    for generator in kustomization["configMapGenerator"]:
        files = {Path(name).name: (folder / name).read_text() for name in generator["files"]}
        objects.append(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": generator["name"]},
                "data": files,
            }
        )
    return objects
