"""The parts of `holdfast-local run` that decide and write."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from holdfast_local.kubelet.client import ApiError
from holdfast_local.run import accounts
from holdfast_local.run.failure import RunFailed
from holdfast_local.run.installation import SOURCE_ROOT, crd_documents, operator_documents
from holdfast_local.run.manifest_file import Document, load_documents, load_tenant_file
from holdfast_local.run.orphans import MARK, end_orphans
from holdfast_local.run.progress import Progress
from holdfast_local.run.readiness import describe, one_per_line, verdict
from holdfast_local.run.state_directory import StateDirectory, write_private
from holdfast_local.run.submission import refusal
from holdfast_local.run.summary import (
    Connection,
    Surroundings,
    look_around,
    render_environment,
    render_next_steps,
)

TENANT = """apiVersion: holdfast.dev/v1
kind: Tenant
metadata: {name: logs, namespace: loki}
spec: {}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "tenant.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", r"tenant\.yaml:\d+: not valid YAML"),
        ("---\na: 1\n", r"tenant\.yaml:2: apiVersion is missing"),
        ("- 1\n", r"tenant\.yaml:1: a manifest must be a mapping"),
        (f"{TENANT}---\napiVersion: v1\nkind: Secret\n", r"tenant\.yaml:6: metadata\.name is missing"),
        (TENANT.replace("loki", "5"), r"tenant\.yaml:1: metadata\.namespace must be text"),
        ("apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n", "it has Namespace of v1"),
        ("apiVersion: holdfast.dev/v1\nkind: Tennant\nmetadata: {name: x}\n", "it has Tennant of holdfast.dev/v1"),
        ("# nothing yet\n", "it has nothing"),
        ("\x00", "not valid YAML"),
    ],
)
def test_a_broken_file_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RunFailed, match=message):
        load_tenant_file(write(tmp_path, text))


def test_documents_know_where_they_stand(tmp_path: Path) -> None:
    documents = load_documents(write(tmp_path, f"# comment\n---\n{TENANT}---\n---\n{TENANT}"))
    assert [document.source.rpartition(":")[2] for document in documents] == ["3", "9"]
    assert all(document.is_tenant for document in documents)


def test_a_day_is_text_and_an_empty_namespace_is_none_as_for_kubectl(tmp_path: Path) -> None:
    """JSON, in which it goes to the API server, has no days."""
    text = TENANT.replace(", namespace: loki", ", namespace: ").replace(
        "{}", "{date: 2027-01-31, at: 2027-01-31T00:00:00Z}"
    )
    (document,) = load_documents(write(tmp_path, text))
    assert document.manifest["spec"] == {"date": "2027-01-31", "at": "2027-01-31T00:00:00Z"}
    assert document.manifest["metadata"] == {"name": "logs"}


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"absent\.yaml: No such file"):
        load_documents(tmp_path / "absent.yaml")


def test_one_cluster_per_state_folder(tmp_path: Path) -> None:
    first, second = StateDirectory(tmp_path), StateDirectory(tmp_path)
    assert first.running_process() is None
    first.acquire()
    assert second.running_process() == os.getpid()
    with pytest.raises(RunFailed, match=f"already running \\(process {os.getpid()}\\)"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_a_stale_lock_file_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "run.lock").write_text("1\n")
    state = StateDirectory(tmp_path)
    assert state.running_process() is None
    state.acquire()
    state.release()


def test_an_impossible_state_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFailed, match=r"cannot write to .*file/state: Not a directory"):
        StateDirectory(tmp_path / "file" / "state").acquire()


def test_a_full_disk_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1024})()
    monkeypatch.setattr("holdfast_local.run.state_directory.shutil.disk_usage", lambda _: usage)
    with pytest.raises(RunFailed, match="No space left on device"):
        StateDirectory(tmp_path).prepare()


def test_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    write_private(tmp_path / "env", "secret")
    assert (tmp_path / "env").stat().st_mode & 0o777 == 0o600
    state = StateDirectory(tmp_path / "state")
    state.prepare()
    tokens = accounts.load_or_mint(state)
    assert accounts.load_or_mint(state) == tokens
    assert state.tokens.stat().st_mode & 0o777 == 0o600
    assert len(tokens.users()) == 3


def tenant(generation: int = 2, observed: int = 2, **conditions: str) -> dict[str, Any]:
    entries = [{"type": name, "status": status, "message": f"about {name}"} for name, status in conditions.items()]
    return {
        "metadata": {"name": "logs", "namespace": "loki", "generation": generation},
        "status": {"observedGeneration": observed, "conditions": entries},
    }


def test_a_verdict_needs_a_status_about_this_generation() -> None:
    assert verdict(tenant(Ready="True")).ready
    assert not verdict(tenant(observed=1, Ready="True")).ready
    assert not verdict({"metadata": {"generation": 1}}).ready
    assert verdict(tenant(observed=1, SpecValid="False")).refused == ""
    assert verdict(tenant(SpecValid="False")).refused == "about SpecValid"


def test_the_faults_of_a_refused_spec_are_told_one_per_line() -> None:
    faults = ["spec.pools[0].servers: 3 is too few; 4 at least", "spec: buckets: is no field", "spec.tls.mode: 'x'"]
    assert one_per_line("; ".join(faults)) == "".join(f"\n  {fault}" for fault in faults)
    assert one_per_line(faults[0]) == faults[0]


def test_the_first_condition_that_is_not_true_is_shown() -> None:
    ready = {"metadata": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    line = describe(tenant(Ready="False", PoolsReady="False", SpecValid="True"), [ready, {"metadata": {}}])
    assert line == "pods 1/2 · PoolsReady: about PoolsReady"


def make_connection(**changes: Any) -> Connection:
    fields: dict[str, Any] = {
        "namespace": "loki",
        "name": "logs",
        "endpoint_url": "http://127.78.1.2:9000",
        "region": "us-east-1",
        "root_secret": "logs-root",
        "access_key": "AK",
        "secret_key": "s'k $x",
        "certificate_authority": "",
        "buckets": ("loki-chunks",),
        "user_secrets": ("logs-user-loki",),
        "first_pod": "logs-pool-main-0",
    }
    return Connection(**{**fields, **changes})


def test_the_environment_file_survives_a_shell(tmp_path: Path) -> None:
    path = tmp_path / "env"
    path.write_text(render_environment(make_connection(), tmp_path / "ca.crt"))
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_IAM", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
    values = " ".join(f'"${name}"' for name in (*names, "AWS_CA_BUNDLE"))
    script = f". {path}; printf '%s|' {values}"
    shown = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True).stdout
    endpoint = "http://127.78.1.2:9000"
    assert shown == f"{endpoint}|{endpoint}|s'k $x|us-east-1|{tmp_path}/ca.crt|"


def test_the_environment_file_takes_leftovers_of_aws_away(tmp_path: Path) -> None:
    """A token of AWS that goes with other keys has every request refused with InvalidToken."""
    path = tmp_path / "env"
    path.write_text(render_environment(make_connection(), None))
    left_over = {"AWS_SESSION_TOKEN": "of-aws", "AWS_PROFILE": "work", "AWS_ACCESS_KEY_ID": "of-aws"}
    script = f'set -eu; . {path}; echo "${{AWS_SESSION_TOKEN-none}} ${{AWS_PROFILE-none}} $AWS_ACCESS_KEY_ID"'
    for environment in (left_over, {}):
        shown = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True, env=environment).stdout
        assert shown == "none none AK\n"


def test_next_steps_name_endpoint_keys_and_buckets(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    here = Surroundings(has_kubectl=True, aws="aws", install_aws="")
    text = "\n".join(render_next_steps([make_connection()], state, here))
    for part in (
        "http://127.78.1.2:9000",
        "logs-user-loki",
        f"source {state.environment_file}",
        "loki-chunks",
        "kubectl",
    ):
        assert part in text
    assert "s'k" not in text
    assert "install" not in text
    bare = Surroundings(has_kubectl=False, aws="python -m awscli", install_aws="pip install awscli")
    text = "\n".join(render_next_steps([make_connection()], state, bare))
    assert "kubectl" not in text
    assert text.index("pip install awscli") < text.index("python -m awscli s3 ls")


def test_an_aws_of_any_age_is_told_where_the_store_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of Debian 12 passes over AWS_ENDPOINT_URL_S3, and would ask AWS itself."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "--endpoint-url" not in look_around(()).aws, "what pip installs is new enough"
    (tmp_path / "aws").touch(mode=0o755)
    here = look_around(())
    assert (here.aws, here.install_aws) == ('aws --endpoint-url "$AWS_ENDPOINT_URL_S3"', "")
    lines = render_next_steps([make_connection()], StateDirectory(tmp_path), here)
    assert '  aws --endpoint-url "$AWS_ENDPOINT_URL_S3" s3 ls' in lines


def test_the_file_to_source_is_said_to_hold_the_first_tenants_keys_only(tmp_path: Path) -> None:
    second = make_connection(name="second", root_secret="second-root")
    here = Surroundings(has_kubectl=False, aws="aws", install_aws="", others=("default/small",))
    lines = render_next_steps([make_connection(), second], StateDirectory(tmp_path), here)
    keys = [line for line in lines if "root keys" in line]
    assert [str(tmp_path) in line for line in keys] == [True, False]
    assert any("Kept from earlier runs" in line and "default/small" in line for line in lines)


def test_stopping_and_removing_are_told_for_the_folder_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "Makefile").write_text("")
    ours, other = StateDirectory(tmp_path / ".holdfast"), StateDirectory(tmp_path / "the other")
    assert (ours.stop_command(), ours.remove_command()) == ("make stop", "make clean")
    assert other.stop_command() == ".venv/bin/holdfast-local stop --state 'the other'"
    assert other.remove_command() == "rm -r 'the other'"
    (tmp_path / "Makefile").unlink()
    assert ours.stop_command() == ".venv/bin/holdfast-local stop --state .holdfast"
    (tmp_path / "holdfast-local").touch(mode=0o755)
    assert ours.stop_command() == "holdfast-local stop --state .holdfast", "a shell finds it"


def test_who_starts_a_second_cluster_is_told_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "Makefile").write_text("")
    running = StateDirectory(tmp_path / ".holdfast")
    running.acquire()
    try:
        with pytest.raises(RunFailed) as failure:
            StateDirectory(tmp_path / ".holdfast").acquire()
    finally:
        running.release()
    told = str(failure.value)
    for command in (
        "`make stop`",
        "`kubectl --kubeconfig .holdfast/kubeconfig apply -f FILE`",
        "`.venv/bin/holdfast-local run --tenant FILE --state DIR`",
    ):
        assert command in told


def test_a_refusal_names_file_line_and_fields() -> None:
    document = Document({"kind": "Tenant", "metadata": {"name": "logs"}}, "t.yaml:3")
    causes = [{"field": "spec.pools", "message": "Required value"}]
    text = refusal(document, ApiError(422, "Invalid", "is invalid", {"causes": causes}))
    assert text == "t.yaml:3: Tenant logs: is invalid\n  spec.pools: Required value"


async def test_plain_progress_prints_lines_and_outcomes() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    async with progress.step("first"):
        progress.detail("pods 0/4")
    with pytest.raises(ValueError, match="boom"):
        async with progress.step("second"):
            raise ValueError("boom")
    text = stream.getvalue()
    assert "\x1b" not in text
    assert "pods 0/4" in text
    assert "second: failed" in text


def test_the_operator_gets_exactly_the_rights_of_the_chart() -> None:
    documents = {document.manifest["kind"]: document.manifest for document in operator_documents(SOURCE_ROOT)}
    rules = documents["ClusterRole"]["rules"]
    assert {"apiGroups": ["holdfast.dev"], "resources": ["tenants/status"], "verbs": ["patch"]} in rules
    assert not any("*" in rule["verbs"] or "*" in rule["resources"] for rule in rules)
    assert any(document.manifest["kind"] == "CustomResourceDefinition" for document in crd_documents(SOURCE_ROOT))


def test_orphans_are_found_by_their_mark(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
    with (
        subprocess.Popen(command, env={**os.environ, MARK: str(tmp_path)}, stdout=subprocess.PIPE) as ours,
        subprocess.Popen(command, env={**os.environ, MARK: "/elsewhere"}, stdout=subprocess.PIPE) as other,
    ):
        assert ours.stdout
        assert other.stdout
        ours.stdout.readline(), other.stdout.readline()
        try:
            assert end_orphans(tmp_path) == 1
            ours.wait(5)  # psutil has reaped it, being in the same process: no signal to compare
            time.sleep(0.05)
            assert other.poll() is None
        finally:
            ours.kill()
            other.kill()
