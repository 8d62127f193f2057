"""The command itself, as a process: exit codes, messages, a clean end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from holdfast_server.main import run
from holdfast_server.testing.answers import answers
from holdfast_server.testing.free_ports import free_port
from holdfast_server.wiring.process import tune_allocator

KEYS = {"HOLDFAST_ROOT_USER": "admin", "HOLDFAST_ROOT_PASSWORD": "password1"}


def begin(arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("HOLDFAST_", "MINIO_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "holdfast_server.main", *arguments],
        env=clean | environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_ready(port: int, process: subprocess.Popen[str], host: str = "127.0.0.1") -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if answers(f"http://{host}:{port}/health/ready", timeout_seconds=2):
            return
        time.sleep(0.05)
    raise AssertionError(f"not ready: {process.poll()}")


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_a_pod_by_hand_serves_and_ends_cleanly(tmp_path: Path, processes: list[subprocess.Popen[str]]) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    port = free_port()
    arguments = ["server", str(tmp_path / "a"), str(tmp_path / "b"), "--address", f"127.0.0.1:{port}"]
    minio = {"MINIO_ROOT_USER": "admin", "MINIO_ROOT_PASSWORD": "password1"}
    process = begin(arguments, minio)
    processes.append(process)
    wait_ready(port, process)
    (tmp_path / "c").mkdir()
    second = begin([*arguments[:1], str(tmp_path / "c"), *arguments[3:]], KEYS)
    processes.append(second)
    _, said = second.communicate(timeout=60)
    assert second.returncode == 1
    assert f"{port}" in said.splitlines()[-1]
    assert "in use" in said.splitlines()[-1]
    assert "--address" in said.splitlines()[-1]
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "event=stopped" in said
    assert "password1" not in said


def test_a_pod_is_reached_on_every_interface(tmp_path: Path, processes: list[subprocess.Popen[str]]) -> None:
    """`kubectl port-forward` and exec come in over the pod's loopback, whatever POD_IP says."""
    (tmp_path / "a").mkdir()
    port = free_port()
    arguments = ["server", str(tmp_path / "a"), "--address", f":{port}"]
    process = begin(arguments, KEYS | {"POD_IP": "127.0.0.2"})
    processes.append(process)
    wait_ready(port, process)


def test_a_bind_address_keeps_a_pod_to_itself(tmp_path: Path, processes: list[subprocess.Popen[str]]) -> None:
    (tmp_path / "a").mkdir()
    port = free_port()
    arguments = ["server", str(tmp_path / "a"), "--address", f":{port}"]
    process = begin(arguments, KEYS | {"POD_IP": "127.0.0.1", "HOLDFAST_BIND_ADDRESS": "127.0.0.2"})
    processes.append(process)
    wait_ready(port, process, "127.0.0.2")
    with closing(socket.socket()) as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("nobody.invalid:9100", "'nobody.invalid' is no address to listen on: "),
        ("logs..svc:9100", "'logs..svc' is no address to listen on: "),
        ("192.0.2.1:9100", "192.0.2.1 port 9100: Cannot assign"),
        ("[2001:db8::1]:9100", "2001:db8::1 port 9100: "),
        ("2001:db8::1", "2001:db8::1 port 9000: "),
        ("2001:db8:1:2:3:4:5:6:9100", "2001:db8:1:2:3:4:5:6 port 9100: "),
        ("[2001:db8::1]", "2001:db8::1 port 9000: "),
    ],
)
def test_an_address_that_is_not_here_is_named(
    tmp_path: Path, processes: list[subprocess.Popen[str]], address: str, told: str
) -> None:
    (tmp_path / "a").mkdir()
    process = begin(["server", str(tmp_path / "a"), "--address", address], KEYS)
    processes.append(process)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    last = said.splitlines()[-1]
    assert told in last
    assert last.endswith("--address [HOST]:PORT chooses another")


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["server"], KEYS, "paths of the drives"),
        (["server", "/nowhere"], {}, "HOLDFAST_ROOT_USER: not given"),
        (["server", "/nowhere"], KEYS | {"HOLDFAST_ROOT_USER": "me"}, "the root user needs at least 3"),
        (["server", "/nowhere/d{1...2}"], KEYS, "none of these is a folder: /nowhere/d1, /nowhere/d2"),
        (["server", "/tmp"], KEYS | {"HOLDFAST_LOG_LEVEL": "chatty"}, "HOLDFAST_LOG_LEVEL"),
        (["server", "/tmp"], KEYS | {"HOLDFAST_DRAIN_SECONDS": "5s"}, "HOLDFAST_DRAIN_SECONDS: '5s' is not a number"),
        (["server", "/nowhere"], KEYS | {"HOLDFAST_ROOT_PASSWORD": "short"}, "HOLDFAST_ROOT_PASSWORD"),
        (["server", "/tmp", "--encryption-keys", "/nowhere/keys"], KEYS, "/nowhere/keys: No such file"),
        (["server", "/tmp"], KEYS | {"HOLDFAST_ENCRYPTION_KEYS": "/nowhere/keys"}, "/nowhere/keys: No such file"),
        (
            ["server", "/tmp"],
            KEYS | {"HOLDFAST_CUSTOMER_KEYS_OVER_PLAINTEXT": "yes"},
            "HOLDFAST_CUSTOMER_KEYS_OVER_PLAINTEXT: 'yes' is neither",
        ),
        (
            ["server", "--config", "/nowhere/c.yaml", "--pod", "p-0", "--encryption-keys", "/k"],
            {},
            "--encryption-keys: with --config",
        ),
        (["server", "/d{4...1}"], KEYS, "{4...1}"),
        (["server", "/d{1...17}"], KEYS, "17 volumes cannot be cut"),
        (["server", "/d", "--address", "x:y"], KEYS, "--address"),
        (["server", "/d", "--address", "::1:9100"], KEYS, "[::1]:9100 or [::1:9100]"),
        (["server", "--config", "/nowhere/c.yaml"], {}, "--pod"),
        (["server", "--config", "/nowhere/c.yaml", "--pod", "p-0"], {}, "/nowhere/c.yaml: No such file"),
        (["server", "/d", "--config", "/nowhere/c.yaml", "--pod", "p-0"], {}, "either --config or paths"),
    ],
)
def test_wrong_arguments_are_named_and_end_with_2(
    arguments: list[str], environment: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments, environment) == 2
    assert message in capsys.readouterr().err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(["--version"], {})
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("holdfast 0.")


def test_the_allocator_is_tuned_where_it_is_glibc() -> None:
    assert isinstance(tune_allocator(), bool)
