"""Runs a package on this machine: kfp.local schedules it, Docker runs each step in the image."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import docker
import kfp.components
import kfp.local
import requests
import yaml
from docker.types import Mount

from components.errors import UserError
from pipeline.config import check_folder
from pipeline.kubeflow import parameters, report
from pipeline.kubeflow.launcher import RUN_ID
from pipeline.kubeflow.records import run_folder


def run(package: Path, photos: Path, run_dir: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Runs every step, prints their logs on standard output, and returns the run's summary.

    A container has folders of this machine where a pod has its volumes. It runs as the calling
    user and without capabilities, as pods do.

    Args:
        package: what `compile_package` wrote.
        photos: folder that is mounted at the package's `data.photos`.
        run_dir: folder that is mounted at the package's `run_dir`; made if missing. Models are
            pushed to its `serving/`.
        overrides: `section.key=value` instead of the package's.

    Raises:
        UserError: an argument is wrong, or Docker or the image is missing.
    """
    spec = _spec(package)
    defaults = {
        name: parameter.get("defaultValue")
        for name, parameter in spec["root"]["inputDefinitions"]["parameters"].items()
    }
    arguments = parameters.changes(defaults, overrides)
    if not photos.is_dir():
        raise UserError(f"{photos}: no such folder; see --photos")
    container = next(iter(spec["deploymentSpec"]["executors"].values()))["container"]
    inside = Path(container["args"][container["args"].index("--run-dir") + 1])
    _check_image(container["image"])
    run_dir, serving = run_dir.absolute(), run_dir.absolute() / "serving"
    check_folder(str(run_dir), "--run-dir")
    try:
        serving.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{run_dir}: {error.strerror}; see --run-dir") from None
    run_id = f"local-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    kfp.local.init(
        kfp.local.DockerRunner(
            mounts=[
                Mount(defaults["photos"], str(photos.absolute()), type="bind", read_only=True),
                Mount(str(inside), str(run_dir), type="bind"),
                Mount(defaults["serving_root"], str(serving), type="bind"),
            ],
            environment={RUN_ID: run_id},
            labels={RUN_ID: run_id},
            user=f"{os.getuid()}:{os.getgid()}",
            cap_drop=["ALL"],
        ),
        pipeline_root=str(run_dir / "artifacts"),
    )
    pipeline = kfp.components.load_component_from_file(str(package))
    folder = run_folder(run_dir, run_id)
    try:
        pipeline(**arguments)
    except RuntimeError as error:
        if not folder.is_dir():
            raise UserError(f"no step could start: {error}") from None
        return report.summary(folder)  # kfp.local skips the exit handler after a failure
    finally:
        _stop_containers(run_id)
    document: dict[str, Any] = json.loads((folder / "summary.json").read_text("utf-8"))
    return document


def _stop_containers(run_id: str) -> None:
    """Kills the containers that still run after a Ctrl-C; kfp.local leaves them."""
    for container in docker.from_env().containers.list(filters={"label": f"{RUN_ID}={run_id}"}):
        container.kill()


def _spec(package: Path) -> dict[str, Any]:
    try:
        spec: dict[str, Any] = next(yaml.safe_load_all(package.read_text("utf-8")))
        if spec["schemaVersion"] and spec["root"]["dag"]:
            return spec
    except OSError as error:
        raise UserError(f"{package}: {error.strerror}; goodseed kfp compile writes it") from None
    except (yaml.YAMLError, UnicodeDecodeError, LookupError, TypeError, StopIteration):
        pass
    raise UserError(f"{package}: not a package; goodseed kfp compile writes one")


def _check_image(image: str) -> None:
    try:
        client = docker.from_env()
        client.images.get(image)
    except docker.errors.ImageNotFound:
        raise UserError(f"no image {image} on this machine: pull or build it with docker") from None
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise UserError(
            f"Docker does not answer ({error}): is it running, and may you use it?"
        ) from None
