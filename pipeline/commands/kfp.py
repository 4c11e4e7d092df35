"""`goodseed kfp`: the pipeline on Kubeflow, or its package on this machine."""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UserError
from pipeline import summary
from pipeline.commands.config import add_profile, add_set
from pipeline.system import silent_stderr

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.kubeflow.client import Cluster, Run, Version

DONE = 0  # exit status
STATUSES = "0 pushed, 3 the gate stayed shut, 1 a step failed, 2 a mistake in the command"


def add_command(commands: Any) -> None:
    """Adds `kfp` to the commands of `goodseed`."""
    kfp = commands.add_parser(
        "kfp", help="compile, run and schedule the pipeline on Kubeflow", allow_abbrev=False
    )
    verbs = kfp.add_subparsers(required=True, metavar="VERB")
    _add_compile(verbs)
    _add_upload(verbs)
    _add_run(verbs)
    _add_schedule(verbs)
    _add_status(verbs)
    _add_logs(verbs)
    _add_run_local(verbs)


def _add(verbs: Any, name: str, text: str, more: str, command: Callable[..., int]) -> Any:
    verb = verbs.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}. {more}", allow_abbrev=False
    )
    verb.set_defaults(command=command)
    return verb


def _add_compile(verbs: Any) -> None:
    verb = _add(
        verbs, "compile", "write the package that Kubeflow runs",
        "The package fixes volumes, image and resources (kubeflow.* of pipeline/config.py). Every "
        "other option becomes the default of a pipeline parameter.",
        _compile,
    )  # fmt: skip
    verb.add_argument("package", metavar="PACKAGE", type=Path, help="file to write, .yaml")
    verb.add_argument(
        "--photos", default="/photos", metavar="PATH",
        help="folder of the photos in the pods (default: /photos, the volume's mount point)",
    )  # fmt: skip
    verb.add_argument(
        "--run-dir", default="/work", metavar="PATH",
        help="folder of the runs in the pods (default: /work, the volume's mount point)",
    )  # fmt: skip
    add_profile(verb)


def _add_upload(verbs: Any) -> None:
    verb = _add(
        verbs, "upload", "make the package a new version of the pipeline",
        "The first upload makes the pipeline too. An upload does not start a run.", _upload,
    )  # fmt: skip
    verb.add_argument("package", metavar="PACKAGE", type=Path, help="what `compile` wrote")
    verb.add_argument("--name", help="name of the version (default: date and time)")
    _add_server(verb)


def _add_run(verbs: Any) -> None:
    verb = _add(
        verbs, "run", "start a run of an uploaded version",
        f"To upload a version: `upload`. Exit status with --wait: {STATUSES}.", _run,
    )  # fmt: skip
    _add_what_runs(verb)
    verb.add_argument("--wait", action="store_true", help="show the steps until the run has ended")
    _add_server(verb)


def _add_schedule(verbs: Any) -> None:
    verb = _add(
        verbs, "schedule", "run an uploaded version regularly, for new spans of photos",
        "There is one run at a time; missed runs are not repeated. A schedule of the same name is "
        "replaced; its run in progress goes on. A schedule keeps its version: after an upload, run "
        "this command again.",
        _schedule,
    )  # fmt: skip
    verb.add_argument("name", metavar="NAME", help="name of the schedule")
    verb.add_argument(
        "--cron", required=True, type=_cron, metavar="'M H D M W'",
        help="when: minute, hour, day, month, weekday, or KFP's six fields with seconds first; "
        "in the server's time zone, usually UTC",
    )  # fmt: skip
    _add_what_runs(verb)
    _add_server(verb)


def _add_status(verbs: Any) -> None:
    verb = _add(
        verbs, "status", "show a run's steps, and its summary when it has ended",
        f"Exit status if the run has ended: {STATUSES}; 0 if it still runs.", _status,
    )  # fmt: skip
    _add_which_run(verb)
    _add_server(verb)


def _add_logs(verbs: Any) -> None:
    verb = _add(verbs, "logs", "print the log of a step", "", _logs)
    verb.add_argument("step", metavar="STEP", help="its name, as `status` shows it")
    _add_which_run(verb)
    _add_server(verb)


def _add_run_local(verbs: Any) -> None:
    verb = _add(
        verbs, "run-local", "run the package on this machine, in its image, with Docker",
        "kfp.local runs the steps as a cluster would, but without retries, without cache and, if a "
        f"step fails, without the exit handler. Exit status: {STATUSES}.", _run_local,
    )  # fmt: skip
    verb.add_argument("package", metavar="PACKAGE", type=Path, help="what `compile` wrote")
    verb.add_argument("--photos", required=True, metavar="DIR", help="folder on this machine")
    verb.add_argument("--run-dir", required=True, metavar="DIR", help="folder; made if missing")
    add_set(verb, "instead of the package's")


def _add_what_runs(verb: Any) -> None:
    verb.add_argument("--version", metavar="NAME", help="name of the version (default: the newest)")
    add_set(verb, "instead of the package's")
    verb.add_argument(
        "--service-account", metavar="NAME", help="of the pods (default: the server's own)"
    )


def _add_which_run(verb: Any) -> None:
    verb.add_argument(
        "run", metavar="RUN", nargs="?", help="its id (default: the newest of the experiment)"
    )


def _add_server(verb: Any) -> None:
    environment = os.environ.get
    server = verb.add_argument_group("the server")
    server.add_argument(
        "--endpoint", default=environment("KF_PIPELINES_ENDPOINT"), metavar="URL",
        help="address of Kubeflow Pipelines' API (default: $KF_PIPELINES_ENDPOINT)",
    )  # fmt: skip
    server.add_argument(
        "--namespace", default=environment("KFP_NAMESPACE"),
        help="your namespace on a server with several users (default: $KFP_NAMESPACE)",
    )  # fmt: skip
    server.add_argument(
        "--token-file", default=environment("KF_PIPELINES_SA_TOKEN_PATH"), metavar="FILE",
        help="file with the token (default: $KF_PIPELINES_SA_TOKEN_PATH; or the token itself in "
        "$KFP_EXISTING_TOKEN)",
    )  # fmt: skip
    server.add_argument(
        "--ca-file", default=environment("SSL_CERT_FILE"), metavar="FILE",
        help="PEM of the trusted authorities (default: $SSL_CERT_FILE, else the public ones)",
    )  # fmt: skip
    server.add_argument(
        "--experiment", metavar="NAME",
        default=environment("KF_PIPELINES_DEFAULT_EXPERIMENT_NAME", "Default"),
        help="the runs' experiment (default: $KF_PIPELINES_DEFAULT_EXPERIMENT_NAME, else Default)",
    )  # fmt: skip


def _cron(text: str) -> str:
    fields = text.split()
    if len(fields) == 5:
        return " ".join(["0", *fields])
    if len(fields) != 6:
        raise argparse.ArgumentTypeError(f"{text!r} should have five or six fields")
    return " ".join(fields)


def _cluster(options: argparse.Namespace) -> Cluster:
    from pipeline.kubeflow.client import Cluster

    if not options.endpoint:
        raise UserError("no server is named: give --endpoint or set KF_PIPELINES_ENDPOINT")
    return Cluster(
        options.endpoint,
        namespace=options.namespace,
        token_file=options.token_file,
        ca_file=options.ca_file,
        experiment=options.experiment,
    )


def _what_runs(options: argparse.Namespace, cluster: Cluster) -> tuple[Version, dict[str, Any]]:
    """The version, and the arguments for a run of it."""
    from pipeline.config import PIPELINE_NAME
    from pipeline.kubeflow import parameters

    version = cluster.version(PIPELINE_NAME, options.version)
    return version, parameters.changes(version.defaults, options.overrides)


def _compile(options: argparse.Namespace) -> int:
    from pipeline import config

    loaded = config.load(
        profile=options.profile, photos=options.photos, run_dir=options.run_dir,
        overrides=options.overrides, here=False,
    )  # fmt: skip
    with _console().status("loading TFX"), silent_stderr():
        from pipeline.kubeflow.compile import compile_package

        compile_package(loaded, options.package)
    print(options.package)
    return DONE


def _upload(options: argparse.Namespace) -> int:
    version = _cluster(options).upload(options.package, options.name)
    print(f"version {version.name}")
    return DONE


def _run(options: argparse.Namespace) -> int:
    from pipeline.kubeflow import client

    cluster = _cluster(options)
    version, arguments = _what_runs(options, cluster)
    run_id = cluster.start(
        version, arguments, name=f"{version.name}, {datetime.datetime.now():%Y-%m-%d %H:%M:%S}",
        service_account=options.service_account,
    )  # fmt: skip
    print(f"run {run_id} of version {version.name}")
    if not options.wait:
        return DONE
    console = _console()
    try:
        with console.status("waiting for the first step") as status:
            run = client.wait(cluster, run_id, _Steps(console, status.update))
    except KeyboardInterrupt:
        print(f"goodseed: the run goes on; see goodseed kfp status {run_id}", file=sys.stderr)
        raise
    return _end(cluster, run, console)


def _schedule(options: argparse.Namespace) -> int:
    cluster = _cluster(options)
    version, arguments = _what_runs(options, cluster)
    replaced = cluster.schedule(
        version, arguments, name=options.name, cron=options.cron,
        service_account=options.service_account,
    )  # fmt: skip
    how = "replaced" if replaced else "new"
    print(f"schedule {options.name}: '{options.cron}', version {version.name} ({how})")
    return DONE


def _status(options: argparse.Namespace) -> int:
    from rich.table import Table

    from pipeline.kubeflow.client import OVER

    cluster = _cluster(options)
    run = cluster.run(options.run)
    table = Table("step", "state", "seconds")
    for step in run.steps:
        seconds = "" if step.seconds is None else f"{step.seconds:,.0f}"
        table.add_row(step.name, step.state.lower(), seconds)
    print(f"{run.name}: {run.state.lower()}", cluster.page(run.run_id), sep="\n")
    console = _console()
    console.print(table)
    return _end(cluster, run, console) if run.state in OVER else DONE


def _logs(options: argparse.Namespace) -> int:
    cluster = _cluster(options)
    sys.stdout.write(cluster.log(cluster.run(options.run), options.step))
    return DONE


def _run_local(options: argparse.Namespace) -> int:
    from pipeline.kubeflow import local

    document = local.run(
        options.package, Path(options.photos), Path(options.run_dir), options.overrides
    )
    summary.show(document, _console())
    if document["failure"]:
        print(f"goodseed: {document['failure']}", file=sys.stderr)
    return summary.exit_status(document)


def _end(cluster: Cluster, run: Run, console: Console) -> int:
    """Shows how a run ended; returns the exit status."""
    document = cluster.summary(run)
    if document:
        summary.show(document, console)
    failed = [step.name for step in run.steps if step.state == "FAILED"]
    for step in failed:
        print(f"goodseed: {step}: {cluster.error_line(run, step)}", file=sys.stderr)
    if run.state != "SUCCEEDED" and not failed:
        print(f"goodseed: the run is {run.state.lower()} {run.error}".rstrip(), file=sys.stderr)
    if run.state != "SUCCEEDED":
        return summary.FAILED
    page = cluster.page(run.run_id)
    if run.pushed is None:
        print(
            "goodseed: the run succeeded, but the states of its steps do not say whether it "
            f"pushed; see {page}",
            file=sys.stderr,
        )
        return summary.FAILED
    if not document:
        outcome = "pushed" if run.pushed else "not pushed"
        print(f"{outcome}; for the summary, see its step on {page}")
    return summary.PUSHED if run.pushed else summary.GATE_SHUT


class _Steps:
    """Prints each step of a run when it has ended, and shows which steps are running."""

    def __init__(self, console: Console, running: Callable[[str], None]):
        self._console = console
        self._running = running
        self._printed: set[str] = set()

    def __call__(self, run: Run) -> None:
        from pipeline.kubeflow.client import OVER

        for step in run.steps:
            if step.state in OVER and step.name not in self._printed:
                self._printed.add(step.name)
                place = f"({len(self._printed)}/{len(run.steps)})"
                took = "" if step.seconds is None else f", {step.seconds:,.0f} s"
                self._console.print(
                    f"{place} {step.name}: {step.state.lower()}{took}", highlight=False
                )
        busy = [step.name for step in run.steps if step.state and step.state not in OVER]
        self._running(f"{', '.join(busy) or run.state.lower()} …")


def _console() -> Console:
    from rich.console import Console

    return Console()
