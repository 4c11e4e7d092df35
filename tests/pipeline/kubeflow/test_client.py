"""`goodseed kfp` against a server that answers as Kubeflow Pipelines does."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline import cli
from pipeline.kubeflow import client, parameters
from tests.conftest import Finished
from tests.pipeline.kubeflow.api_server import KubeflowServer, serve

SUMMARY: dict[str, Any] = {
    "examples": {"train": 168, "eval": 36, "test": 36, "rejected": {"broken": 2}},
    "gate": {
        "metric": "mean_absolute_error", "value": 6.5, "bound": 8.0, "baseline": None,
        "blessed": True, "reasons": [],
    },
    "pushed_version": 1764000000,
    "failure": None,
    "seconds": {"Trainer": 60.0, "total": 99.0},
    "peak_rss_mb": {"Trainer": 900.0, "total": 900.0},
    "versions": {},
}  # fmt: skip
NOT_PASSED = {
    **SUMMARY,
    "gate": {**SUMMARY["gate"], "blessed": False, "reasons": ["MAE 8.50 years is above the bound"]},
    "pushed_version": None,
}


Command = Callable[..., Finished]


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real package, from the command that a user calls."""
    file = tmp_path_factory.mktemp("package") / "goodseed.yaml"
    image = "kubeflow.image=registry.test/goodseed:1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["goodseed"])
        compiled = ["--profile", "demo", "--set", image, "--set", "trainer.epochs=2"]
        assert cli.main(["kfp", "compile", str(file), *compiled]) == 0
    return file


@pytest.fixture
def server() -> Iterator[KubeflowServer]:
    state = KubeflowServer(summary=SUMMARY)
    with serve(state):
        yield state


@pytest.fixture
def kfp(
    server: KubeflowServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs `goodseed kfp` with that server as the default."""
    monkeypatch.setattr(sys, "argv", ["goodseed"])
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(time, "sleep", lambda _: None)  # no waiting between two polls
    for name in ("KFP_NAMESPACE", "KFP_EXISTING_TOKEN", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str | Path) -> Finished:
        capsys.readouterr()
        status = cli.main(["kfp", *map(str, arguments)])
        return Finished(status, *capsys.readouterr())

    return run


def one_line(said: Finished) -> str:
    """The one line that a mistake of the user gives."""
    assert (said.status, said.out) == (2, "")
    (line,) = said.err.splitlines()
    assert line.startswith("goodseed: ")
    return line


def test_uploads_are_versions_of_one_pipeline(
    kfp: Command, server: KubeflowServer, package: Path
) -> None:
    assert kfp("upload", package, "--name", "first").status == 0
    assert kfp("upload", package).status == 0

    (pipeline,) = server.pipelines.values()
    assert pipeline["name"] == "goodseed-age-check"
    first, second = server.versions.values()
    assert first["pipeline_id"] == second["pipeline_id"] == pipeline["pipeline_id"]
    assert first["name"] == "first" and second["name"].startswith("20")
    # The server drops a platform document that it does not understand.
    assert first["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]


def test_a_version_of_the_same_name_is_refused(kfp: Command, package: Path) -> None:
    kfp("upload", package, "--name", "first")
    said = one_line(kfp("upload", package, "--name", "first"))
    assert said.endswith("goodseed-age-check has a version first already: give another --name")


@pytest.mark.parametrize("text", ["", "a: [", "- a\n- b\n", "pipelineInfo: 3\n", "\x00"])
def test_a_file_that_is_not_a_package_is_not_uploaded(
    kfp: Command, server: KubeflowServer, tmp_path: Path, text: str
) -> None:
    (tmp_path / "no.yaml").write_text(text)
    assert "not a package" in one_line(kfp("upload", tmp_path / "no.yaml"))
    assert "No such file" in one_line(kfp("upload", tmp_path / "none.yaml"))
    assert not server.pipelines


def test_a_run_gets_the_options_that_differ_from_the_package(
    kfp: Command, server: KubeflowServer, package: Path
) -> None:
    kfp("upload", package, "--name", "old")
    kfp("upload", package, "--name", "new")
    assert kfp("run").status == 0
    options = ("trainer.epochs=5", "trainer.patience=2", "data.span_window=3")
    sets = [word for option in options for word in ("--set", option)]
    said = kfp("run", "--version", "old", "--service-account", "trainer", *sets)
    assert said.status == 0

    plain, changed = (run.request for run in server.runs.values())
    versions = {version["name"]: key for key, version in server.versions.items()}
    assert plain["runtime_config"].get("parameters", {}) == {}
    assert plain["pipeline_version_reference"]["pipeline_version_id"] == versions["new"]
    assert changed["pipeline_version_reference"]["pipeline_version_id"] == versions["old"]
    assert changed["service_account"] == "trainer"
    given = changed["runtime_config"]["parameters"]
    assert given.keys() == {"epochs", "config"} and given["epochs"] == 5
    spec = next(yaml.safe_load_all(package.read_text()))
    rest = spec["root"]["inputDefinitions"]["parameters"]["config"]["defaultValue"]
    rest["trainer"]["patience"], rest["data"]["span_window"] = 2, 3
    assert given["config"] == rest


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("trainer.epoch=5", "trainer.epoch: no such option"),
        ("trainer.epochs=0", "trainer.epochs: "),
        ("kubeflow.image=x:2", "the package fixes it"),
        ("epochs=5", "write section.key=value"),
    ],
)
def test_a_mistake_in_an_option_starts_nothing(
    kfp: Command, server: KubeflowServer, package: Path, override: str, says: str
) -> None:
    kfp("upload", package)
    assert says in one_line(kfp("run", "--set", override))
    assert not server.runs


def test_waiting_shows_the_steps_and_has_the_exit_status_of_a_local_run(
    kfp: Command, server: KubeflowServer, package: Path
) -> None:
    kfp("upload", package)
    said = kfp("run", "--wait")
    assert (said.status, said.err) == (0, "")
    lines = [line for line in said.out.splitlines() if line.startswith("(")]
    assert lines[0] == "(1/15) plan: succeeded, 42 s"
    assert lines[-1] == "(15/15) summary: succeeded, 42 s"
    assert "6.50 years (bound 8.00)" in said.out and "1764000000" in said.out

    server.summary, server.pushes = NOT_PASSED, False
    said = kfp("run", "--wait")
    assert (said.status, said.err) == (3, "")
    assert ") pushed: " not in said.out
    assert "not pushed: MAE 8.50 years is above the bound" in said.out


def test_a_failed_run_says_which_step_and_why(
    kfp: Command, server: KubeflowServer, package: Path
) -> None:
    kfp("upload", package)
    server.fails_at = "trainer"
    server.summary = {**SUMMARY, "gate": None, "pushed_version": None, "failure": "Trainer: no"}
    said = kfp("run", "--wait")
    assert said.status == 1
    assert said.err == "goodseed: trainer: trainer: not a single photo\n"
    assert "trainer: failed" in said.out and "pusher" not in said.out


@pytest.mark.parametrize(("pushes", "status"), [(True, 0), (False, 3)])
def test_the_outcome_needs_no_log(
    kfp: Command, server: KubeflowServer, package: Path, pushes: bool, status: int
) -> None:
    kfp("upload", package)
    server.logs_kept, server.pushes = False, pushes
    said = kfp("run", "--wait")
    assert (said.status, said.err) == (status, "")
    outcome = "pushed" if pushes else "not pushed"
    assert f"\n{outcome}; for the summary, see its step on http" in said.out


def test_a_run_whose_workflow_is_deleted_has_an_unknown_outcome(
    kfp: Command, server: KubeflowServer, package: Path
) -> None:
    kfp("upload", package)
    kfp("run", "--wait")
    (run,) = server.runs.values()
    run.collected = True
    said = kfp("status")
    assert said.status == 1
    assert "the states of its steps do not say whether it pushed" in said.err
    assert len(said.err.splitlines()) == 1


def test_waiting_continues_while_the_server_restarts(
    kfp: Command, server: KubeflowServer, package: Path
) -> None:
    kfp("upload", package)
    server.outages = 3
    assert kfp("run", "--wait").status == 0
    assert server.outages == 0


def test_a_schedule_replaces_the_schedule_of_the_same_name(
    kfp: Command, server: KubeflowServer, package: Path
) -> None:
    kfp("upload", package, "--name", "old")
    assert kfp("schedule", "nightly", "--cron", "30 2 * * *").out.endswith("(new)\n")
    assert kfp("schedule", "weekly", "--cron", "0 0 3 * * 0").status == 0
    kfp("upload", package, "--name", "new")
    said = kfp("schedule", "nightly", "--cron", "30 2 * * *", "--set", "evaluator.max_mae=7")
    assert said.out.endswith("(replaced)\n")

    schedules = {one["display_name"]: one for one in server.recurring.values()}
    assert len(server.recurring) == 2
    nightly = schedules["nightly"]
    assert nightly["trigger"] == {"cron_schedule": {"cron": "0 30 2 * * *"}}
    assert (nightly["mode"], nightly["max_concurrency"], nightly["no_catchup"]) == (
        "ENABLE", "1", True,
    )  # fmt: skip
    assert nightly["runtime_config"]["parameters"] == {"max_mae": 7}
    version = server.versions[nightly["pipeline_version_reference"]["pipeline_version_id"]]
    assert version["name"] == "new"


def test_a_new_schedule_does_not_end_the_run_of_the_old_one(
    kfp: Command, server: KubeflowServer, package: Path
) -> None:
    """The old one is disabled, and deleted when its run is over."""
    kfp("upload", package)
    kfp("schedule", "nightly", "--cron", "30 2 * * *")
    kfp("run")
    (old,), (run,) = server.recurring, server.runs.values()
    run.request["recurring_run_id"] = old
    for status in (["DISABLED", "ENABLED"], ["DISABLED", "ENABLED"]):
        assert kfp("schedule", "nightly", "--cron", "30 2 * * *").out.endswith("(replaced)\n")
        assert [one["status"] for one in server.recurring.values()] == status
        assert old in server.recurring and run in server.runs.values()
    run.done = len(run.tasks) + 1
    kfp("schedule", "nightly", "--cron", "30 2 * * *")
    assert old not in server.recurring and len(server.recurring) == 1


def test_a_refused_schedule_keeps_the_old_one(
    kfp: Command, server: KubeflowServer, package: Path
) -> None:
    kfp("upload", package)
    kfp("schedule", "nightly", "--cron", "30 2 * * *")
    before = dict(server.recurring)
    said = one_line(kfp("schedule", "nightly", "--cron", "30 2 * * ever!"))
    assert "Schedule cron is not a supported format" in said
    assert server.recurring == before


def test_status_of_a_run_that_has_no_version(
    kfp: Command, server: KubeflowServer, package: Path
) -> None:
    """It was started from a file, as kfp.Client.create_run_from_pipeline_package does."""
    kfp("upload", package)
    kfp("run")
    (run_id, run), (version,) = *server.runs.items(), server.versions.values()
    del run.request["pipeline_version_reference"]
    run.request["pipeline_spec"] = version["pipeline_spec"]
    said = kfp("status")
    assert said.status == 0 and run_id in said.out and "trainer" in said.out


def test_status_shows_no_run_of_another_pipeline(
    kfp: Command, server: KubeflowServer, package: Path
) -> None:
    kfp("upload", package)
    kfp("run")
    kfp("run")
    first, second = server.runs
    server.runs[second].request["pipeline_version_reference"] = {
        "pipeline_id": "00000000-0000-0000-0000-000000000000",
        "pipeline_version_id": "00000000-0000-0000-0000-000000000000",
    }
    said = kfp("status")
    assert first in said.out and second not in said.out


def test_a_failed_driver_has_a_name(kfp: Command, server: KubeflowServer, package: Path) -> None:
    kfp("upload", package)
    kfp("run")
    (run,) = server.runs.values()
    run.driver_fails_at, run.done = "trainer", 9
    said = kfp("status")
    assert said.status == 1 and "trainer-driver" in said.out
    assert said.err.startswith("goodseed: trainer-driver: ")


def test_the_sdk_prints_nothing(kfp: Command, package: Path) -> None:
    kfp("upload", package)
    assert "Run details" not in kfp("run").out


def test_status_shows_the_newest_run_or_the_named_run(
    kfp: Command, server: KubeflowServer, package: Path
) -> None:
    assert "no run of goodseed-age-check in the experiment Default:" in one_line(kfp("status"))
    kfp("upload", package)
    kfp("run")
    kfp("run")
    first, second = server.runs
    said = kfp("status")
    assert said.status == 0 and second in said.out and "running" in said.out
    assert "summary" in said.out  # steps that have not started are listed too
    while not server.runs[first].done > len(server.runs[first].tasks):
        assert (said := kfp("status", first)).status == 0
    assert first in said.out and "1764000000" in said.out
    assert "not found" in one_line(kfp("status", "00000000-0000-0000-0000-000000000000"))


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("defaults", [False, True])
@pytest.mark.parametrize("log_errors_are_answers", [False, True])
def test_logs_of_a_step(
    kfp: Command,
    server: KubeflowServer,
    package: Path,
    archived: bool,
    defaults: bool,
    log_errors_are_answers: bool,
) -> None:
    server.log_errors_are_answers, server.defaults = log_errors_are_answers, defaults
    kfp("upload", package)
    server.fails_at = "trainer"
    kfp("run", "--wait")
    server.archived = archived
    said = kfp("logs", "trainer")  # a retried step
    assert said.status == 0 and "goodseed: trainer: not a single photo" in said.out
    assert "launcher" in kfp("logs", "plan").out  # a step without retries
    assert json.dumps(SUMMARY) in kfp("logs", "summary").out
    assert "pusher has no log: it has not run" in one_line(kfp("logs", "pusher"))
    assert "no step train: the run has plan, " in one_line(kfp("logs", "train"))
    server.logs_kept = False
    lost = one_line(kfp("logs", "trainer"))
    assert "trainer has no log any more, or not yet: " in lost and "not found" in lost
    (run,) = server.runs.values()
    pod = next(node.pod for node in run.tasks if node.task == "trainer")
    assert lost.endswith(f"; kubectl logs --namespace kubeflow {pod} may still show it")


def test_the_log_of_a_pod_that_only_the_ui_finds(
    kfp: Command, server: KubeflowServer, package: Path
) -> None:
    """Without several users, the API server looks for pods in no namespace."""
    kfp("upload", package)
    server.logs_kept, server.ui = False, True
    assert kfp("run", "--wait").status == 0
    assert json.dumps(SUMMARY) in kfp("logs", "summary").out


def test_steps_are_listed_in_the_order_of_their_dependencies(package: Path) -> None:
    spec = next(yaml.safe_load_all(package.read_text()))
    names = [name for name, _ in client._containers(spec, spec["root"]["dag"], ("root",))]
    assert names[0] == "plan" and names[-1] == "summary"
    assert names.index("pusher") < names.index("pushed")
    assert names.index("trainer") < names.index("evaluator")


def test_a_run_with_the_defaults_of_the_package_needs_no_parameters(package: Path) -> None:
    spec = next(yaml.safe_load_all(package.read_text()))
    defaults = client.Version("", "", "", spec).defaults
    assert defaults["epochs"] == 2 and parameters.changes(defaults, []) == {}


# Servers that do not answer as expected


def test_no_endpoint(kfp: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT")
    assert "give --endpoint or set KF_PIPELINES_ENDPOINT" in one_line(kfp("status"))
    assert "write a URL" in one_line(kfp("status", "--endpoint", "kubeflow.test"))


def test_no_server_listens(kfp: Command) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        said = kfp("status", "--endpoint", f"http://127.0.0.1:{free.getsockname()[1]}")
    assert one_line(said).endswith("does not answer: Connection refused")


@pytest.mark.parametrize(
    ("status", "page", "says"),
    [
        (200, "<html>Log in</html>", "not as Kubeflow Pipelines does"),
        (404, "<html>nothing</html>", "Kubeflow Pipelines is not there"),
        (502, "<html>Bad gateway</html>", "Bad Gateway"),
    ],
)
def test_another_kind_of_server(kfp: Command, status: int, page: str, says: str) -> None:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as other:
        threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.05}).start()
        try:
            said = kfp("status", "--endpoint", f"http://127.0.0.1:{other.server_port}")
        finally:
            other.shutdown()
    assert says in one_line(said)


def test_an_old_server(kfp: Command, server: KubeflowServer) -> None:
    server.tag = "2.4.1"
    assert "Kubeflow Pipelines 2.4.1: it has to be 2.5 or newer" in one_line(kfp("status"))
    server.api = "v1beta1"
    assert "Kubeflow Pipelines 1: it has to be 2.5 or newer" in one_line(kfp("status"))


def test_namespaces(kfp: Command, server: KubeflowServer, package: Path) -> None:
    assert "leave out --namespace" in one_line(kfp("status", "--namespace", "team"))
    server.namespaces = ("team",)
    assert "give your --namespace" in one_line(kfp("status"))
    said = one_line(kfp("upload", package, "--namespace", "other"))
    assert "not authorized in other" in said and "--namespace" in said
    assert kfp("upload", package, "--namespace", "team").status == 0
    assert kfp("run", "--namespace", "team", "--wait").status == 0
    (pipeline,), (experiment,) = server.pipelines.values(), server.experiments.values()
    assert pipeline["namespace"] == experiment["namespace"] == "team"


def test_tokens(
    kfp: Command, server: KubeflowServer, package: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    server.token = "right"
    file = tmp_path / "token"
    assert "does not accept the token" in one_line(kfp("upload", package))
    assert "no such file" in one_line(kfp("upload", package, "--token-file", file))
    file.write_text("wrong\n")
    assert "does not accept the token" in one_line(kfp("upload", package, "--token-file", file))
    file.write_text("right\n")
    assert kfp("upload", package, "--token-file", file).status == 0
    monkeypatch.setenv("KFP_EXISTING_TOKEN", "right")
    assert kfp("run", "--wait").status == 0


def test_a_token_that_is_renewed_while_waiting(
    kfp: Command, server: KubeflowServer, package: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    file = tmp_path / "token"
    file.write_text("one")
    server.token = "one"
    kfp("upload", package, "--token-file", file)

    def renew(_: float) -> None:
        server.token = f"{server.token}+"
        file.write_text(server.token)

    monkeypatch.setattr(time, "sleep", renew)
    assert kfp("run", "--wait", "--token-file", file).status == 0


def test_tls_with_a_private_authority(
    kfp: Command, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, certificate, key = _certificates(tmp_path)
    state = KubeflowServer(summary=SUMMARY, token="right")
    monkeypatch.setenv("KFP_EXISTING_TOKEN", "right")
    with serve(state, (certificate, key)):
        said = one_line(kfp("upload", package, "--endpoint", state.url))
        assert "certificate refused" in said and "--ca-file" in said
        key_is_no_authority = kfp("upload", package, "--endpoint", state.url, "--ca-file", key)
        assert "no certificates in PEM" in one_line(key_is_no_authority)
        trusted = ("--endpoint", state.url, "--ca-file", authority)
        assert kfp("upload", package, *trusted).status == 0
        assert kfp("run", "--wait", *trusted).status == 0
        plain = kfp("status", "--endpoint", state.url.replace("https", "http"))
        assert "does not answer" in one_line(plain)


def _certificates(folder: Path) -> tuple[Path, Path, Path]:
    """The certificate of an authority; a certificate for 127.0.0.1 that it signed, and its key."""
    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("ours", "kfp")
    ]
    made = []
    for number in (0, 1):
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[number])
            .issuer_name(names[0])
            .public_key(keys[number].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=number == 0, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
                critical=False,
            )
        )
        made.append(builder.sign(keys[0], hashes.SHA256()))
    pem = serialization.Encoding.PEM
    files = folder / "ca.pem", folder / "kfp.pem", folder / "kfp.key"
    files[0].write_bytes(made[0].public_bytes(pem))
    files[1].write_bytes(made[1].public_bytes(pem))
    files[2].write_bytes(
        keys[1].private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files
