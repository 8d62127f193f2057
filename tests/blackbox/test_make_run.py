"""`holdfast-local run` as a person uses it: the real cluster, operator and pods, from one command to real S3.

One cluster is shared by the tests that only look; those that end or break it start their own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import psutil
import pytest
from botocore.client import BaseClient
from botocore.config import Config

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [str(Path(sys.executable).parent / "holdfast-local")]
READY_TIMEOUT_SECONDS = 240.0
STOP_TIMEOUT_SECONDS = 60.0

TENANT = """
apiVersion: holdfast.dev/v1
kind: Tenant
metadata: {name: logs, namespace: shop}
spec:
  pools:
    - name: main
      servers: 4
      volumesPerServer: 1
      volumeClaimTemplate: {spec: {resources: {requests: {storage: 1Gi}}}}
  buckets:
    - name: things
"""


@dataclass
class Running:
    """A cluster started by a test."""

    process: subprocess.Popen[str]
    state: Path
    output: Path

    def text(self) -> str:
        return self.output.read_text()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        while not (self.state / "env").exists():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.1)

    def environment(self) -> dict[str, str]:
        """What `source .holdfast/env` sets."""
        shown = subprocess.run(
            ["sh", "-c", f". {self.state}/env; env"], check=True, capture_output=True, text=True, env={}
        ).stdout
        pairs = (line.split("=", 1) for line in shown.splitlines())
        return {name: value for name, value in pairs if name.startswith("AWS_")}

    def s3(self) -> BaseClient:
        found = self.environment()
        return boto3.client(
            "s3",
            endpoint_url=found["AWS_ENDPOINT_URL_S3"],
            aws_access_key_id=found["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=found["AWS_SECRET_ACCESS_KEY"],
            region_name=found["AWS_REGION"],
            config=Config(retries={"max_attempts": 6, "mode": "standard"}),
        )

    def processes(self) -> list[psutil.Process]:
        """Every process of the cluster but the first, by the mark in its environment."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("HOLDFAST_LOCAL_STATE") == str(self.state):
                    found.append(process)
        return found

    def pods(self) -> list[psutil.Process]:
        return [process for process in self.processes() if "server" in process.cmdline()]


@contextlib.contextmanager
def running(folder: Path, *arguments: str, tenant: str = TENANT) -> Iterator[Running]:
    """`holdfast-local run` in the background; whatever happens, nothing of it is left."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tenant.yaml").write_text(tenant)
    output = folder / "output"
    command = [*PROGRAM, "run", "--tenant", str(folder / "tenant.yaml"), "--state", str(folder / "state"), *arguments]
    with output.open("a") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, text=True, cwd=ROOT, start_new_session=True
        )
    cluster = Running(process, folder / "state", output)
    try:
        yield cluster
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for left in cluster.processes():
            left.kill()


def run_to_the_end(folder: Path, *arguments: str, tenant: str) -> tuple[int, str]:
    with running(folder, *arguments, tenant=tenant) as cluster:
        code = cluster.process.wait(READY_TIMEOUT_SECONDS)
        assert cluster.processes() == []
        return code, cluster.text()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("shared")) as started:
        started.wait_until_ready()
        yield started


def test_an_object_comes_back_through_the_printed_endpoint(cluster: Running) -> None:
    body = os.urandom(3_000_000)
    client = cluster.s3()
    client.put_object(Bucket="things", Key="a/b", Body=body)
    assert client.get_object(Bucket="things", Key="a/b")["Body"].read() == body
    assert cluster.environment()["AWS_ENDPOINT_URL_S3"] in cluster.text()


def test_keys_are_private_and_not_printed(cluster: Running) -> None:
    assert (cluster.state / "env").stat().st_mode & 0o077 == 0
    assert (cluster.state / "kubeconfig").stat().st_mode & 0o077 == 0
    assert cluster.environment()["AWS_SECRET_ACCESS_KEY"] not in cluster.text()


def test_a_second_run_is_refused_and_the_first_goes_on(cluster: Running) -> None:
    command = [*PROGRAM, "run", "--tenant", "examples/loki/tenant.yaml", "--state", str(cluster.state)]
    second = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert second.returncode == 1
    assert f"already running (process {cluster.process.pid})" in second.stderr
    assert cluster.process.poll() is None
    assert (cluster.state / "env").exists()


def test_a_killed_pod_comes_back_and_no_client_notices(cluster: Running) -> None:
    client = cluster.s3()
    assert len(cluster.pods()) == 4
    victim = cluster.pods()[1]
    victim.kill()
    for index in range(40):
        client.put_object(Bucket="things", Key=f"during/{index}", Body=b"x" * 5000)
        assert client.get_object(Bucket="things", Key=f"during/{index}")["Body"].read() == b"x" * 5000
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while len(cluster.pods()) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_works_with_the_written_kubeconfig(cluster: Running) -> None:
    def kubectl(*arguments: str) -> str:
        command = ["kubectl", "--kubeconfig", str(cluster.state / "kubeconfig"), "-n", "shop", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout

    assert "True" in kubectl("get", "tenant", "logs")
    assert "logs-pool-main-3" in kubectl("get", "pods")
    assert "drive" in kubectl("logs", "logs-pool-main-0")
    assert "Started container" in kubectl("describe", "pod", "logs-pool-main-0")
    assert "10Gi" not in kubectl("get", "pvc")


@pytest.mark.parametrize("isolation", ["auto", "prefix"])
def test_data_survive_a_stop_and_everything_ends(tmp_path: Path, isolation: str) -> None:
    with running(tmp_path, "--isolation", isolation) as first:
        first.wait_until_ready()
        first.s3().put_object(Bucket="things", Key="kept", Body=b"value")
        stopped = subprocess.run([*PROGRAM, "stop", "--state", str(first.state)], timeout=STOP_TIMEOUT_SECONDS)
        assert stopped.returncode == 0
        assert first.process.wait(STOP_TIMEOUT_SECONDS) == 0, first.text()
        assert first.processes() == []
        assert not (first.state / "env").exists()
    with running(tmp_path, "--isolation", isolation) as second:
        second.wait_until_ready()
        assert second.s3().get_object(Bucket="things", Key="kept")["Body"].read() == b"value"
        second.process.send_signal(signal.SIGINT)
        assert second.process.wait(STOP_TIMEOUT_SECONDS) == 0, second.text()


def test_after_kill_9_nothing_is_left_and_the_next_start_works(tmp_path: Path) -> None:
    with running(tmp_path) as first:
        first.wait_until_ready()
        first.s3().put_object(Bucket="things", Key="kept", Body=b"value")
        first.process.kill()
        first.process.wait()
        psutil.wait_procs(first.processes(), timeout=STOP_TIMEOUT_SECONDS)
        assert first.processes() == []
        (first.state / "env").unlink()
    with running(tmp_path) as second:
        second.wait_until_ready()
        assert second.s3().get_object(Bucket="things", Key="kept")["Body"].read() == b"value"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: Tenant", "kind: [Tenant", "not valid YAML"),
        ("servers: 4", "servers: -1", "spec.pools[0].servers"),
        ("servers: 4", "servers: 4\n      colour: red", "spec.pools[0].colour"),
        ("volumesPerServer: 1", "volumesPerServer: 1\n      erasure: {setSize: 4, parity: 3}", "erasure.parity"),
    ],
)
def test_a_bad_tenant_is_explained_and_nothing_is_left_running(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    code, text = run_to_the_end(tmp_path, tenant=TENANT.replace(old, new))
    assert code == 1, text
    assert message in text.splitlines()[-1], text
    assert "Traceback" not in text


def test_pods_that_cannot_start_are_explained_after_the_timeout(tmp_path: Path) -> None:
    broken = TENANT.replace(
        "volumesPerServer: 1", "volumesPerServer: 1\n      env: [{name: PATH, value: /nonexistent}]"
    )
    code, text = run_to_the_end(tmp_path, "--timeout", "30", tenant=broken)
    assert code == 1, text
    assert "was not ready after 30 s" in text
    assert "pod logs-pool-main-0: not ready" in text
    assert "command not found" in text


def test_ctrl_c_under_make_ends_with_0(tmp_path: Path) -> None:
    (tmp_path / "tenant.yaml").write_text(TENANT)
    command = [*PROGRAM, "run", "--tenant", str(tmp_path / "tenant.yaml"), "--state", str(tmp_path / "state")]
    (tmp_path / "Makefile").write_text(f"run:\n\t@exec {' '.join(command)}\n")
    ours, theirs = pty.openpty()
    make = subprocess.Popen(
        ["make", "-f", str(tmp_path / "Makefile"), "run"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    shown = b""
    try:
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        while make.poll() is None and time.monotonic() < deadline:
            if select.select([ours], [], [], 0.2)[0]:
                with contextlib.suppress(OSError):  # EIO once the other side is closed
                    shown += os.read(ours, 65536)
            if b"Next, in another terminal" in shown and b"^C" not in shown:
                os.write(ours, b"\x03")
                shown += b"^C"
        assert make.wait(STOP_TIMEOUT_SECONDS) == 0, shown.decode()
        assert "✓ Tenant shop/logs" in shown.decode().replace("\x1b[32m", "").replace("\x1b[0m", "")
        assert b"Stopped." in shown
    finally:
        os.close(ours)
        if make.poll() is None:
            subprocess.run([*PROGRAM, "stop", "--state", str(tmp_path / "state")], timeout=STOP_TIMEOUT_SECONDS)
            make.kill()
            make.wait()
