"""A client of the API server of Kubeflow Pipelines: packages, runs, schedules and logs."""

from __future__ import annotations

import contextlib
import datetime
import graphlib
import io
import itertools
import json
import logging
import os
import re
import ssl
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import kfp_server_api
import urllib3
import yaml
from kfp.client import Client, TokenCredentialsBase

from components.errors import UserError
from pipeline.config import PIPELINE_NAME
from pipeline.kubeflow.records import LOG_LINE, PUSHED, SUMMARY

OLDEST = (2, 5)  # version of Kubeflow Pipelines
OVER = frozenset({"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"})

_NAMESPACE = "kubeflow"  # of a server with one user
_PUSHER = "pusher"  # the task

_Answer = TypeVar("_Answer")


class Unreachable(UserError):
    """No answer, or not an answer of Kubeflow Pipelines. A later call may succeed."""


class Missing(UserError):
    """The server does not have this object or this path."""


class Taken(UserError):
    """The server has an object of this name already."""


class Version(NamedTuple):
    """A version of the pipeline on the server."""

    pipeline_id: str
    version_id: str
    name: str
    spec: dict[str, Any]

    @property
    def defaults(self) -> dict[str, Any]:
        """The default values of its parameters."""
        parameters = self.spec["root"].get("inputDefinitions", {}).get("parameters", {})
        return {name: p["defaultValue"] for name, p in parameters.items() if "defaultValue" in p}


class Step(NamedTuple):
    """A step of a run. Its state is one of KFP's, or "" before it starts; times are UTC."""

    name: str
    state: str
    started: datetime.datetime | None
    ended: datetime.datetime | None
    nodes: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        """Wall time; None before the step has ended."""
        if self.state not in OVER or self.started is None or self.ended is None:
            return None
        return (self.ended - self.started).total_seconds()


class Run(NamedTuple):
    """A run, as the server last reported it."""

    run_id: str
    name: str
    state: str
    error: str
    steps: tuple[Step, ...]

    @property
    def pushed(self) -> bool | None:
        """Whether it pushed a model; None if the states of its steps do not say that.

        The server forgets the states of old runs, and old packages have no such step.
        """
        states = {step.name: step.state for step in self.steps}
        if PUSHED not in states or states.get(_PUSHER) != "SUCCEEDED":
            return None
        return states[PUSHED] == "SUCCEEDED"


class Cluster:
    """An API server, from the view of one namespace."""

    def __init__(
        self,
        endpoint: str,
        *,
        namespace: str | None = None,
        token_file: str | None = None,
        ca_file: str | None = None,
        experiment: str = "Default",
    ):
        """Checks that there is a Kubeflow Pipelines server of a known version.

        Args:
            endpoint: URL of the API server, or of the Kubeflow in front of it.
            namespace: of the user's profile if the server has several users; None if it has one.
            token_file: read again for each call; None: $KFP_EXISTING_TOKEN, or no token.
            ca_file: PEM of the trusted authorities; None: the well-known ones.
            experiment: the runs' experiment; made if missing.

        Raises:
            UserError: no server, an old server, or a wrong certificate, token or namespace.
        """
        if not re.match(r"https?://[^/]", endpoint):
            raise UserError(f"--endpoint {endpoint}: write a URL, http://… or https://…")
        for option, file in (("--ca-file", ca_file), ("--token-file", token_file)):
            if file and not os.access(file, os.R_OK):
                raise UserError(f"{option} {file}: no such file, or you may not read it")
        if ca_file:
            _check_authorities(ca_file)
        # This hides the warnings about retries. The last error is raised.
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        self.endpoint = endpoint.rstrip("/")
        self._experiment = experiment
        credentials = _Token(token_file) if token_file or _token_of_environment() else None
        configuration = kfp_server_api.Configuration(host=self.endpoint)
        configuration.ssl_ca_cert = ca_file
        if credentials:
            configuration.api_key_prefix["authorization"] = "Bearer"
            configuration.refresh_api_key_hook = credentials.refresh_api_key_hook
            configuration.api_key["authorization"] = ""
        self._plain = kfp_server_api.ApiClient(configuration)
        several_users = self._check_server()
        if several_users and not namespace:
            raise UserError(f"{endpoint} has several users: give your --namespace")
        if namespace and not several_users:
            raise UserError(f"{endpoint} has one user and no namespaces: leave out --namespace")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # it warns that it needs KFP 2
            self._client = self._ask(
                Client, host=self.endpoint, namespace=namespace or _NAMESPACE,
                credentials=credentials, ssl_ca_cert=ca_file,
            )  # fmt: skip
        self._namespace = namespace

    def upload(self, package: Path, name: str | None = None) -> Version:
        """Uploads a package as a new version of its pipeline; makes the pipeline if missing.

        Args:
            package: a file that `compile_package` wrote.
            name: of the version; None: date and time.

        Raises:
            UserError: the file is not a package, the name is taken, or the server refuses it.
        """
        pipeline = _pipeline_name(package)
        name = name or datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S")
        pipeline_id = self._pipeline_id(pipeline)
        if pipeline_id is None:
            made = self._ask(
                self._client.pipelines.pipeline_service_create_pipeline,
                kfp_server_api.V2beta1Pipeline(
                    display_name=pipeline, name=pipeline, namespace=self._namespace
                ),
            )
            pipeline_id = made.pipeline_id
        try:
            version = self._ask(
                self._client.upload_pipeline_version, str(package), name, pipeline_id=pipeline_id
            )
        except Taken:
            raise UserError(
                f"{pipeline} has a version {name} already: give another --name"
            ) from None
        return _version(version)

    def version(self, pipeline: str, name: str | None = None) -> Version:
        """The newest version of the pipeline, or the newest one with this name.

        Raises:
            UserError: there is none.
        """
        pipeline_id = self._pipeline_id(pipeline)
        if pipeline_id is None:
            raise UserError(f"{self.endpoint} has no pipeline {pipeline}: run goodseed kfp upload")
        listed = self._ask(
            self._client.list_pipeline_versions, pipeline_id, page_size=1,
            sort_by="created_at desc", filter=_named(name) if name else None,
        )  # fmt: skip
        if not listed.pipeline_versions:
            raise UserError(f"{pipeline} has no version {name or ''}: run goodseed kfp upload")
        return _version(listed.pipeline_versions[0])

    def start(
        self, version: Version, arguments: Mapping[str, Any], *, name: str,
        service_account: str | None = None,
    ) -> str:  # fmt: skip
        """Starts a run and returns its id.

        Raises:
            UserError: the server refuses.
        """
        run = self._ask(
            self._client.run_pipeline, self._experiment_id(), name, params=dict(arguments),
            pipeline_id=version.pipeline_id, version_id=version.version_id,
            service_account=service_account,
        )  # fmt: skip
        return str(run.run_id)

    def schedule(
        self, version: Version, arguments: Mapping[str, Any], *, name: str, cron: str,
        service_account: str | None = None,
    ) -> int:  # fmt: skip
        """Runs the version regularly, one run at a time; missed runs are not repeated.

        Older schedules of this name are disabled after the new one exists. Deleting one would end
        its run in progress. So it is deleted only if its runs are over, here or by a later call.

        Args:
            version: to run.
            arguments: parameters of the runs.
            name: of the schedule, unique in the experiment.
            cron: six fields with the seconds first, in the server's time zone.
            service_account: of the runs; None: the server's default.

        Returns:
            The number of schedules that it replaces; they were enabled until now.

        Raises:
            UserError: the server refuses.
        """
        experiment = self._experiment_id()
        listed = self._ask(
            self._client.list_recurring_runs, experiment_id=experiment, filter=_named(name),
            page_size=100,
        )  # fmt: skip
        self._ask(
            self._client.create_recurring_run, experiment, name, cron_expression=cron,
            max_concurrency=1, no_catchup=True, params=dict(arguments),
            pipeline_id=version.pipeline_id, version_id=version.version_id,
            service_account=service_account,
        )  # fmt: skip
        before = listed.recurring_runs or []
        enabled = [one for one in before if one.status == "ENABLED"]
        for one in enabled:
            self._ask(self._client.disable_recurring_run, one.recurring_run_id)
        busy = {run.recurring_run_id for run in self._newest(experiment) if run.state not in OVER}
        for one in before:
            if one.recurring_run_id not in busy:
                self._ask(self._client.delete_recurring_run, one.recurring_run_id)
        return len(enabled)

    def run(self, run_id: str | None = None) -> Run:
        """A run with its steps; without a run_id, the newest run of our pipeline in the experiment.

        Raises:
            UserError: there is none.
        """
        if run_id is None:
            ours = self._pipeline_id(PIPELINE_NAME)
            newest = [run for run in self._newest(self._experiment_id()) if _is_of(run, ours)]
            if not newest:
                raise UserError(
                    f"no run of {PIPELINE_NAME} in the experiment {self._experiment}: "
                    "run goodseed kfp run"
                )
            run_id = str(newest[0].run_id)
        found = self._ask(self._client.get_run, run_id)
        return Run(
            run_id=run_id,
            name=found.display_name,
            state=found.state or "PENDING",
            error=found.error.message if found.error and found.error.message else "",
            steps=tuple(self._steps(found)),
        )

    def log(self, run: Run, step: str) -> str:
        """The log of a step so far.

        Raises:
            UserError: there is no such step, or neither its pod nor an archive has its log.
        """
        steps = {one.name: one for one in run.steps}
        if step not in steps:
            raise UserError(f"no step {step}: the run has {', '.join(steps) or 'none yet'}")
        if not steps[step].nodes:
            raise UserError(f"{step} has no log: it has not run")
        refused: UserError | None = None
        namespace = self._namespace or _NAMESPACE
        for node in steps[step].nodes:
            # KFP's own pages use these paths; the newer API has none for logs. Without several
            # users, the first one finds archives alone. The second one is that of the UI's server.
            for path in (
                f"/apis/v1alpha1/runs/{run.run_id}/nodes/{node}/log",
                f"/k8s/pod/logs?podname={node}&podnamespace={namespace}",
            ):
                try:
                    return self._log(path)
                except (Unreachable, Missing) as error:
                    refused = refused or error
        raise UserError(
            f"{step} has no log any more, or not yet: {refused}; "
            f"kubectl logs --namespace {namespace} {steps[step].nodes[0]} may still show it"
        )

    def _log(self, path: str) -> str:
        self._get(path)
        log = str(self._plain.last_response.data)
        # The server may have begun to answer with status 200 before it found no log.
        if (failed := _json_object(log)) and "error_message" in failed:
            raise Unreachable(str(failed["error_message"]).splitlines()[0])
        return log

    def summary(self, run: Run) -> dict[str, Any] | None:
        """The summary of a run that has ended; None if its log can't be read."""
        try:
            log = self.log(run, SUMMARY)
        except UserError:
            return None
        for line in reversed(log.splitlines()):
            document = _json_object(line.removeprefix(LOG_LINE))  # older images print no prefix
            if document and "pushed_version" in document:
                return document
        return None

    def error_line(self, run: Run, step: str) -> str:
        """The error line of a failed step, or nothing."""
        try:
            lines = [line for line in self.log(run, step).splitlines() if line.strip()]
        except UserError as error:
            return str(error)
        ours = [line for line in lines if line.startswith("goodseed: ")]  # other lines are KFP's
        return (ours or lines or [""])[-1].removeprefix("goodseed: ")

    def page(self, run_id: str) -> str:
        """URL of KFP's page of a run."""
        host = os.environ.get("KF_PIPELINES_UI_ENDPOINT", self.endpoint).rstrip("/")
        return f"{host}/#/runs/details/{run_id}"

    def _check_server(self) -> bool:
        """Whether the server has several users.

        Raises:
            UserError: it is not Kubeflow Pipelines, or its version is too old.
        """
        try:
            health = self._get("/apis/v2beta1/healthz")
        except Missing:
            try:
                self._get("/apis/v1beta1/healthz")
            except Missing:
                raise UserError(
                    f"{self.endpoint}: Kubeflow Pipelines is not there; is --endpoint its URL?"
                ) from None
            raise _old("1") from None
        if not isinstance(health, dict):
            raise self._not_kubeflow("no JSON")
        tag = str(health.get("tag_name", ""))
        known = re.match(r"v?(\d+)\.(\d+)", tag)
        if known and (int(known[1]), int(known[2])) < OLDEST:
            raise _old(tag)
        return health.get("multi_user") is True

    def _get(self, path: str) -> Any:
        return self._ask(
            self._plain.call_api, path, "GET", {}, [], {"Accept": "*/*"}, response_type="object",
            auth_settings=["Bearer"], _return_http_data_only=True,
        )  # fmt: skip

    def _ask(self, call: Callable[..., _Answer], *arguments: Any, **options: Any) -> _Answer:
        """Calls the server; any error becomes one line."""
        try:
            # The SDK prints links to our standard output.
            with contextlib.redirect_stdout(io.StringIO()):
                return call(*arguments, **options)
        except kfp_server_api.ApiException as error:
            raise self._refusal(error) from None
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, urllib3.exceptions.SSLError):
                raise UserError(
                    f"{self.endpoint}: {_certificate(reason)}; --ca-file names the PEM of the "
                    "authority that signed it"
                ) from None
            raise Unreachable(f"{self.endpoint} does not answer: {_cause(reason)}") from None
        except OSError as error:
            raise UserError(f"{error.filename or self.endpoint}: {error.strerror}") from None
        except (TypeError, ValueError, AttributeError) as error:
            # The generated client raises these for an answer that is not the API's.
            raise self._not_kubeflow(str(error)) from None

    def _not_kubeflow(self, why: str) -> UserError:
        return Unreachable(
            f"{self.endpoint} answers, but not as Kubeflow Pipelines does ({why}); is it a login "
            "page because --token-file is missing?"
        )

    def _refusal(self, error: kfp_server_api.ApiException) -> UserError:
        said = _message(error)
        if error.status == 401:
            return UserError(f"{self.endpoint} does not accept the token: {said}; see --token-file")
        if error.status == 403:
            return UserError(f"{self.endpoint} does not allow it: {said}; see --namespace, "
                             "--token-file")  # fmt: skip
        if error.status >= 500:
            return Unreachable(f"{self.endpoint}: {said}")
        if error.status == 409:
            return Taken(f"{self.endpoint}: {said}")
        if error.status == 404:
            return Missing(f"{self.endpoint}: {said}")
        return UserError(f"{self.endpoint}: {said}")

    def _pipeline_id(self, name: str) -> str | None:
        listed = self._ask(
            self._client.list_pipelines, namespace=self._namespace, filter=_named(name)
        )
        return str(listed.pipelines[0].pipeline_id) if listed.pipelines else None

    def _experiment_id(self) -> str:
        listed = self._ask(
            self._client.list_experiments,
            namespace=self._namespace,
            filter=_named(self._experiment),
        )
        if listed.experiments:
            return str(listed.experiments[0].experiment_id)
        made = self._ask(
            self._client.experiments.experiment_service_create_experiment,
            kfp_server_api.V2beta1Experiment(
                display_name=self._experiment, namespace=self._namespace
            ),
        )
        return str(made.experiment_id)

    def _newest(self, experiment: str) -> list[Any]:
        """The newest runs of an experiment, at most a page of them."""
        listed = self._ask(
            self._client.list_runs, experiment_id=experiment, page_size=100,
            sort_by="created_at desc",
        )  # fmt: skip
        return listed.runs or []

    def _spec_of(self, run: Any) -> dict[str, Any]:
        """What a run runs. A run that was not started from a version has it in itself."""
        reference = run.pipeline_version_reference
        if reference is None:
            return _spec(run.pipeline_spec)
        version = self._ask(
            self._client.get_pipeline_version, reference.pipeline_id, reference.pipeline_version_id
        )
        return _spec(version.pipeline_spec)

    def _steps(self, run: Any) -> Iterator[Step]:
        details = (run.run_details and run.run_details.task_details) or []
        nodes = {detail.display_name: detail for detail in details}
        children = {
            child.pod_name
            for detail in details
            for child in detail.child_tasks or []
            if child.pod_name
        }
        workflow = next((child.rpartition("-")[0] for child in children), "")
        spec = self._spec_of(run)
        for name, path in _containers(spec, spec["root"]["dag"], ("root",)):
            node, driver = nodes.get(name), nodes.get(f"{name}-driver")
            if driver and driver.state == "FAILED":  # then the step itself does not start
                name, node = driver.display_name, driver
            if node is None:
                yield Step(name, "", None, None, ())
                continue
            yield Step(
                name, node.state or "", node.start_time, node.end_time,
                tuple(_pods(workflow, (*path, "executor"), children)),
            )  # fmt: skip


class _Token(TokenCredentialsBase):
    """The current token: Kubernetes renews the tokens in files."""

    def __init__(self, file: str | None):
        self._file = file

    def refresh_api_key_hook(self, config: Any) -> None:
        """Puts the token into the client's configuration, before each call."""
        token = Path(self._file).read_text("utf-8") if self._file else _token_of_environment()
        config.api_key["authorization"] = token.strip()


def _token_of_environment() -> str:
    return os.environ.get("KFP_EXISTING_TOKEN", "")


def _old(version: str) -> UserError:
    oldest = ".".join(map(str, OLDEST))
    return UserError(f"the server is Kubeflow Pipelines {version}: it has to be {oldest} or newer")


def _check_authorities(ca_file: str) -> None:
    try:
        ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError:
        raise UserError(f"--ca-file {ca_file}: no certificates in PEM") from None


def _certificate(error: Exception) -> str:
    found = re.search(r"certificate verify failed: ([^(]+?) \(_ssl", str(error))
    return f"certificate refused: {found[1]}" if found else f"no TLS: {_cause(error)}"


def _cause(error: BaseException) -> str:
    """The innermost reason in urllib3's nested errors."""
    text = str(error)
    found = re.findall(r"\[Errno -?\d+\] ([^'\")\]]+)", text)
    return found[-1] if found else text.rsplit(": ", 1)[-1].strip("'\")( ")


def _message(error: kfp_server_api.ApiException) -> str:
    """The first line of the server's message, in the form of grpc-gateway or the upload server."""
    document = _json_object(error.body or "") or {}
    said = document.get("message") or document.get("error_message") or document.get("error")
    return str(said or error.reason or f"status {error.status}").strip().splitlines()[0]


def _json_object(text: str) -> dict[str, Any] | None:
    """The JSON object that a text is; else None."""
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _named(name: str) -> str:
    """KFP's filter for objects of this name."""
    predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [predicate]})


def _pipeline_name(package: Path) -> str:
    try:
        documents = list(yaml.safe_load_all(package.read_text("utf-8")))
        return str(documents[0]["pipelineInfo"]["name"])
    except OSError as error:
        raise UserError(f"{package}: {error.strerror}; goodseed kfp compile writes it") from None
    except (yaml.YAMLError, UnicodeDecodeError, LookupError, TypeError):
        raise UserError(f"{package}: not a package; goodseed kfp compile writes one") from None


def _is_of(run: Any, pipeline_id: str | None) -> bool:
    """Whether a run runs our pipeline: a version of it, or its specification."""
    reference = run.pipeline_version_reference
    if reference is None:
        info = _spec(run.pipeline_spec or {}).get("pipelineInfo", {})
        return bool(info.get("name") == PIPELINE_NAME)
    return pipeline_id is not None and reference.pipeline_id == pipeline_id


def _version(version: Any) -> Version:
    return Version(
        version.pipeline_id, version.pipeline_version_id, version.display_name,
        _spec(version.pipeline_spec),
    )  # fmt: skip


def _spec(document: dict[str, Any]) -> dict[str, Any]:
    """The pipeline's own specification; the server may keep the platform's beside it."""
    spec: dict[str, Any] = document.get("pipeline_spec", document)
    return spec


def _containers(
    spec: dict[str, Any], dag: dict[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each task that is a container, and its path in Argo, in an order in which they can run."""
    tasks = dag["tasks"]
    order = {name: task.get("dependentTasks", ()) for name, task in sorted(tasks.items())}
    for name in graphlib.TopologicalSorter(order).static_order():
        task = tasks[name]
        component = spec["components"][task["componentRef"]["name"]]
        # In Argo, an exit handler is a hook of the task that it waits for.
        hook = task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
        above = (*path, task["dependentTasks"][0], "onExit") if hook else path
        if "dag" in component:
            yield from _containers(spec, component["dag"], (*above, name))
        else:
            yield name, (*above, name)


def _pods(workflow: str, path: Sequence[str], children: set[str]) -> Iterator[str]:
    """The names under which a step's log may be found, the likeliest first.

    The API tells only ids of nodes, which are hashes of their names. The path of a log needs the
    name of the pod, or the node's id if the log was archived. A node that Argo may retry has a node
    for each attempt, `NAME(0)` and so on, and what it contains is below the attempt. On some
    servers these are the steps of the package, on others all nodes.

    Args:
        workflow: its name.
        path: the parts of the name of the node with the step's container.
        children: the ids of all nodes but the first.
    """

    def attempts(name: str) -> Iterator[str]:
        names = (f"{name}({number})" for number in itertools.count())
        return itertools.takewhile(lambda name: _node_id(workflow, name) in children, names)

    names = [workflow]
    for part in path:
        names = [f"{above}.{part}" for name in names for above in (name, *attempts(name))]
    for name in (name for name in names if _node_id(workflow, name) in children):
        for attempt in reversed([name, *attempts(name)]):
            node = _node_id(workflow, attempt)
            number = node.rpartition("-")[2]
            yield f"{workflow}-retry-system-container-impl-{number}"
            yield f"{workflow}-system-container-impl-{number}"
            yield node


def _node_id(workflow: str, name: str) -> str:
    """Argo's id of a node. The id of the first node, which has the workflow's name, is its name."""
    return f"{workflow}-{_fnv1a(name)}"


def _fnv1a(text: str) -> int:
    """FNV-1a, 32 bits: http://www.isthe.com/chongo/tech/comp/fnv/."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 % 2**32
    return value


def wait(
    cluster: Cluster, run_id: str, show: Callable[[Run], None], *,
    patience: float = 300.0, slowest: float = 10.0,
) -> Run:  # fmt: skip
    """Polls a run until it has ended.

    Args:
        cluster: where it runs.
        run_id: which run.
        show: called with the run after each poll.
        patience: seconds without an answer before it gives up.
        slowest: longest pause between two polls, seconds; the first pauses are shorter.

    Raises:
        UserError: the server does not answer any more, or does not know the run.
    """
    pause, answered = min(1.0, slowest), time.monotonic()
    while True:
        try:
            run = cluster.run(run_id)
        except Unreachable:
            if time.monotonic() - answered > patience:
                raise
        else:
            answered = time.monotonic()
            show(run)
            if run.state in OVER:
                return run
        time.sleep(pause)
        pause = min(pause * 1.5, slowest)
