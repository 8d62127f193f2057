"""A Loki moves to Holdfast while what it has stays where it is: `named_stores`, and a schema period that begins today.

Another store, a single pod with keys of its own, stands where MinIO stood: to Loki both are S3 endpoints.  The values
are those of the examples and of docs/migrating-from-minio.md; only addresses and days are put in.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from holdfast_server.testing.loki.chart_values import loki_configuration, merged, read_values, with_bundled_store
from holdfast_server.testing.loki.lines import NANOSECONDS, Ledger, Line, differences
from holdfast_server.testing.loki.program import Loki
from holdfast_server.testing.pods import PodProcesses

pytestmark = [pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "loki"
GUIDE = ROOT / "docs" / "migrating-from-minio.md"
LINES = 6_000
HOLDFAST, OLD = "logs.loki.svc.cluster.local:9000", "minio.logs.svc.cluster.local"
DAY_SECONDS = 24 * 3_600


@dataclass(slots=True)
class Move:
    """Both stores, one Loki, and the lines it was given."""

    old: PodProcesses
    new: PodProcesses
    loki: Loki
    ledger: Ledger
    midnight_ns: int

    def configure(self, configuration: dict[str, Any]) -> None:
        """With this machine's addresses for the names in the values."""
        text = json.dumps(configuration)
        for name, store in ((HOLDFAST, self.new), (OLD, self.old)):
            text = text.replace(name, store.endpoint().removeprefix("http://"))
        self.loki.configuration = json.loads(text)

    async def run(self, *batches: dict[str, list[Line]]) -> None:
        """Loki starts on an empty disk, takes what is given, and is asked for everything from an empty disk again."""
        await asyncio.to_thread(self._run, batches)

    def _run(self, batches: tuple[dict[str, list[Line]], ...]) -> None:
        if batches:
            with self.loki.running():
                for batch in batches:
                    self.loki.push(self.ledger, batch)
                self.loki.flush()
        with self.loki.running():
            got = self.loki.query(self.ledger.run, self.midnight_ns - DAY_SECONDS * NANOSECONDS, self.tomorrow_ns)
            assert differences(self.ledger, got) == []
            print(f"  {sum(map(len, got.values()))} lines back")

    @property
    def tomorrow_ns(self) -> int:
        return self.midnight_ns + DAY_SECONDS * NANOSECONDS

    def yesterday(self, hour: int) -> dict[str, list[Line]]:
        first_ns = self.midnight_ns - (24 - hour) * 3_600 * NANOSECONDS
        return self.ledger.batch(LINES, first_ns, kind="kept")

    def today(self) -> dict[str, list[Line]]:
        """From midnight on, in streams of their own: Loki takes no old line into a stream that is ahead of it."""
        return self.ledger.batch(LINES, self.midnight_ns, kind="kept")


def chunks(store: PodProcesses, bucket: str) -> int:
    """Objects of the tenant that Loki knows without authentication; the index is elsewhere."""
    pages = s3(store).get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="fake/")
    return sum(len(page.get("Contents", [])) for page in pages)


def s3(store: PodProcesses) -> Any:
    return boto3.client(
        "s3", endpoint_url=store.endpoint(), region_name="us-east-1",
        aws_access_key_id=store.access_key, aws_secret_access_key=store.secret_key,
    )  # fmt: skip


@pytest.fixture
async def move(loki_binary: Path, tmp_path: Path) -> AsyncIterator[Move]:
    old = PodProcesses(tmp_path / "old", servers=1, volumes=1, access_key="minio-root")
    new = PodProcesses(tmp_path / "new", servers=4, volumes=1)
    today = datetime.datetime.now(datetime.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    environment = {"AWS_ACCESS_KEY_ID": new.access_key, "AWS_SECRET_ACCESS_KEY": new.secret_key}
    loki = Loki(loki_binary, tmp_path / "loki", {}, environment)
    try:
        await old.start_all()
        await new.start_all()
        for bucket in ("chunks", "ruler"):
            s3(old).create_bucket(Bucket=bucket)
        for bucket in ("loki-chunks", "loki-ruler"):
            s3(new).create_bucket(Bucket=bucket)
        run = f"move-{secrets.token_hex(4)}"
        yield Move(old, new, loki, Ledger(run, seed=11), int(today.timestamp()) * NANOSECONDS)
    finally:
        loki.stop()
        old.stop()
        new.stop()


def from_today(move: Move, configuration: dict[str, Any]) -> dict[str, Any]:
    """The last period begins today instead of on the day in the example."""
    today = datetime.datetime.fromtimestamp(move.midnight_ns // NANOSECONDS, datetime.UTC)
    configuration["schema_config"]["configs"][-1]["from"] = today.strftime("%Y-%m-%d")
    return configuration


async def test_the_charts_own_minio_stays_readable_and_new_lines_come_here(move: Move) -> None:
    values = read_values((EXAMPLES / "values.yaml", EXAMPLES / "values-leaving-minio.yaml"))
    keys = {"minio": {"rootUser": move.old.access_key, "rootPassword": move.old.secret_key}}
    values = merged(values, keys)
    transition = from_today(move, with_bundled_store(values, f"http://{OLD}"))
    before = with_bundled_store(values, f"http://{OLD}")
    before["schema_config"] = {"configs": before["schema_config"]["configs"][:1]}
    before["storage_config"].pop("named_stores")
    await passes(move, before, transition, read_values((EXAMPLES / "values.yaml",)))


def of_the_guide(client: str) -> dict[str, Any]:
    """The values of docs/migrating-from-minio.md: its first block of YAML, or with thanos its second."""
    blocks = [part.partition("```")[0] for part in GUIDE.read_text().split("```yaml\n")[1:]]
    found: dict[str, Any] = yaml.safe_load(blocks[0 if client == "classic" else 1])
    return found


@pytest.mark.parametrize("client", ["classic", "thanos"])
async def test_another_store_stays_readable_and_new_lines_come_here(move: Move, client: str) -> None:
    files = [EXAMPLES / "values.yaml", *([EXAMPLES / "values-thanos.yaml"] if client == "thanos" else [])]
    own = read_values(files)
    values = merged(own, of_the_guide(client))
    text = json.dumps(values).replace("${OLD_ACCESS_KEY_ID}", move.old.access_key)
    values = json.loads(text.replace("${OLD_SECRET_ACCESS_KEY}", move.old.secret_key))
    transition = from_today(move, loki_configuration(values))
    before = loki_configuration(values)
    before["schema_config"] = {"configs": before["schema_config"]["configs"][:1]}
    await passes(move, before, transition, own)


async def passes(move: Move, before: dict[str, Any], transition: dict[str, Any], after: dict[str, Any]) -> None:
    """Old store alone; both; and, when what is old is past its retention, Holdfast alone with the old store gone."""
    move.configure(before)
    await move.run(move.yesterday(hour=10))
    old_chunks = chunks(move.old, "chunks")
    assert old_chunks > 0
    assert chunks(move.new, "loki-chunks") == 0

    move.configure(transition)
    today = move.today()
    await move.run(today)
    assert chunks(move.old, "chunks") == old_chunks, "new lines go to the new store alone"
    new_chunks = chunks(move.new, "loki-chunks")
    assert new_chunks > 0
    await move.run(move.yesterday(hour=20))
    assert chunks(move.old, "chunks") > old_chunks, "a late line goes where its day is"
    assert chunks(move.new, "loki-chunks") == new_chunks

    move.old.stop()
    move.ledger.lines.clear()
    move.ledger.acknowledge(today)
    move.configure(from_today(move, loki_configuration(after)))
    await move.run()


async def test_a_copy_of_lokis_bucket_is_as_good_as_the_original(move: Move, tmp_path: Path) -> None:
    """The other way to leave: by the commands of the guide, and Loki never hears of the old store."""
    if shutil.which("rclone") is None:
        pytest.skip("rclone is not installed")
    values = read_values((EXAMPLES / "values.yaml",))
    before = loki_configuration(merged(values, {"loki": {"storage": {"bucketNames": {"chunks": "chunks"}}}}))
    text = json.dumps(before).replace(HOLDFAST, OLD).replace("${AWS_ACCESS_KEY_ID}", move.old.access_key)
    move.configure(json.loads(text.replace("${AWS_SECRET_ACCESS_KEY}", move.old.secret_key)))
    await move.run(move.yesterday(hour=10), move.today())
    config = tmp_path / "rclone.conf"
    for name, provider, store in (("old", "Minio", move.old), ("new", "Other", move.new)):
        await rclone(
            config, "config", "create", name, "s3", f"provider={provider}", f"endpoint={store.endpoint()}",
            f"access_key_id={store.access_key}", f"secret_access_key={store.secret_key}",
        )  # fmt: skip
    await rclone(config, "sync", "--checksum", "--metadata", "old:chunks", "new:loki-chunks")
    await rclone(config, "check", "old:chunks", "new:loki-chunks")
    move.old.stop()
    move.configure(loki_configuration(values))
    await move.run()


async def rclone(config: Path, *words: str) -> None:
    command = ["rclone", "--config", str(config), *words]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
