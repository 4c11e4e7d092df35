"""The pods of k8s/beam as containers, on a network of their own. Without a kubelet.

Each pod has a container that only holds its network, so that the others can be killed and started
again. Commands, arguments, ports and the rights of a container are those of the manifests.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from components.beam_jobs import WORKERS
from components.flink import PORT
from tests.conftest import ROOT
from tests.containers.conftest import POD

BEAM = ROOT / "k8s" / "beam"
NETWORK = "goodseed-flink"
JOBS = 8099

_START = 120  # seconds
# Java loads libraries from /tmp, as it may in a pod.
_RIGHTS = [one.replace("/tmp:", "/tmp:exec,") for one in POD]


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Cluster:
    """A JobManager's pod and two TaskManagers' pods.

    Args:
        images: the images by their names in the manifests.
        volume: a folder that the Python workers see, at the same path.
    """

    def __init__(self, images: dict[str, str], volume: Path):
        self._images = images
        self._volume = volume
        self.containers: list[str] = []
        self.address = ""  # of the JobManager's pod

    def __enter__(self) -> Cluster:
        docker("network", "create", "--internal", NETWORK)
        try:
            self._start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    @property
    def endpoint(self) -> str:
        return f"goodseed-flink:{JOBS}"

    @property
    def client(self) -> list[str]:
        """Docker's options for a container that calls the cluster."""
        return [f"--network={NETWORK}", f"--add-host=goodseed-flink:{self.address}"]

    def kill_task_manager(self) -> None:
        """kill -9 of a TaskManager; as the kubelet, it starts a new one."""
        docker("kill", "taskmanager-1")
        time.sleep(3)
        docker("start", "taskmanager-1")

    def kill_workers(self) -> None:
        """kill -9 of each TaskManager's Python worker: one of them may have no work just now."""
        for number in (1, 2):
            _, *processes = docker("top", f"workers-{number}", "-eo", "pid,args").splitlines()
            for process in processes:
                if "SdkHarness" in process:
                    with contextlib.suppress(ProcessLookupError):  # it has just ended
                        os.kill(int(process.split()[0]), signal.SIGKILL)

    def ask(self, path: str) -> Any:
        """What Flink's REST API answers."""
        with urllib.request.urlopen(f"http://{self.address}:{PORT}{path}") as answer:
            return json.load(answer)

    def done(self, step: str) -> int:
        """How many tasks are done of the job of a step that runs; 0 if there is none."""
        return sum(
            job["tasks"]["finished"]
            for job in self.ask("/jobs/overview")["jobs"]
            if job["name"].endswith(f"-{step}") and job["state"] == "RUNNING"
        )

    def logged(self, pattern: str) -> bool:
        """Whether a line of the JobManager's log has this pattern."""
        return re.search(pattern, self.logs("jobmanager")) is not None

    def logs(self, container: str) -> str:
        done = subprocess.run(
            ["docker", "logs", container],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    def _start(self) -> None:
        self._pod("jobmanager", "--hostname=goodseed-flink")
        self.address = _address("pod-jobmanager")
        for spec in _containers("jobmanager"):
            self._container(spec, spec["name"], "pod-jobmanager")
        for number in ("1", "2"):
            self._pod(number, f"--add-host=goodseed-flink:{self.address}")
            for spec in _containers("taskmanager"):
                self._container(spec, f"{spec['name']}-{number}", f"pod-{number}")
        self._await("job-server", "JobService started")
        for number in ("1", "2"):
            self._await(f"taskmanager-{number}", "Successful registration at resource manager")
            self._await_workers(_address(f"pod-{number}"))

    def _pod(self, name: str, *options: str) -> None:
        self._run(f"pod-{name}", f"--network={NETWORK}", *options, "--entrypoint=sleep",
                  self._images["goodseed-beam"], "infinity")  # fmt: skip

    def _container(self, spec: dict[str, Any], name: str, pod: str) -> None:
        arguments = [one.replace("$(POD_IP)", self.address) for one in spec["args"]]
        self._run(
            name, f"--network=container:{pod}", f"--volume={BEAM / 'config'}:/config:ro",
            f"--volume={self._volume}:{self._volume}", self._images[spec["image"]],
            *spec["command"], *arguments,
        )  # fmt: skip

    def _run(self, name: str, *arguments: str) -> None:
        docker("run", "--detach", f"--name={name}", *_RIGHTS, *arguments)
        self.containers.append(name)

    def _await(self, container: str, says: str) -> None:
        end = time.monotonic() + _START
        while says not in self.logs(container):
            assert time.monotonic() < end, self.logs(container)
            time.sleep(0.5)

    def _await_workers(self, address: str) -> None:
        """The pool logs nothing, so this waits for its port."""
        end = time.monotonic() + _START
        while True:
            try:
                socket.create_connection((address, WORKERS), timeout=5).close()
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.5)
            else:
                return

    def _remove(self) -> None:
        with contextlib.suppress(AssertionError):
            docker("rm", "--force", *reversed(self.containers))
        docker("network", "rm", NETWORK)


def _address(container: str) -> str:
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return docker("inspect", "--format", template, container)


def _containers(pod: str) -> list[dict[str, Any]]:
    deployment = yaml.safe_load((BEAM / f"{pod}.yaml").read_text())
    return list(deployment["spec"]["template"]["spec"]["containers"])


@contextlib.contextmanager
def container(name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Runs a container in the background; kills it at the end of the block if it still runs."""
    command = ["docker", "run", "--rm", f"--name={name}", *POD, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            subprocess.run(["docker", "kill", name], capture_output=True, check=False)
