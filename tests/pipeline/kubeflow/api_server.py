"""An HTTP server that answers as the API server of Kubeflow Pipelines does, and is as strict.

Paths, required fields and answers follow backend/api/v2beta1 and backend/src/apiserver of
kubeflow/pipelines 2.5 to 2.17: protobuf's JSON with proto names, without empty fields, with 64-bit
numbers as strings; errors in the forms of grpc-gateway, the upload server and the log server.
Nothing is executed: each poll of a run moves it one task further.
"""

from __future__ import annotations

import contextlib
import datetime
import email.parser
import email.policy
import graphlib
import json
import re
import ssl
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

NOT_FOUND, INVALID, DENIED, UNKNOWN_USER, UNAVAILABLE = 5, 3, 7, 16, 14
STATUS = {NOT_FOUND: 404, INVALID: 400, DENIED: 403, UNKNOWN_USER: 401, UNAVAILABLE: 503}
ID = r"([0-9a-f-]{36})"

# The fields that a request may have, from backend/api/v2beta1/*.proto.
RUN = {
    "experiment_id", "run_id", "display_name", "storage_state", "description",
    "pipeline_version_id", "pipeline_spec", "pipeline_version_reference", "runtime_config",
    "service_account",
}  # fmt: skip
RECURRING_RUN = {
    "recurring_run_id", "display_name", "description", "pipeline_version_id", "pipeline_spec",
    "pipeline_version_reference", "runtime_config", "service_account", "max_concurrency", "trigger",
    "mode", "no_catchup", "namespace", "experiment_id",
}  # fmt: skip


class Refused(Exception):
    """An error in the form of grpc-gateway."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.status, self.body = STATUS[code], {"code": code, "message": message, "details": []}


class NotUploaded(Refused):
    """An error in the form of the upload server."""

    def __init__(self, status: int, message: str):
        super().__init__(INVALID, message)
        self.status = status
        self.body = {"error_message": message, "error_details": f"Error: {message}"}


class Node(NamedTuple):
    """A task in Argo.

    `path` has the parts of its node's name, after the workflow's. Where `defaults` are set, Argo
    makes each node one that it may retry, as Kubeflow Pipelines 2.17 configures it.
    """

    task: str
    workflow: str
    path: tuple[str, ...]
    retried: bool
    defaults: bool

    @property
    def names(self) -> list[str]:
        """The names of the nodes from the workflow to the container."""
        names = [self.workflow]
        for part in (*self.path, "executor"):
            if self.defaults and part != "onExit":  # a hook belongs to the node, not to an attempt
                names.append(f"{names[-1]}(0)")
            names.append(f"{names[-1]}.{part}")
        if self.retried or self.defaults:
            names.append(f"{names[-1]}({int(self.retried)})")
        return names

    def _id(self, name: str) -> str:
        value = 2166136261  # Go's fnv.New32a
        for byte in name.encode():
            value = ((value ^ byte) * 16777619) & 0xFFFFFFFF
        return f"{self.workflow}-{value}"

    @property
    def container(self) -> str:
        """Id of the node that is a pod; for a retried task, of the second attempt."""
        return self._id(self.names[-1])

    @property
    def pod(self) -> str:
        """The name of the pod."""
        again = "retry-" if self.retried else ""
        number = self.container.rpartition("-")[2]
        return f"{self.workflow}-{again}system-container-impl-{number}"

    def details(self, over: bool, fails: bool) -> dict[str, dict[str, Any]]:
        """The API's details of the task's nodes by name; a node does not contain its own id."""
        state = "RUNNING" if not over else "FAILED" if fails else "SUCCEEDED"
        times = {"create_time": "2026-01-01T00:00:00Z", "start_time": "2026-01-01T00:00:00Z"}
        times["end_time"] = "2026-01-01T00:00:42Z" if over else "1970-01-01T00:00:00Z"
        driver = f"{self.task}-driver"
        details: dict[str, dict[str, Any]] = {}
        details[driver] = {"display_name": driver, "state": "SUCCEEDED", **times, "child_tasks": []}
        names = self.names
        for name, child in zip(names, [*names[1:], None], strict=True):
            details[name] = {"display_name": name.rpartition(".")[2], "state": state, **times}
            attempts = {child.replace("(1)", "(0)"), child} if child else set()
            details[name]["child_tasks"] = [{"pod_name": self._id(one)} for one in attempts]
        return details


@dataclass
class FakeRun:
    """A stored run: its request and its progress."""

    request: dict[str, Any]
    spec: dict[str, Any]
    created: str
    fails_at: str | None
    summary: dict[str, Any] | None
    done: int = 0
    pushes: bool = True  # the gate is open
    collected: bool = False  # Kubernetes has deleted the workflow, and the server forgot its nodes
    defaults: bool = False
    driver_fails_at: str | None = None  # the task whose driver fails
    workflow: str = "goodseed-age-check-x7k2p"

    @property
    def tasks(self) -> list[Node]:
        """All tasks with a container, in order; the exit handler is the last."""
        root = self.spec["root"]["dag"]["tasks"]
        (handler,) = [name for name in root if name.startswith("exit-handler")]
        (summary,) = [name for name in root if name != handler]
        above = ("root", handler)
        inside = self._inside(root[handler], above)
        return [*inside, self._node(summary, root[summary], (*above, "onExit", summary))]

    def _inside(self, task: dict[str, Any], path: tuple[str, ...]) -> Iterator[Node]:
        """The tasks of a task that has some, without those of a condition that is not met."""
        inner = self.spec["components"][task["componentRef"]["name"]]["dag"]["tasks"]
        after = {name: inner[name].get("dependentTasks", ()) for name in inner}
        for name in graphlib.TopologicalSorter(after).static_order():
            if not inner[name].get("triggerPolicy"):
                yield self._node(name, inner[name], (*path, name))
            elif self.pushes:
                yield from self._inside(inner[name], (*path, name))

    def _node(self, name: str, task: dict[str, Any], path: tuple[str, ...]) -> Node:
        return Node(name, self.workflow, path, "retryPolicy" in task, self.defaults)


@dataclass
class KubeflowServer:
    """The state of the server, and its behaviour."""

    url: str = ""
    token: str | None = None
    namespaces: tuple[str, ...] = ()  # of the user; empty: a server with one user
    tag: str = "2.15.0"
    api: str = "v2beta1"
    fails_at: str | None = None  # the task that fails in new runs
    summary: dict[str, Any] | None = None  # printed by the exit handler of new runs
    pushes: bool = True  # whether the gate is open in new runs
    defaults: bool = False  # whether Argo may retry each node of new runs
    archived: bool = False  # the pods are deleted; logs are in the archive, by node id
    logs_kept: bool = True  # whether a pod or the archive has the logs
    ui: bool = False  # the UI's server is in front of it
    log_errors_are_answers: bool = False  # a log that can't be read has the status 200
    outages: int = 0  # number of the next polls of a run that get 503
    pipelines: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    experiments: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: dict[str, FakeRun] = field(default_factory=dict)
    recurring: dict[str, dict[str, Any]] = field(default_factory=dict)
    ticks: int = 0

    def now(self) -> str:
        """A time that is different for each call."""
        self.ticks += 1
        start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
        return (start + datetime.timedelta(seconds=self.ticks)).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextlib.contextmanager
def serve(server: KubeflowServer, certificate: tuple[Path, Path] | None = None) -> Iterator[None]:
    """Runs the server on 127.0.0.1; with TLS if a certificate and its key are given."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": server}))
    scheme = "http"
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        http.socket = context.wrap_socket(http.socket, server_side=True)
        scheme = "https"
    server.url = f"{scheme}://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: KubeflowServer
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # head and body in one packet, because Nagle's algorithm delays a second one

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_DELETE = do_PUT = do_PATCH = do_GET

    def _answer(self) -> None:
        url = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.payload = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            status, body = 200, self._route(unquote(url.path))
        except Refused as refused:
            status, body = refused.status, refused.body
        text = body if isinstance(body, str) else json.dumps(body)
        kind = "text/plain" if isinstance(body, str) else "application/json"
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _route(self, path: str) -> Any:
        state = self.state
        if state.token and self.headers.get("Authorization") != f"Bearer {state.token}":
            raise Refused(UNKNOWN_USER, "Request header error: there is no user identity header")
        health = {"tag_name": state.tag, "multi_user": bool(state.namespaces)}
        if state.api == "v1beta1":
            if path == "/apis/v1beta1/healthz":
                return health
            raise Refused(NOT_FOUND, "Not Found")
        known = False
        for method, pattern, handle in _ROUTES:
            if found := re.fullmatch(pattern, path):
                known = True
                if method == self.command:
                    return health if handle is None else handle(self, *found.groups())
        if known:
            raise Refused(INVALID, "Method Not Allowed")
        raise Refused(NOT_FOUND, "Not Found")

    # Requests

    def _body(self, fields: set[str], required: tuple[str, ...]) -> dict[str, Any]:
        try:
            body = json.loads(self.payload)
        except ValueError:
            raise Refused(INVALID, "proto: syntax error (line 1:1)") from None
        for name, value in body.items():
            if name not in fields:
                raise Refused(INVALID, f'proto: (line 1:2): unknown field "{name}"')
            if value is None:
                raise Refused(INVALID, f"proto: null for {name}")
        for name in required:
            if not body.get(name):
                raise Refused(INVALID, f"Invalid input error: {name} is empty. Please specify it")
        return body

    def _namespace(self, namespace: str | None) -> str:
        allowed = self.state.namespaces
        if not allowed:
            if namespace:
                raise Refused(INVALID, "In single-user mode, namespace must be empty")
            return ""
        if not namespace:
            raise Refused(INVALID, "Invalid input error: Namespace is empty")
        if namespace not in allowed:
            raise Refused(
                DENIED,
                f"Failed to authorize with API: User 'till' is not authorized in {namespace}",
            )
        return namespace

    def _list(self, key: str, things: list[dict[str, Any]], *also: str) -> dict[str, Any]:
        unknown = self.query.keys() - {"page_size", "page_token", "sort_by", "filter", *also}
        if unknown:
            raise Refused(INVALID, f"unknown query parameter {sorted(unknown)}")
        if "filter" in self.query:
            for predicate in json.loads(self.query["filter"])["predicates"]:
                if (
                    predicate["operation"] not in ("EQUALS", 1)
                    or predicate["key"] != "display_name"
                ):
                    raise Refused(INVALID, "Invalid filter")
                wanted = predicate["stringValue"]
                things = [thing for thing in things if thing["display_name"] == wanted]
        sort = re.fullmatch(r"(created_at)( desc)?", self.query.get("sort_by") or "created_at")
        if not sort:
            raise Refused(INVALID, f"Invalid sorting field: {self.query['sort_by']!r}")
        things = sorted(things, key=lambda thing: thing[sort[1]], reverse=bool(sort[2]))
        page = things[: int(self.query.get("page_size") or 20)]
        return {key: page, "total_size": len(things)} if things else {}

    # Pipelines and their versions

    def list_pipelines(self) -> Any:
        namespace = self._namespace(self.query.get("namespace"))
        found = [p for p in self.state.pipelines.values() if p.get("namespace", "") == namespace]
        return self._list("pipelines", found, "namespace")

    def create_pipeline(self) -> Any:
        fields = {"display_name", "name", "description", "namespace"}
        body = self._body(fields, ("display_name",))
        self._namespace(body.get("namespace"))
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,127}", body.get("name", "")):
            raise Refused(INVALID, "Invalid input error: the pipeline's name")
        made = {**body, "pipeline_id": str(uuid.uuid4()), "created_at": self.state.now()}
        self.state.pipelines[made["pipeline_id"]] = made
        return made

    def upload_version(self) -> Any:
        kind = self.headers.get("Content-Type", "")
        if not kind.startswith("multipart/form-data; boundary="):
            raise NotUploaded(400, "Failed to create a pipeline version")
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(
            b"Content-Type: " + kind.encode() + b"\r\n\r\n" + self.payload
        )
        files: dict[Any, Any] = {
            part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
            for part in message.iter_parts()  # type: ignore[attr-defined]
        }
        pipeline, name = self.query.get("pipelineid"), self.query.get("name")
        if set(files) != {"uploadfile"} or pipeline not in self.state.pipelines or not name:
            raise NotUploaded(400, "Failed to create a pipeline version")
        if any(
            v["pipeline_id"] == pipeline and v["name"] == name for v in self.state.versions.values()
        ):
            raise NotUploaded(409, "Failed to create a pipeline version")
        try:
            spec, *platform = yaml.safe_load_all(files["uploadfile"])
            json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
            for document in platform:
                json_format.ParseDict(document, pipeline_spec_pb2.PlatformSpec())
        except (yaml.YAMLError, ValueError, TypeError, json_format.ParseError):
            raise NotUploaded(400, "Failed to parse the pipeline spec file") from None
        made: dict[str, Any] = {
            "pipeline_id": pipeline,
            "pipeline_version_id": str(uuid.uuid4()),
            "display_name": name,
            "name": name,
            "created_at": self.state.now(),
            "pipeline_spec": {"pipeline_spec": spec, "platform_spec": platform[0]}
            if platform
            else spec,
        }
        self.state.versions[made["pipeline_version_id"]] = made
        return made

    def list_versions(self, pipeline_id: str) -> Any:
        if pipeline_id not in self.state.pipelines:
            raise Refused(NOT_FOUND, f"Pipeline {pipeline_id} not found")
        found = [v for v in self.state.versions.values() if v["pipeline_id"] == pipeline_id]
        return self._list("pipeline_versions", found)

    def get_version(self, pipeline_id: str, version_id: str) -> Any:
        version = self.state.versions.get(version_id)
        if version is None or version["pipeline_id"] != pipeline_id:
            raise Refused(NOT_FOUND, f"PipelineVersion {version_id} not found")
        return version

    # Experiments

    def list_experiments(self) -> Any:
        namespace = self._namespace(self.query.get("namespace"))
        found = [e for e in self.state.experiments.values() if e["namespace"] == namespace]
        return self._list("experiments", found, "namespace")

    def create_experiment(self) -> Any:
        body = self._body({"display_name", "description", "namespace"}, ("display_name",))
        made = {
            **body,
            "namespace": self._namespace(body.get("namespace")),
            "experiment_id": str(uuid.uuid4()),
            "created_at": self.state.now(),
        }
        self.state.experiments[made["experiment_id"]] = made
        return made

    # Runs

    def _runnable(self, body: dict[str, Any]) -> dict[str, Any]:
        """The specification for a run or a recurring run."""
        if body["experiment_id"] not in self.state.experiments:
            raise Refused(NOT_FOUND, f"Experiment {body['experiment_id']} not found")
        if "pipeline_spec" in body:
            return dict(body["pipeline_spec"])
        reference = body["pipeline_version_reference"]
        if set(reference) != {"pipeline_id", "pipeline_version_id"}:
            raise Refused(INVALID, "Invalid input error: the pipeline version reference")
        version = self.get_version(reference["pipeline_id"], reference["pipeline_version_id"])
        spec = version["pipeline_spec"]
        spec = spec.get("pipeline_spec", spec)
        inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        given = body.get("runtime_config", {}).get("parameters", {})
        for name, value in given.items():
            if name not in inputs:
                raise Refused(INVALID, f"Invalid input error: unknown parameter {name}")
            if value is None:
                raise Refused(INVALID, f"Invalid input error: null for {name}")
        missing = [n for n, p in inputs.items() if "defaultValue" not in p and n not in given]
        if missing:
            raise Refused(INVALID, f"Invalid input error: no value for parameter {missing[0]}")
        return dict(spec)

    def create_run(self) -> Any:
        body = self._body(RUN, ("display_name", "experiment_id"))
        spec = self._runnable(body)
        state = self.state
        run = FakeRun(body, spec, state.now(), state.fails_at, state.summary)
        run.pushes, run.defaults = state.pushes, state.defaults
        run_id = str(uuid.uuid4())
        state.runs[run_id] = run
        return self._run(run_id)

    def list_runs(self) -> Any:
        wanted = self.query.get("experiment_id")
        runs = [self._run(run_id) for run_id in self.state.runs]
        found = [run for run in runs if run["experiment_id"] == wanted]
        return self._list("runs", found, "experiment_id")

    def get_run(self, run_id: str) -> Any:
        state = self.state
        if run_id not in state.runs:
            raise Refused(NOT_FOUND, f"Failed to fetch run {run_id}: Run {run_id} not found")
        if state.outages:
            state.outages -= 1
            raise Refused(UNAVAILABLE, "connection refused")
        run = state.runs[run_id]
        run.done += 1
        return self._run(run_id)

    def _run(self, run_id: str) -> dict[str, Any]:
        run = self.state.runs[run_id]
        details: dict[str, dict[str, Any]] = {}
        failed = False
        for number, node in enumerate(run.tasks):
            if node.task == run.driver_fails_at and run.done > number:
                name = f"{node.task}-driver"
                details[name] = {"display_name": name, "state": "FAILED", "child_tasks": []}
                failed = True
                continue
            last = number == len(run.tasks) - 1
            if failed and not last:
                continue
            if run.done <= number and not failed:
                break
            over = run.done > number + 1 or failed
            fails = node.task == run.fails_at and over
            for name, detail in node.details(over, fails).items():
                known_children = details.get(name, {}).get("child_tasks", [])
                details[name] = {**detail, "child_tasks": known_children + detail["child_tasks"]}
            failed = failed or fails
        whole = run.done > len(run.tasks)
        state = "RUNNING" if run.done else "PENDING"
        if failed or whole:
            state = "FAILED" if failed else "SUCCEEDED"
        answer: dict[str, Any] = {
            **run.request, "run_id": run_id, "created_at": run.created, "state": state,
            "storage_state": "AVAILABLE",
        }  # fmt: skip
        if details and not run.collected:
            answer["run_details"] = {"task_details": list(details.values())}
        return answer

    def log(self, run_id: str, name: str) -> str:
        run = self.state.runs[run_id]
        for node in run.tasks:
            known = node.container if self.state.archived else node.pod
            if self.state.logs_kept and name == known:
                lines = _log(run, node.task).splitlines(keepends=True)
                # The reader of the archive takes lines of JSON for its own.
                bare = self.state.archived
                return "".join(line for line in lines if not (bare and line.startswith("{")))
        if self.state.log_errors_are_answers:
            return json.dumps({"error_message": f"pods {name!r} not found", "error_details": ""})
        raise NotUploaded(500, f"Failed to read logs for run {run_id}: pods {name!r} not found")

    def ui_log(self) -> str:
        """The UI's server asks Kubernetes for the log of a pod."""
        if not self.state.ui:
            raise Refused(NOT_FOUND, "Not Found")
        for run in self.state.runs.values():
            for node in run.tasks:
                if self.query == {"podname": node.pod, "podnamespace": "kubeflow"}:
                    return _log(run, node.task)
        raise NotUploaded(500, "Could not get main container logs")

    # Recurring runs

    def create_recurring_run(self) -> Any:
        required = (
            "display_name",
            "experiment_id",
            "pipeline_version_reference",
            "trigger",
            "mode",
        )
        body = self._body(RECURRING_RUN, required)
        self._runnable(body)
        if not 1 <= int(body.get("max_concurrency", 0)) <= 10:
            raise Refused(INVALID, "The max concurrency of the recurring run is out of range")
        cron = body["trigger"]["cron_schedule"]["cron"]
        if not re.fullmatch(r"([-0-9*,/?]+ ){5}[-0-9*,/?A-Z]+", cron):
            raise Refused(
                INVALID,
                "Schedule cron is not a supported format"
                f"(https://godoc.org/github.com/robfig/cron). Error: {cron}",
            )
        made = {
            **body,
            "max_concurrency": str(body["max_concurrency"]),
            "recurring_run_id": str(uuid.uuid4()),
            "created_at": self.state.now(),
            "status": "ENABLED",
        }
        self.state.recurring[made["recurring_run_id"]] = made
        return made

    def list_recurring_runs(self) -> Any:
        wanted = self.query.get("experiment_id")
        found = [r for r in self.state.recurring.values() if r["experiment_id"] == wanted]
        return self._list("recurringRuns", found, "experiment_id")

    def disable_recurring_run(self, recurring_run_id: str) -> Any:
        if recurring_run_id not in self.state.recurring:
            raise Refused(NOT_FOUND, f"Job {recurring_run_id} not found")
        self.state.recurring[recurring_run_id]["status"] = "DISABLED"
        return {}

    def delete_recurring_run(self, recurring_run_id: str) -> Any:
        if self.state.recurring.pop(recurring_run_id, None) is None:
            raise Refused(NOT_FOUND, f"Job {recurring_run_id} not found")
        # Kubernetes deletes what belongs to the deleted object: the workflows of its runs.
        for run_id, run in list(self.state.runs.items()):
            if run.request.get("recurring_run_id") == recurring_run_id:
                del self.state.runs[run_id]
        return {}


_ROUTES = [
    ("GET", "/apis/v2beta1/healthz", None),
    ("GET", "/apis/v1beta1/healthz", None),
    ("GET", "/apis/v2beta1/pipelines", _Handler.list_pipelines),
    ("POST", "/apis/v2beta1/pipelines", _Handler.create_pipeline),
    ("POST", "/apis/v2beta1/pipelines/upload_version", _Handler.upload_version),
    ("GET", f"/apis/v2beta1/pipelines/{ID}/versions", _Handler.list_versions),
    ("GET", f"/apis/v2beta1/pipelines/{ID}/versions/{ID}", _Handler.get_version),
    ("GET", "/apis/v2beta1/experiments", _Handler.list_experiments),
    ("POST", "/apis/v2beta1/experiments", _Handler.create_experiment),
    ("GET", "/apis/v2beta1/runs", _Handler.list_runs),
    ("POST", "/apis/v2beta1/runs", _Handler.create_run),
    ("GET", f"/apis/v2beta1/runs/{ID}", _Handler.get_run),
    ("GET", f"/apis/v1alpha1/runs/{ID}/nodes/([a-z0-9-]+)/log", _Handler.log),
    ("GET", "/k8s/pod/logs", _Handler.ui_log),
    ("GET", "/apis/v2beta1/recurringruns", _Handler.list_recurring_runs),
    ("POST", "/apis/v2beta1/recurringruns", _Handler.create_recurring_run),
    ("POST", f"/apis/v2beta1/recurringruns/{ID}:disable", _Handler.disable_recurring_run),
    ("DELETE", f"/apis/v2beta1/recurringruns/{ID}", _Handler.delete_recurring_run),
]


def _log(run: FakeRun, name: str) -> str:
    """The log of a pod, with lines of KFP's launcher."""
    ours = [f"goodseed: {name}: not a single photo"] if name == run.fails_at else []
    if name == "summary" and run.summary is not None:
        ours = [f"summary: {json.dumps(run.summary)}"]
    return "\n".join(
        ["I0101 00:00:00.1 1 launcher_v2.go:90] input", *ours, "I0101 main.go:50] end", ""]
    )
