"""One Loki process with everything in it, on loopback, keeping nothing but in the object store.

Its cache holds a single chunk, so that every query reads from the store; `stop` with `wipe` takes away the write-ahead
log, the index and all else that it has on its disk.  What it prints stays in a file.

Not here: several Lokis, the chart, who starts the store.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from holdfast_server.testing.answers import answers
from holdfast_server.testing.free_ports import free_port
from holdfast_server.testing.loki.chart_values import merged
from holdfast_server.testing.loki.lines import NANOSECONDS, Ledger, Line, labels

START_TIMEOUT_SECONDS = 180.0
STOP_TIMEOUT_SECONDS = 120.0
CALL_TIMEOUT_SECONDS = 300.0
INGEST_TIMEOUT = "2m"
"""Of its default of 5 s, which has nothing to do with the store, a busy machine needs more for a batch of lines."""
LINES_PER_QUERY = 100_000
CHART_DEFAULTS = {
    "storage_config": {"hedging": {"at": "250ms", "max_per_second": 20, "up_to": 3}},
    "limits_config": {"split_queries_by_interval": "15m"},
}
"""How the chart has the store asked, unless values say otherwise."""
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def verify(binary: Path, configuration: Mapping[str, Any], directory: Path) -> str:
    """What Loki says about a configuration; empty if it accepts it."""
    path = directory / "verify.yaml"
    path.write_text(yaml.safe_dump(dict(configuration)))
    environment = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    command = [str(binary), "-verify-config", "-config.expand-env=true", f"-config.file={path}"]
    done = subprocess.run(
        command, env=environment, cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip()


def single_process(configuration: Mapping[str, Any], directory: Path, port: int, grpc_port: int) -> dict[str, Any]:
    """The configuration with what one process on loopback needs, the chart's own settings for how the store is asked,
    and a compactor that does not wait for hours."""
    big = "100MB"
    return merged(
        merged(CHART_DEFAULTS, configuration),
        {
            "target": "all",
            "analytics": {"reporting_enabled": False},
            "server": {
                "http_listen_address": "127.0.0.1",
                "http_listen_port": port,
                "grpc_listen_address": "127.0.0.1",
                "grpc_listen_port": grpc_port,
                "log_level": "warn",
                "grpc_server_max_recv_msg_size": 1 << 26,
                "grpc_server_max_send_msg_size": 1 << 26,
            },
            "common": {
                "path_prefix": str(directory),
                "replication_factor": 1,
                "instance_addr": "127.0.0.1",
                "ring": {"kvstore": {"store": "inmemory"}, "instance_addr": "127.0.0.1"},
            },
            "ingester": {
                "lifecycler": {"min_ready_duration": "0s"},
                "wal": {"dir": str(directory / "wal"), "flush_on_shutdown": True},
            },
            "ingester_client": {
                "remote_timeout": INGEST_TIMEOUT,
                "grpc_client_config": {"max_send_msg_size": 1 << 26},
            },
            "compactor": {"compaction_interval": "15s", "retention_delete_delay": "5s"},
            "chunk_store_config": {"chunk_cache_config": {"embedded_cache": {"enabled": True, "max_size_items": 1}}},
            "query_range": {"cache_results": False},
            "limits_config": {
                "ingestion_rate_mb": 100,
                "ingestion_burst_size_mb": 200,
                "per_stream_rate_limit": big,
                "per_stream_rate_limit_burst": big,
                "max_entries_limit_per_query": LINES_PER_QUERY,
            },
        },
    )


@dataclass(slots=True)
class Loki:
    """A binary, its folder, its configuration and the environment it starts in."""

    binary: Path
    directory: Path
    configuration: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    process: subprocess.Popen[bytes] | None = None
    _url: str = ""

    @property
    def log(self) -> Path:
        return self.directory.with_suffix(".log")

    def start(self) -> None:
        """Returns when Loki says that it is ready.  Raises RuntimeError with the end of its log."""
        self.directory.mkdir(parents=True, exist_ok=True)
        port, grpc_port = free_port(), free_port()
        self._url = f"http://127.0.0.1:{port}"
        path = self.directory.with_suffix(".yaml")
        path.write_text(yaml.safe_dump(single_process(self.configuration, self.directory, port, grpc_port)))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.binary), f"-config.file={path}", "-config.expand-env=true"],
                stdout=log, stderr=log, env=self.environment, cwd=self.directory,
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Loki is not ready:\n{self.log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.2)

    def stop(self, wipe: bool = False) -> None:
        """SIGTERM, on which Loki flushes; with `wipe` what it has on its disk goes."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
            finally:
                self.process = None
        if wipe:
            shutil.rmtree(self.directory, ignore_errors=True)

    @contextlib.contextmanager
    def running(self, wipe: bool = True) -> Iterator[Loki]:
        self.start()
        try:
            yield self
        finally:
            self.stop(wipe=wipe)

    # --- lines
    def push(self, ledger: Ledger, batch: Mapping[str, list[Line]]) -> None:
        """Sends a batch, and notes it down once Loki has acknowledged it."""
        streams = [{"stream": labels(ledger.run, stream), "values": lines} for stream, lines in batch.items()]
        self._call("POST", "/loki/api/v1/push", json.dumps({"streams": streams}).encode())
        ledger.acknowledge(batch)

    def flush(self) -> None:
        """Has every chunk written to the store, beginning now."""
        self._call("POST", "/flush")

    def query(self, run: str, first_ns: int, last_ns: int, kind: str = "kept") -> dict[str, list[Line]]:
        """All lines of a run by stream, asked for one stream at a time so that no answer meets a limit."""
        got: dict[str, list[Line]] = {}
        for stream in self._streams(run, first_ns, last_ns, kind):
            selector = ",".join(f'{name}="{value}"' for name, value in stream.items())
            query = {"query": f"{{{selector}}}", "start": first_ns, "end": last_ns, "limit": LINES_PER_QUERY}
            answer = self._get("/loki/api/v1/query_range", query)
            name = f"{stream['kind']}/{stream['name']}"
            for result in answer["data"]["result"]:
                got.setdefault(name, []).extend((value[0], value[1]) for value in result["values"])
        return got

    def _streams(self, run: str, first_ns: int, last_ns: int, kind: str) -> list[dict[str, str]]:
        match = {"match[]": f'{{app="lines",run="{run}",kind="{kind}"}}', "start": first_ns, "end": last_ns}
        found = self._get("/loki/api/v1/series", match)["data"]
        wanted = ("app", "run", "kind", "name")
        return [{name: one[name] for name in wanted} for one in found]

    def delete(self, query: str, first_ns: int, last_ns: int) -> None:
        """Asks the compactor to delete what the query selects; `deletions` tells when it has."""
        span = {"query": query, "start": first_ns // NANOSECONDS, "end": last_ns // NANOSECONDS}
        self._call("POST", f"/loki/api/v1/delete?{urllib.parse.urlencode(span)}")

    def deletions(self) -> list[str]:
        """What has become of each request to delete: `received`, and in the end `processed`."""
        return [str(one["status"]) for one in self._get("/loki/api/v1/delete", {})]

    # --- what it says of itself
    def metrics(self) -> set[str]:
        """Names of all metrics it has a sample of."""
        matches = (_SAMPLE.match(line) for line in self._call("GET", "/metrics").decode().splitlines())
        return {match[1] for match in matches if match is not None}

    def samples(self, metric: str) -> dict[str, float]:
        """Samples of a metric by their labels, as they stand in `/metrics`."""
        found: dict[str, float] = {}
        for line in self._call("GET", "/metrics").decode().splitlines():
            match = _SAMPLE.match(line)
            if match is not None and match[1] == metric:
                found[match[2] or ""] = found.get(match[2] or "", 0.0) + float(match[3])
        return found

    def store_requests(self) -> dict[str, int]:
        """Requests to object stores so far, by the names that either client has for them, and of them the failed."""
        found: dict[str, int] = {}
        for text, value in self.samples("loki_s3_request_duration_seconds_count").items():
            one = dict(_LABEL.findall(text))
            name = one["operation"].removeprefix("S3.")
            ending = "" if one["status_code"].startswith(("2", "3")) else f" {one['status_code']}"
            found[name + ending] = found.get(name + ending, 0) + int(value)
        for metric, ending in (("operations_total", ""), ("operation_failures_total", " failed")):
            for text, value in self.samples(f"loki_objstore_bucket_{metric}").items():
                name = dict(_LABEL.findall(text))["operation"] + ending
                if value:
                    found[name] = found.get(name, 0) + int(value)
        return found

    def complaints(self) -> list[str]:
        """Lines of its log at warning or above."""
        if not self.log.exists():
            return []
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if "level=warn" in line or "level=error" in line or "panic" in line]

    def _get(self, path: str, query: Mapping[str, object]) -> Any:
        return json.loads(self._call("GET", f"{path}?{urllib.parse.urlencode(query)}"))

    def _call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        request = urllib.request.Request(self._url + path, data=body, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=CALL_TIMEOUT_SECONDS) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            with error:
                raise RuntimeError(f"{method} {path}: {error.code} {error.read().decode(errors='replace')}") from error

    def _is_ready(self) -> bool:
        return answers(f"{self._url}/ready", timeout_seconds=5)


def seconds_ago(seconds: float) -> int:
    """In ns since 1970."""
    return time.time_ns() - int(seconds * NANOSECONDS)
