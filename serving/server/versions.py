"""Which versions of which models are there: found on disk, loaded, swapped, unloaded.

A version that is no longer wanted goes when a wanted one can answer, or when none is wanted.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.config import model_server_config_pb2

from serving.server import metrics
from serving.server.errors import ServingError, invalid_argument, not_found
from serving.server.servable import Servable

START, LOADING, AVAILABLE, UNLOADING, END = (
    ModelVersionStatus.START,
    ModelVersionStatus.LOADING,
    ModelVersionStatus.AVAILABLE,
    ModelVersionStatus.UNLOADING,
    ModelVersionStatus.END,
)

_NUMBER = re.compile(r"[0-9]{1,19}", re.ASCII)
_LARGEST = 2**63 - 1

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Version:
    """One version of a model, from when its folder was seen until it is replaced.

    Attributes:
        name: the model's name.
        number: the version.
        folder: where it lies.
        state: of ModelVersionStatus.
        error: why it ended, if it failed.
        servable: what answers, while it is loaded.
        users: requests that are being answered.
        unwanted: set while the configuration or the disk does not want it.
    """

    name: str
    number: int
    folder: str
    state: int = START
    error: ServingError | None = None
    servable: Servable | None = None
    users: int = 0
    unwanted: threading.Event = field(default_factory=threading.Event)

    @property
    def wanted(self) -> bool:
        """Whether it should be loaded."""
        return not self.unwanted.is_set()

    def __str__(self) -> str:
        """As TensorFlow Serving names a servable in its log."""
        return f"{{name: {self.name} version: {self.number}}}"


class Versions:
    """The versions of all models; every method may be called from any thread."""

    def __init__(
        self,
        load: Callable[[str, int, str], Servable],
        *,
        poll_wait_seconds: float,
        max_num_load_retries: int,
        load_retry_seconds: float,
    ):
        """Starts with no model.

        Args:
            load: loads and warms up (model's name, version, folder), or raises ServingError.
            poll_wait_seconds: between two looks at the folders; 0: one look when the models are
                set; below 0: none at all.
            max_num_load_retries: how often a load that failed is tried again.
            load_retry_seconds: wait before each further try.
        """
        self._load_servable = load
        self._wait = poll_wait_seconds
        self._retries = max(0, max_num_load_retries)
        self._retry_seconds = max(0.0, load_retry_seconds)
        self._configs: dict[str, model_server_config_pb2.ModelConfig] = {}
        self._versions: dict[str, dict[int, Version]] = {}
        self._changed = threading.Condition()
        self._polling = threading.Lock()
        self._one_load = threading.Lock()
        self._closed = threading.Event()
        self._busy = 0  # threads that load or unload
        if self._wait > 0:
            threading.Thread(target=self._poll_forever, daemon=True, name="poll").start()

    def set_models(self, configs: Iterable[model_server_config_pb2.ModelConfig]) -> None:
        """Serves these models and no others; returns before they are loaded."""
        with self._polling:
            self._configs = {config.name: config for config in configs}
        if self._wait >= 0:
            self._poll()

    def wait_until_available(
        self, names: Iterable[str], seconds: float | None, check: Callable[[], None]
    ) -> None:
        """Waits until each of the models has a version that answers.

        Args:
            names: of the models.
            seconds: the longest wait; None: without bound.
            check: is called now and then; it ends the wait when it raises.

        Raises:
            ServingError: UNKNOWN, a model's newest version can't be loaded; DEADLINE_EXCEEDED;
                CANCELLED, the server stops.
        """
        until = None if seconds is None else time.monotonic() + seconds
        with self._changed:
            while not self._closed.is_set():
                check()
                newest = {n: self._newest_settled(n) for n in names if n in self._configs}
                if all(newest.values()):
                    failed = [v for v in newest.values() if v and v.error]
                    if failed:
                        raise ServingError(grpc.StatusCode.UNKNOWN, _unavailable(failed))
                    return
                if until is not None and time.monotonic() > until:
                    absent = ", ".join(sorted(n for n, version in newest.items() if not version))
                    raise ServingError(
                        grpc.StatusCode.DEADLINE_EXCEEDED,
                        f"no version of {absent} was loaded within {seconds:g} s; the server goes "
                        "on looking for one",
                    )
                self._changed.wait(0.5)
        raise ServingError(grpc.StatusCode.CANCELLED, "the server stops")

    @contextlib.contextmanager
    def acquire(self, name: str, number: int | None) -> Iterator[Servable]:
        """A version, or the newest one that answers; it stays loaded within the context.

        Raises:
            ServingError: NOT_FOUND.
        """
        with self._changed:
            found = self._available(name)
            version = found.get(number if number is not None else max(found, default=0))
            if version is None or version.servable is None:
                asked = f"Latest({name})" if number is None else f"Specific({name}, {number})"
                raise not_found(f"Servable not found for request: {asked}")
            version.users += 1
        try:
            yield version.servable
        finally:
            with self._changed:
                version.users -= 1
                if not version.users:
                    self._changed.notify_all()

    def states(self, name: str) -> Mapping[int, tuple[int, ServingError | None]]:
        """State and error of each version that is or was there, the newest version first."""
        with self._changed:
            known = self._versions.get(name, {})
            return {n: (known[n].state, known[n].error) for n in sorted(known, reverse=True)}

    def close(self, seconds: float) -> bool:
        """Stops to look for versions, and waits for requests and loads.

        Returns:
            Whether all of them ended within `seconds`.
        """
        self._closed.set()
        with self._changed:
            for version in self._each():
                version.unwanted.set()
            self._changed.notify_all()
            return self._changed.wait_for(
                lambda: not self._busy and not any(v.users for v in self._each()), seconds
            )

    # What the folders hold.

    def _poll_forever(self) -> None:
        while not self._closed.wait(self._wait):
            self._poll()

    def _poll(self) -> None:
        with self._polling:
            found: dict[str, dict[int, str]] = {}
            for config in self._configs.values():
                try:
                    found[config.name] = wanted_versions(config)
                except ServingError as error:
                    _log.error("Encountered a filesystem access error: %s", error.message)
            with self._changed:
                if self._closed.is_set():
                    return
                for name in set(self._versions) - set(self._configs):
                    self._want(name, {})
                for name, folders in found.items():
                    self._want(name, folders)

    def _want(self, name: str, folders: Mapping[int, str]) -> None:
        known = self._versions.setdefault(name, {})
        for version in known.values():
            if version.number not in folders:
                version.unwanted.set()
        for number, folder in sorted(folders.items(), reverse=True):
            old = known.get(number)
            if old is None or (old.state == END and not old.wanted):
                known[number] = Version(name, number, folder)
                self._start(self._load, known[number])
            elif old.state != UNLOADING:  # else it comes back when it has gone
                old.unwanted.clear()
        self._settle(name)

    # What is done about it; the lock is held, except in `_load` and `_unload`.

    def _each(self) -> Iterator[Version]:
        for known in self._versions.values():
            yield from known.values()

    def _available(self, name: str) -> dict[int, Version]:
        known = self._versions.get(name, {})
        return {n: version for n, version in known.items() if version.state == AVAILABLE}

    def _newest_settled(self, name: str) -> Version | None:
        """The newest wanted version that answers or that failed."""
        known = self._versions.get(name, {})
        for number in sorted(known, reverse=True):
            version = known[number]
            if version.state == AVAILABLE or (version.state == END and version.wanted):
                return version
        return None

    def _settle(self, name: str) -> None:
        """Unloads what is no longer wanted, as far as the model stays available."""
        available = self._available(name).values()
        surplus = sorted((v for v in available if not v.wanted), key=lambda v: v.number)
        wanted = any(version.wanted for version in self._versions[name].values())
        if wanted and not any(version.wanted for version in available):
            surplus = surplus[:-1]
        for version in surplus:
            version.state = UNLOADING
            self._start(self._unload, version)
        self._changed.notify_all()

    def _start(self, work: Callable[[Version], None], version: Version) -> None:
        def run() -> None:
            try:
                work(version)
            finally:
                with self._changed:
                    self._busy -= 1
                    self._changed.notify_all()

        self._busy += 1
        threading.Thread(target=run, daemon=True, name=work.__name__).start()

    def _load(self, version: Version) -> None:
        for attempt in range(1 + self._retries):
            if attempt and version.unwanted.wait(self._retry_seconds):
                break
            with self._one_load:
                error = self._try_to_load(version)
            if error is None:
                break
            _log.error("Servable: %s load failure: %s", version, error)
        with self._changed:
            version.error = error
            version.state = END if error else AVAILABLE
            self._settle(version.name)
        if error is None:
            _log.info("Successfully loaded servable version %s", version)

    def _try_to_load(self, version: Version) -> ServingError | None:
        if not version.wanted:
            return ServingError(
                grpc.StatusCode.CANCELLED, "Load cancelled before we could try to load."
            )
        _log.info("Loading servable version %s from %s", version, version.folder)
        with self._changed:
            version.state = LOADING
        started = time.perf_counter()
        error: ServingError | None = None
        try:
            version.servable = self._load_servable(version.name, version.number, version.folder)
        except ServingError as raised:
            error = raised
        except Exception as raised:  # a broken folder can raise anything
            error = ServingError(grpc.StatusCode.UNKNOWN, f"{type(raised).__name__}: {raised}")
        seconds = time.perf_counter() - started
        metrics.observe_load(version.name, version.number, seconds, error is not None)
        return error

    def _unload(self, version: Version) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not version.users)
            version.servable = None
        gc.collect()  # a loaded model refers to itself: this frees its weights now
        with self._changed:
            version.state = END
            self._changed.notify_all()
        _log.info("Unloaded servable version %s", version)


def wanted_versions(config: model_server_config_pb2.ModelConfig) -> dict[int, str]:
    """The versions that a model's policy wants, of those on disk: number → folder.

    Raises:
        ServingError: the base path can't be read.
    """
    try:
        children = sorted(child.name for child in Path(config.base_path).iterdir())
    except OSError as error:
        raise invalid_argument(
            f"Could not find base path {config.base_path} for servable {config.name} with error "
            f"{error.strerror}"
        ) from error
    found = {
        int(child): str(Path(config.base_path) / child)
        for child in children
        if _NUMBER.fullmatch(child) and int(child) <= _LARGEST
    }
    if not found:
        _log.warning(
            "No versions of servable %s found under base path %s. Did you forget to name your "
            "leaf directory as a number (eg. '/1/')?",
            config.name, config.base_path,
        )  # fmt: skip
    policy = config.model_version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return found
        case "specific":
            wanted = set(policy.specific.versions)
            for version in sorted(wanted - set(found)):
                _log.warning(
                    "Version %d of servable %s, which the configuration names, was not found in %s",
                    version, config.name, config.base_path,
                )  # fmt: skip
        case _:
            wanted = set(sorted(found, reverse=True)[: max(1, policy.latest.num_versions)])
    return {number: folder for number, folder in found.items() if number in wanted}


def _unavailable(failed: list[Version]) -> str:
    each = "".join(f"{{{version} due to error: {version.error}}}, " for version in failed)
    return f"{len(failed)} model(s) did not become available: {{{each}}}"
