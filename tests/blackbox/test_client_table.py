"""The table of clients in docs/s3-compatibility.md, made from what runs.

Every client is a program of `tests/clients` and does the same operations with four erasure-coded pods, each client with
another pod, and bytes are compared from the other side (`holdfast_server.testing.clients`).  A client that is installed
must do exactly what its row says; one that is not is skipped.

    HOLDFAST_WRITE_CLIENT_TABLE=1    writes the rows of the clients that ran
    HOLDFAST_CLIENTS_PYTHON          Python with tests/clients/requirements.txt; else that of `make test`, .venv/clients
    npm install --prefix tests/clients                      for minio-js and aws-sdk-js
    HOLDFAST_S5CMD, HOLDFAST_S5CMD_VERSION                  else s5cmd of the PATH
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from holdfast_server.testing.boto import client_of, endpoint_of, set_opaque_etags
from holdfast_server.testing.clients import table
from holdfast_server.testing.clients.driver import Driver, NotOffered
from holdfast_server.testing.clients.operations import (
    HARD_KEY,
    SMALL_BYTES,
    Bench,
    copy,
    get,
    multipart,
    put,
    run_all,
)
from holdfast_server.testing.pods import PodProcesses

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "tests/clients"
DOCUMENT = ROOT / "docs/s3-compatibility.md"
OTHER_PYTHON = os.environ.get("HOLDFAST_CLIENTS_PYTHON") or str(Path(sys.executable).parents[1] / "clients/bin/python")
S5CMD = os.environ.get("HOLDFAST_S5CMD", "s5cmd")
WRITE = "HOLDFAST_WRITE_CLIENT_TABLE" in os.environ


@dataclass(frozen=True)
class Program:
    name: str
    file: str
    interpreter: str = sys.executable
    needs: str = ""
    """A program, a folder of `tests/clients`, or a package of OTHER_PYTHON without which it is not installed."""

    @property
    def installed(self) -> bool:
        if shutil.which(self.interpreter) is None:
            return False
        if self.interpreter == OTHER_PYTHON:
            return any(Path(OTHER_PYTHON).parents[1].glob(f"lib/*/site-packages/{self.needs}"))
        return not self.needs or shutil.which(self.needs) is not None or (CLIENTS / self.needs).is_dir()


PROGRAMS = [
    Program("awscli", "awscli_client.py"),
    Program("boto3", "boto3_client.py"),
    Program("minio-py", "minio_py.py"),
    Program("obstore", "obstore_client.py"),
    Program("s3cmd", "s3cmd_client.py"),
    Program("s3fs (fsspec)", "s3fs_client.py", OTHER_PYTHON, "s3fs"),
    Program("pyarrow", "pyarrow_client.py", OTHER_PYTHON, "pyarrow"),
    Program("rclone", "rclone_client.py", needs="rclone"),
    Program("s5cmd", "s5cmd_client.py", needs=S5CMD),
    Program("minio-js", "minio_js.mjs", "node", "node_modules/minio"),
    Program("aws-sdk-js v3", "aws_sdk_js.mjs", "node", "node_modules/@aws-sdk/client-s3"),
]
COMPARING = [program for program in PROGRAMS if program.name != "awscli"]
"""Those that may compare ETags in a way of their own; awscli does as boto3 does, and takes its time."""


class Boto3Reference:
    """Looks from the other side, at another pod."""

    def __init__(self, s3: Any) -> None:
        self.s3 = s3

    def put(self, bucket: str, key: str, body: bytes) -> None:
        self.s3.put_object(Bucket=bucket, Key=key, Body=body)

    def get(self, bucket: str, key: str) -> bytes | None:
        try:
            return self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchKey":
                raise
            return None

    def part_count(self, bucket: str, key: str) -> int:
        """As the ETag tells it: minio-js numbers its parts from two."""
        count = self.s3.head_object(Bucket=bucket, Key=key)["ETag"].strip('"').partition("-")[2]
        return int(count or 0)


@pytest.fixture(scope="module")
def reference(pods: PodProcesses) -> Iterator[Boto3Reference]:
    with closing(client_of(endpoint_of(pods), attempts=5)) as s3:
        yield Boto3Reference(s3)


@pytest.fixture(scope="module")
def ran() -> Iterator[tuple[dict[str, dict[str, str]], dict[str, str]]]:
    """Rows and versions of what ran; at the end they may be written into the document."""
    rows: dict[str, dict[str, str]] = {}
    versions: dict[str, str] = {}
    yield rows, versions
    if WRITE:
        DOCUMENT.write_text(table.with_rows(DOCUMENT.read_text(), rows, versions))


def environment_of(pods: PodProcesses, pod: int, home: Path) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL_S3": pods.endpoint(pod),
        "AWS_ACCESS_KEY_ID": pods.access_key,
        "AWS_SECRET_ACCESS_KEY": pods.secret_key,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
    }


@contextmanager
def driven(program: Program, pods: PodProcesses, folder: Path) -> Iterator[Driver]:
    """The client at work, with a pod of its own."""
    command = [program.interpreter, str(CLIENTS / program.file)]
    pod = 1 + PROGRAMS.index(program) % 3
    client = Driver(command, environment_of(pods, pod, folder), folder / "log")
    try:
        yield client
    finally:
        client.end()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_client_does_what_its_row_says(
    program: Program, pods: PodProcesses, reference: Boto3Reference, ran: Any, tmp_path: Path
) -> None:
    if not program.installed:
        pytest.skip(f"{program.name} is not installed")
    bucket = f"client-{PROGRAMS.index(program)}"
    for name in (bucket, f"{bucket}-versions"):
        reference.s3.create_bucket(Bucket=name)
    reference.s3.put_bucket_versioning(Bucket=f"{bucket}-versions", VersioningConfiguration={"Status": "Enabled"})
    with driven(program, pods, tmp_path) as client:
        version = client.call("version")
        assert isinstance(version, str)
        cells, reasons = run_all(Bench(client, reference, tmp_path, bucket, f"{bucket}-versions"))
    rows, versions = ran
    rows[program.name], versions[program.name] = cells, version
    if WRITE:
        print("\n".join(reasons))
        return
    assert cells == table.rows_of(DOCUMENT.read_text())[program.name], "\n".join(reasons)


@pytest.fixture(scope="module")
def opaque_bucket(pods: PodProcesses, reference: Boto3Reference) -> str:
    """Its ETags are no MD5s."""
    reference.s3.create_bucket(Bucket="opaque")
    asyncio.run(set_opaque_etags(pods, "opaque"))
    return "opaque"


@pytest.mark.parametrize("program", COMPARING, ids=lambda program: program.name)
def test_a_client_takes_opaque_etags(
    program: Program, pods: PodProcesses, reference: Boto3Reference, opaque_bucket: str, tmp_path: Path
) -> None:
    """What it reads, writes, copies and makes of parts, where none of these has an MD5 but those it sends."""
    if not program.installed:
        pytest.skip(f"{program.name} is not installed")
    with driven(program, pods, tmp_path) as client:
        bench = Bench(client, reference, tmp_path, opaque_bucket, "")
        for operation in (put, get, multipart, copy):
            with suppress(NotOffered):
                operation(bench)
    head = reference.s3.head_object(Bucket=opaque_bucket, Key=f"get/{SMALL_BYTES} {HARD_KEY}")
    assert head["ETag"].endswith('-1"'), "what it was given to read"


def test_restic_backs_up_checks_and_restores(pods: PodProcesses, reference: Boto3Reference, tmp_path: Path) -> None:
    if shutil.which("restic") is None:
        pytest.skip("restic is not installed")
    reference.s3.create_bucket(Bucket="restic")
    (tmp_path / "file").write_bytes(os.urandom(3_000_000))
    command = [sys.executable, str(CLIENTS / "restic_client.py")]
    client = Driver(command, environment_of(pods, 3, tmp_path), tmp_path / "log")
    try:
        back = tmp_path / "back"
        client.call("back_up_and_restore", bucket="restic", path=str(tmp_path / "file"), to=str(back))
    finally:
        client.end()
    assert back.read_bytes() == (tmp_path / "file").read_bytes()


def test_every_client_has_a_row_and_no_cell_says_no() -> None:
    rows = table.rows_of(DOCUMENT.read_text())
    assert sorted(rows) == sorted(program.name for program in PROGRAMS)
    assert {cell for row in rows.values() for cell in row.values()} <= {"yes", "–"}
