"""Finds the versions of the models on disk, and loads, swaps and unloads them."""

from __future__ import annotations

import gc
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import grpc
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from serving.server import metrics
from serving.server.errors import ServingError, invalid_argument, not_found
from serving.server.flags import Flags
from serving.server.servable import Servable

START, LOADING, AVAILABLE, END = (
    ModelVersionStatus.START,
    ModelVersionStatus.LOADING,
    ModelVersionStatus.AVAILABLE,
    ModelVersionStatus.END,
)

_NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)

_log = logging.getLogger(__name__)


@dataclass
class Version:
    """A version of a model whose folder was seen.

    Attributes:
        state: of ModelVersionStatus.
        error: why the last attempt to load it failed.
        servable: what answers while it is AVAILABLE.
        failures: attempts to load it that failed.
        next_try: when to try again, by the monotonic clock.
        wanted: whether the configuration and the disk still have it.
    """

    name: str
    number: int
    folder: str
    state: int = START
    error: ServingError | None = None
    servable: Servable | None = None
    failures: int = 0
    next_try: float = 0.0
    wanted: bool = True

    def __str__(self) -> str:
        """As TensorFlow Serving names a servable in its log."""
        return f"{{name: {self.name} version: {self.number}}}"


class Versions:
    """The versions of all models; every method may be called from any thread.

    One thread looks at the folders and loads and unloads, one version at a time. A version that is
    no longer wanted is unloaded when a wanted one can answer, or when none is wanted. After that,
    no new request gets it. A request that already has its servable keeps it until the answer.
    """

    def __init__(self, load: Callable[[str, int, str], Servable], flags: Flags):
        """Starts with no model.

        Args:
            load: loads and warms up (model's name, version, folder), or raises ServingError.
            flags: how often to look at the folders and to try again.
        """
        self._load_servable = load
        self._wait = flags.file_system_poll_wait_seconds
        self._retries = flags.max_num_load_retries
        self._retry_seconds = flags.load_retry_interval_micros / 1e6
        self._models: dict[str, ModelConfig] = {}
        self._versions: dict[str, dict[int, Version]] = {}
        self._changed = threading.Condition()
        self._look = threading.Event()
        self._closed = False
        threading.Thread(target=self._run, daemon=True, name="versions").start()

    def set_models(self, models: Iterable[ModelConfig]) -> None:
        """Serves these models and no others; returns before they are loaded."""
        with self._changed:
            self._models = {model.name: model for model in models}
        if self._wait >= 0:
            self._look.set()

    def close(self) -> None:
        """Stops looking for versions. Loaded versions still answer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._look.set()

    def get(self, name: str, number: int | None) -> Servable:
        """A version, or the newest one that answers; raises ServingError NOT_FOUND."""
        with self._changed:
            known = self._versions.get(name, {})
            found = {n: v.servable for n, v in known.items() if v.servable and number in (None, n)}
        if found:
            return found[max(found)]
        asked = f"Latest({name})" if number is None else f"Specific({name}, {number})"
        raise not_found(f"Servable not found for request: {asked}")

    def states(self, name: str) -> dict[int, tuple[int, ServingError | None]]:
        """State and error of each version that is or was there, the newest version first."""
        with self._changed:
            known = self._versions.get(name, {})
            return {n: (known[n].state, known[n].error) for n in sorted(known, reverse=True)}

    def wait_until_available(
        self,
        names: Iterable[str],
        seconds: float = math.inf,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Waits up to `seconds` until each of the models has a version that answers.

        `check` is called twice a second and ends the wait when it raises.

        Raises:
            ServingError: UNKNOWN, a model's newest version can't be loaded; DEADLINE_EXCEEDED;
                CANCELLED, the server stops.
        """
        until = time.monotonic() + seconds
        with self._changed:
            while not self._closed:
                check()
                newest = {
                    name: self._newest_settled(name) for name in names if name in self._models
                }
                if all(newest.values()):
                    failed = [v for v in newest.values() if v and v.state == END]
                    if failed:
                        raise ServingError(grpc.StatusCode.UNKNOWN, _unavailable(failed))
                    return
                if time.monotonic() > until:
                    absent = ", ".join(name for name, version in newest.items() if not version)
                    raise ServingError(
                        grpc.StatusCode.DEADLINE_EXCEEDED,
                        f"no version of {absent} was loaded within {seconds:g} s; the server goes "
                        "on looking for one",
                    )
                self._changed.wait(0.5)
        raise ServingError(grpc.StatusCode.CANCELLED, "the server stops")

    def _newest_settled(self, name: str) -> Version | None:
        """The newest version that answers or that failed for good."""
        known = self._versions.get(name, {})
        settled = [n for n, v in known.items() if v.servable or (v.state == END and v.wanted)]
        return known[max(settled)] if settled else None

    # The methods below run in the thread of `_run`.

    def _run(self) -> None:
        while True:
            self._look.wait(self._pause())
            if self._closed:
                return
            self._look.clear()
            models = self._models
            for name in self._versions.keys() - models.keys():
                self._reconcile(name, {})
            for name, model in models.items():
                try:
                    self._reconcile(name, wanted_versions(model))
                except ServingError as error:
                    _log.error("Encountered a filesystem access error: %s", error.message)
                except Exception:  # the thread has to go on, for the other models
                    _log.exception("Looking for versions of %s failed", name)

    def _pause(self) -> float | None:
        """Seconds until the next look; None: until the models are set."""
        known = [v for versions in self._versions.values() for v in versions.values()]
        # At least a second: if the folder can't be read, a version may wait after its next try.
        times = [max(1.0, v.next_try - time.monotonic()) for v in known if v.state == LOADING]
        return min(times + [self._wait] * (self._wait > 0), default=None)

    def _reconcile(self, name: str, folders: dict[int, str]) -> None:
        """Loads the versions in `folders`, and unloads the others as far as possible."""
        with self._changed:
            known = self._versions.setdefault(name, {})
            for version in known.values():
                version.wanted = version.number in folders
            for number, folder in folders.items():
                # An unloaded version may come back. A failed one may only after it was gone.
                if number not in known or (known[number].state == END and not known[number].error):
                    known[number] = Version(name, number, folder)
            for version in known.values():
                if not version.wanted and version.state in (START, LOADING, END):
                    version.state, version.error = END, None
        for number in sorted(folders, reverse=True):
            version = known[number]
            if version.state in (START, LOADING) and version.next_try <= time.monotonic():
                self._load(version)
        if not folders or any(known[number].servable for number in folders):
            for version in known.values():
                if version.servable and not version.wanted:
                    self._unload(version)

    def _load(self, version: Version) -> None:
        self._change(version, LOADING)
        _log.info("Loading servable version %s from %s", version, version.folder)
        started = time.perf_counter()
        error, servable = None, None
        try:
            servable = self._load_servable(version.name, version.number, version.folder)
        except ServingError as raised:
            # A new one: the traceback of `raised` would keep the model in memory.
            error = ServingError(raised.code, raised.message)
        except Exception as raised:  # a broken folder can raise anything
            error = ServingError(grpc.StatusCode.UNKNOWN, f"{type(raised).__name__}: {raised}")
        seconds = time.perf_counter() - started
        metrics.observe_load(version.name, version.number, seconds, error is not None)
        version.error = error
        if error is None:
            self._change(version, AVAILABLE, servable)
            _log.info("Successfully loaded servable version %s", version)
            return
        gc.collect()  # as after an unload
        _log.error("Servable: %s load failure: %s", version, error)
        version.failures += 1
        version.next_try = time.monotonic() + self._retry_seconds
        self._change(version, END if version.failures > self._retries else LOADING)

    def _unload(self, version: Version) -> None:
        self._change(version, END)
        gc.collect()  # a loaded model has reference cycles: this frees its weights now
        _log.info("Unloaded servable version %s", version)

    def _change(self, version: Version, state: int, servable: Servable | None = None) -> None:
        with self._changed:
            version.state, version.servable = state, servable
            self._changed.notify_all()


def wanted_versions(model: ModelConfig) -> dict[int, str]:
    """The versions on disk that a model's policy wants: number → folder.

    Raises:
        ServingError: the base path can't be read.
    """
    base = Path(model.base_path)
    try:
        names = sorted(child.name for child in base.iterdir())
    except OSError as error:
        raise invalid_argument(
            f"Could not find base path {base} for servable {model.name} with error {error.strerror}"
        ) from error
    numbers = [name for name in names if _NUMBER.fullmatch(name) and int(name) < 2**63]
    found = {int(name): str(base / name) for name in numbers}
    if not found:
        _log.warning(
            "No versions of servable %s found under base path %s. Did you forget to name your "
            "leaf directory as a number (eg. '/1/')?", model.name, base,
        )  # fmt: skip
    policy = model.model_version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            wanted = set(found)
        case "specific":
            wanted = set(policy.specific.versions)
            if missing := wanted - set(found):
                _log.warning("Servable %s: no versions %s in %s", model.name, missing, base)
        case _:
            wanted = set(sorted(found)[-max(1, policy.latest.num_versions) :])
    return {number: folder for number, folder in found.items() if number in wanted}


def _unavailable(failed: list[Version]) -> str:
    each = "".join(f"{{{version} due to error: {version.error}}}, " for version in failed)
    return f"{len(failed)} model(s) did not become available: {{{each}}}"
