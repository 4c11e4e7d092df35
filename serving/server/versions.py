"""Which versions of which models are there: found on disk, loaded, swapped, given back.

What is wanted follows tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc,
what is done about it core/availability_preserving_policy.cc: a version that is no longer wanted
goes when one that is wanted can answer, or when none is wanted.
"""

from __future__ import annotations

import contextlib
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

from serving.heap import give_back
from serving.server import metrics
from serving.server.errors import ServingError, invalid_argument
from serving.server.servable import Servable

START, LOADING, AVAILABLE, UNLOADING, END = (
    ModelVersionStatus.START,
    ModelVersionStatus.LOADING,
    ModelVersionStatus.AVAILABLE,
    ModelVersionStatus.UNLOADING,
    ModelVersionStatus.END,
)

_NUMBER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_GREATEST = 2**63 - 1

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Version:
    """One version of a model, from when its folder was seen until it is replaced.

    Attributes:
        name: the model's name.
        number: the version.
        folder: where it lies.
        state: of ModelVersionStatus.
        error: why it ended, where that was a failure.
    """

    name: str
    number: int
    folder: str
    state: int = START
    error: ServingError | None = None
    servable: Servable | None = None
    users: int = 0
    aspired: bool = True
    unwanted: threading.Event = field(default_factory=threading.Event)

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
        load_retry_interval_micros: int,
        num_load_threads: int,
    ):
        """Starts with no model.

        Args:
            load: loads and warms up (model's name, version, folder), or raises ServingError.
            poll_wait_seconds: between two looks at the folders; 0: one look whenever the models
                are set; below 0: none at all.
            max_num_load_retries: how often a load that failed is tried again.
            load_retry_interval_micros: wait before each further try.
            num_load_threads: loads at a time; 0 counts as 1.
        """
        self._load_servable = load
        self._wait = poll_wait_seconds
        self._retries = max_num_load_retries
        self._retry_seconds = max(0.0, load_retry_interval_micros / 1e6)
        self._load_slots = threading.Semaphore(max(1, num_load_threads))
        self._configs: list[model_server_config_pb2.ModelConfig] = []
        self._versions: dict[str, dict[int, Version]] = {}
        self._changed = threading.Condition()
        self._polling = threading.Lock()
        self._closed = threading.Event()
        self._threads: set[threading.Thread] = set()
        if self._wait > 0:
            self._start(self._poll_forever)

    def set_models(self, configs: Iterable[model_server_config_pb2.ModelConfig]) -> None:
        """Serves these models and no others; returns before they are loaded."""
        with self._polling:
            self._configs = list(configs)
        if self._wait >= 0:
            self._poll()

    def wait_until_available(self, names: Iterable[str]) -> None:
        """Waits until each model has a version that answers.

        Raises:
            ServingError: UNKNOWN, the newest version of a model can't be loaded; or CANCELLED,
                the server stops.
        """
        waiting = set(names)
        with self._changed:
            while waiting and not self._closed.is_set():
                ended = {name: self._newest_settled(name) for name in waiting}
                # A model that was meanwhile taken out of the configuration is waited for no more.
                waiting &= {config.name for config in self._configs}
                if waiting and all(ended[name] for name in waiting):
                    failed = [v for v in (ended[n] for n in sorted(waiting)) if v and v.error]
                    if failed:
                        raise ServingError(grpc.StatusCode.UNKNOWN, _unavailable(failed))
                    return
                if waiting:
                    self._changed.wait(0.5)
        if waiting:
            raise ServingError(grpc.StatusCode.CANCELLED, "the server stops")

    @contextlib.contextmanager
    def acquire(self, name: str, number: int | None) -> Iterator[Servable]:
        """A version, or the newest that answers; it stays loaded within the context.

        Raises:
            ServingError: NOT_FOUND.
        """
        with self._changed:
            found = self._available(name)
            version = found.get(number if number is not None else max(found, default=0))
            if version is None or version.servable is None:
                asked = f"Latest({name})" if number is None else f"Specific({name}, {number})"
                raise ServingError(
                    grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {asked}"
                )
            version.users += 1
        try:
            yield version.servable
        finally:
            with self._changed:
                version.users -= 1
                if not version.users and version.state == UNLOADING:
                    self._changed.notify_all()

    def states(self, name: str) -> Mapping[int, tuple[int, ServingError | None]]:
        """State and error of each version that is or was there, the newest version first."""
        with self._changed:
            known = self._versions.get(name, {})
            return {n: (known[n].state, known[n].error) for n in sorted(known, reverse=True)}

    def close(self) -> None:
        """Stops polling and loading, waits for those who use a version, and unloads all."""
        self._closed.set()
        with self._polling:
            self._configs = []
        with self._changed:
            for name in self._versions:
                self._aspire(name, {})
            self._changed.notify_all()
            threads = set(self._threads)
        while threads:
            for thread in threads:
                thread.join()
            with self._changed:
                threads = set(self._threads)

    # What the folders hold.

    def _poll_forever(self) -> None:
        while not self._closed.wait(self._wait):
            self._poll()

    def _poll(self) -> None:
        with self._polling:
            if self._closed.is_set():
                return
            found: dict[str, dict[int, str]] = {}
            for config in self._configs:
                try:
                    found[config.name] = aspired_versions(config)
                except ServingError as error:
                    _log.error("Encountered a filesystem access error: %s", error.message)
            with self._changed:
                configured = {config.name for config in self._configs}
                for name in self._versions:
                    if name not in configured:
                        self._aspire(name, {})
                for name, folders in found.items():
                    self._aspire(name, folders)

    def _aspire(self, name: str, folders: Mapping[int, str]) -> None:
        known = self._versions.setdefault(name, {})
        for version in known.values():
            if version.number not in folders:
                version.aspired = False
                version.unwanted.set()
        for number, folder in sorted(folders.items(), reverse=True):
            version = known.get(number) or Version(name, number, folder, END, aspired=False)
            if version.aspired or version.state == UNLOADING:
                continue
            if version.state == END:
                known[number] = version = Version(name, number, folder)
                self._start(self._load, version)
            else:
                version.aspired = True
                version.unwanted.clear()
        self._settle(name)

    # What is done about it: with the lock held.

    def _available(self, name: str) -> dict[int, Version]:
        known = self._versions.get(name, {})
        return {n: version for n, version in known.items() if version.state == AVAILABLE}

    def _newest_settled(self, name: str) -> Version | None:
        """The newest wanted version that answers or that failed."""
        known = self._versions.get(name, {})
        for number in sorted(known, reverse=True):
            version = known[number]
            if version.state == AVAILABLE or (version.state == END and version.aspired):
                return version
        return None

    def _settle(self, name: str) -> None:
        """Unloads what is no longer wanted, as far as the model stays available."""
        available = self._available(name).values()
        replaced = any(version.aspired for version in available)
        wanted = any(version.aspired for version in self._versions[name].values())
        surplus = sorted((v for v in available if not v.aspired), key=lambda v: v.number)
        if wanted and not replaced:
            surplus = surplus[:-1]
        for version in surplus:
            version.state = UNLOADING
            self._start(self._unload, version)
        self._changed.notify_all()

    def _start(self, work: Callable[..., None], *arguments: Version) -> None:
        def run() -> None:
            try:
                work(*arguments)
            finally:
                with self._changed:
                    self._threads.discard(thread)

        thread = threading.Thread(target=run, daemon=True, name=work.__name__)
        self._threads.add(thread)
        thread.start()

    def _load(self, version: Version) -> None:
        error: ServingError | None = None
        for attempt in range(1 + max(0, self._retries)):
            if attempt and version.unwanted.wait(self._retry_seconds):
                break
            with self._load_slots:
                error = self._try_to_load(version, attempt)
            if error is None:
                break
            _log.error("Servable: %s load failure: %s", version, error)
        with self._changed:
            version.error = error
            version.state = END if error else AVAILABLE
            self._settle(version.name)
        if error is None:
            _log.info("Successfully loaded servable version %s", version)

    def _try_to_load(self, version: Version, attempt: int) -> ServingError | None:
        if version.unwanted.is_set():
            return ServingError(
                grpc.StatusCode.CANCELLED, "Load cancelled before we could try to load."
            )
        _log.info(
            "%s servable version %s from %s",
            f"Retry {attempt}: loading" if attempt else "Loading", version, version.folder,
        )  # fmt: skip
        with self._changed:
            version.state = LOADING
        started = time.perf_counter()
        error: ServingError | None = None
        try:
            version.servable = self._load_servable(version.name, version.number, version.folder)
        except ServingError as raised:
            error = raised
        except Exception as raised:  # whatever the loader meets in a broken or half-written folder
            error = ServingError(grpc.StatusCode.UNKNOWN, f"{type(raised).__name__}: {raised}")
        metrics.observe_load(
            version.name, version.number, time.perf_counter() - started, error is not None
        )
        return error

    def _unload(self, version: Version) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not version.users)
            servable, version.servable = version.servable, None
        assert servable is not None
        servable.close()
        del servable
        give_back()
        with self._changed:
            version.state = END
            self._changed.notify_all()
        _log.info("Unloaded servable version %s", version)


def aspired_versions(config: model_server_config_pb2.ModelConfig) -> dict[int, str]:
    """The versions that a model's policy wants, of those that are there: number → folder.

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
        if _NUMBER.fullmatch(child) and abs(int(child)) <= _GREATEST
    }
    policy = config.model_version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            wanted = set(found)
        case "specific":
            wanted = set(policy.specific.versions)
            for version in sorted(wanted - set(found)):
                _log.warning(
                    "Version %d of servable %s, which was requested to be served as a 'specific' "
                    "version in the servable's version policy, was not found in the file system",
                    version, config.name,
                )  # fmt: skip
        case _:
            newest = sorted(found, reverse=True)
            wanted = set(newest[: max(1, policy.latest.num_versions)])
    if not found:
        _log.warning(
            "No versions of servable %s found under base path %s. Did you forget to name your "
            "leaf directory as a number (eg. '/1/')?",
            config.name, config.base_path,
        )  # fmt: skip
    return {number: folder for number, folder in found.items() if number in wanted}


def _unavailable(failed: list[Version]) -> str:
    each = "".join(f"{{{version} due to error: {version.error}}}, " for version in failed)
    return f"{len(failed)} model(s) did not become available: {{{each}}}"
