"""`holdfast admin` as it is typed: against a served API, with its words and its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast_server.admin.client import AdminClient, AdminFailure
from holdfast_server.admin.overview import TenantView
from holdfast_server.contract.admin import PodState
from holdfast_server.contract.config import ErasureConfig, PoolConfig
from holdfast_server.contract.healing import (
    DriveHealing,
    FillingProgress,
    HealProgress,
    ScannerProgress,
    SetHealing,
    StuckRegister,
)
from holdfast_server.contract.health import ClusterHealth, DriveHealth, SetHealth
from holdfast_server.drives.port import Register
from holdfast_server.main import run
from holdfast_server.objects.port import Conflict, Missing, Unavailable
from holdfast_server.objects.record import document_register
from holdfast_server.peers.port import PeerError
from holdfast_server.testing.memory_services import ROOT_PASSWORD, ROOT_USER, Endpoint, memory_services, served

NOW_MS = 1_800_000_000_000
UTF8 = {"LC_ALL": "C.UTF-8", "PATH": os.defpath}
POOL = PoolConfig(
    name="main",
    servers=4,
    volumes_per_server=1,
    erasure=ErasureConfig(set_size=4, parity=2),
    pod_name_prefix="logs-pool-main-",
    drive_path="/data{volume}",
)


class Tenant:
    """Four pods as the test has them; pod 0 is asked."""

    def __init__(self) -> None:
        self.silent: set[int] = set()
        self.full: set[int] = set()
        self.states = ["ok"] * 4
        self.filling: FillingProgress | None = None
        self.queue_length = 0
        self.stuck: list[StuckRegister] = []
        self.scans: list[int] = []
        self.decided: list[tuple[Register, bool]] = []
        self.decision: Exception | None = None

    def view(self) -> TenantView:
        return TenantView(
            lambda: [POOL], lambda: self.state(0), self.cluster, lambda: [Peer(self, at) for at in (1, 2, 3)], self.scan
        )

    async def decide(self, register: Register, keep: bool) -> str:
        self.decided.append((register, keep))
        if self.decision is not None:
            raise self.decision
        return "taken back"

    async def scan(self) -> None:
        self.scans.append(0)

    def drive(self, at: int, state: str) -> DriveHealth:
        return DriveHealth(
            pool="main", set_index=0, position=at, ordinal=at, volume=0, state=state, total_bytes=1 << 30,
            used_bytes=1 << 28, available_bytes=3 << 28, full=at in self.full,
        )  # fmt: skip

    def cluster(self) -> ClusterHealth:
        states = ["offline" if at in self.silent else state for at, state in enumerate(self.states)]
        online = sum(state in ("ok", "healing") for state in states)
        return ClusterHealth(
            healthy=online >= 3,
            epoch=1,
            sets=[
                SetHealth(
                    pool="main", index=0, set_size=4, parity=2, write_quorum=3, online=online,
                    healing=states.count("healing"), writable=online >= 3, readable=online >= 2,
                )
            ],
            drives=[self.drive(at, state) for at, state in enumerate(states)],
        )  # fmt: skip

    def state(self, at: int) -> PodState:
        filling = self.filling if self.states[at] == "healing" else None
        return PodState(
            pod=f"logs-pool-main-{at}", pool="main", ordinal=at, version="0.1.0", epoch=1, started_ms=NOW_MS,
            drives=[self.drive(at, self.states[at])],
            healing=HealProgress(
                drives=[
                    DriveHealing(
                        pool="main", set_index=0, position=at, volume=0, state=self.states[at], filling=filling,
                        queue_length=self.queue_length, oldest_entry_seconds=12.0 if self.queue_length else 0.0,
                        scanner=ScannerProgress(fraction=0.5, rotten_found=at),
                    )
                ],
                sets=[SetHealing(pool="main", index=0, stuck=len(self.stuck), stuck_samples=self.stuck)],
                registers_repaired=5,
            ),
        )  # fmt: skip


class Peer:
    pool = "main"

    def __init__(self, tenant: Tenant, ordinal: int) -> None:
        self._tenant, self.ordinal = tenant, ordinal

    async def pod_state(self) -> PodState:
        self._reach()
        return self._tenant.state(self.ordinal)

    async def start_scan(self) -> None:
        self._reach()
        self._tenant.scans.append(self.ordinal)

    def _reach(self) -> None:
        if self.ordinal in self._tenant.silent:
            raise PeerError("connection refused")


@pytest.fixture(scope="module")
def served_tenant() -> Iterator[tuple[Endpoint, Tenant]]:
    tenant = Tenant()
    services = memory_services()
    with served(services, tenant.view(), tenant.decide) as endpoint:
        yield endpoint, tenant


@pytest.fixture
def tenant(served_tenant: tuple[Endpoint, Tenant]) -> Tenant:
    served_tenant[1].__init__()  # type: ignore[misc]
    return served_tenant[1]


@pytest.fixture
def admin(served_tenant: tuple[Endpoint, Tenant], capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs `holdfast admin …`; returns the exit code and what was printed, errors behind the rest."""
    endpoint, _ = served_tenant

    def call(*arguments: str, **environment: str) -> tuple[int, str]:
        given = {
            "AWS_ENDPOINT_URL_S3": endpoint.url,
            "AWS_ACCESS_KEY_ID": ROOT_USER,
            "AWS_SECRET_ACCESS_KEY": ROOT_PASSWORD,
            **environment,
        }
        code = run(["admin", *arguments], given)
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


def test_a_whole_tenant_is_told_and_ends_with_0(tenant: Tenant, admin: Any) -> None:
    code, text = admin("heal", "status")
    assert (code, text.splitlines()[0]) == (0, "whole: every drive has everything, and nothing waits for repair")
    assert "since the pods began: 20 registers repaired" in text
    code, text = admin("info")
    assert code == 0
    assert "2.0 GiB for data (4.0 GiB raw, 1.0 GiB used)" in text
    assert [line.split()[:2] for line in text.splitlines() if line.startswith("logs-pool-main-2 ")] == [
        ["logs-pool-main-2", "yes"]
    ]


def test_a_silent_pod_is_named_and_ends_with_1(tenant: Tenant, admin: Any) -> None:
    tenant.silent = {3}
    tenant.queue_length = 1234
    code, text = admin("heal", "status")
    assert code == 1
    assert (
        "- pod logs-pool-main-3 does not answer: connection refused; its data0 catches up when it is back"
        in text.splitlines()
    )
    assert "drive logs-pool-main-3" not in text, "said once"
    assert "1,234 registers wait for repair, the oldest since 10 s" in text
    status = json.loads(admin("heal", "status", "--json")[1])
    assert (status["whole"], status["silentPods"]) == (False, ["logs-pool-main-3"])
    assert (status["sets"][0]["lossesLeft"], status["sets"][0]["queueLength"]) == (0, 1234)
    assert "no: connection refused" in admin("info")[1]


def test_a_drive_that_is_filled_shows_how_far(tenant: Tenant, admin: Any) -> None:
    tenant.states[1] = "healing"
    tenant.filling = FillingProgress(replacement=True, registers_done=450, registers_total=1000, seconds_left=170.0)
    code, text = admin("heal", "status")
    assert code == 1
    assert "drive logs-pool-main-1/data0 is healing: filled from the others, 45 %, about 3 min left" in text


def test_a_drive_without_room_is_named(tenant: Tenant, admin: Any) -> None:
    tenant.full = {2}
    code, text = admin("heal", "status")
    assert code == 1
    assert "drive logs-pool-main-2/data0 takes no new data for want of room" in text


def test_lost_quorum_comes_first(tenant: Tenant, admin: Any) -> None:
    tenant.silent = {2, 3}
    first = admin("heal", "status")[1].splitlines()[0]
    assert first == "- pool main set 0: reads are served, writes are refused: 2 of 4 drives answer"


def test_a_scan_starts_on_every_pod_that_answers(tenant: Tenant, admin: Any) -> None:
    assert admin("heal", "start", "--scan")[0] == 0
    assert sorted(tenant.scans) == [0, 1, 2, 3]
    tenant.silent = {2}
    code, text = admin("heal", "start")
    assert code == 1
    assert "not reached: logs-pool-main-2" in text


def test_what_is_stuck_is_listed_once_with_its_bucket(tenant: Tenant, admin: Any) -> None:
    assert admin("heal", "list-stuck")[1] == "nothing is stuck\n"
    tenant.stuck = [
        StuckRegister(
            kind="object", bucket_id="ab" * 16, key="a/key", version="", stamp=7, copies=1, copies_needed=2,
            since_ms=NOW_MS,
        )
    ]  # fmt: skip
    (stuck,) = json.loads(admin("heal", "list-stuck", "--json")[1])
    assert (stuck["bucket"], stuck["key"], stuck["copies"], stuck["copiesNeeded"]) == ("ab" * 16, "a/key", 1, 2)
    code, text = admin("heal", "status")
    assert code == 1
    assert "1 register is stuck and needs a person: `holdfast admin heal list-stuck`" in text


def test_a_key_cannot_write_to_the_terminal_of_who_lists_it(tenant: Tenant, admin: Any) -> None:
    """It is shown as a shell takes it, for `resolve`."""
    key = "é\n\x1b[2J'\\"
    stuck = StuckRegister(
        kind="object", bucket_id="ab" * 16, key=key, version="", stamp=7, copies=1, copies_needed=2, since_ms=NOW_MS
    )
    tenant.stuck = [stuck]
    code, text = admin("heal", "list-stuck")
    assert (code, len(text.splitlines())) == (0, 2)
    assert "\x1b" not in text
    shown = text.splitlines()[1].split()[2]
    given = subprocess.run(["bash", "-c", f"printf %s {shown}"], check=True, capture_output=True, env=UTF8).stdout
    assert given.decode() == key


def test_a_decision_reaches_the_register_it_is_about(tenant: Tenant, admin: Any) -> None:
    bucket_id = "ab" * 16
    code, text = admin("heal", "resolve", bucket_id, "a/key", "--discard")
    assert (code, text) == (0, "taken back\n")
    assert admin("heal", "resolve", bucket_id, "k", "--keep", "--kind", "upload", "--version", "0c" * 16)[0] == 0
    assert tenant.decided == [
        (Register(b"o" + bytes.fromhex(bucket_id), "a/key"), False),
        (Register(b"u" + bytes.fromhex(bucket_id), "k", b"\x0c" * 16), True),
    ]
    assert admin("heal", "resolve", "-", "bucket/x", "--keep", "--kind", "document")[0] == 0
    assert tenant.decided[-1] == (document_register("bucket/x"), True)


@pytest.mark.parametrize(
    ("decision", "told"),
    [
        (Missing("nothing about 'k' is stuck"), "NoSuchKey: nothing about 'k' is stuck"),
        (Conflict("1 of the 2 shards it takes are left"), "1 of the 2 shards it takes are left"),
        (Unavailable("not every drive of main/0 answers"), "not every drive of main/0 answers"),
    ],
)
def test_a_decision_that_cannot_be_carried_out_says_why(
    tenant: Tenant, admin: Any, decision: Exception, told: str
) -> None:
    tenant.decision = decision
    code, text = admin("heal", "resolve", "ab" * 16, "k", "--discard")
    assert (code, told in text) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("no-such-bucket", "k", "--keep"), "there is no bucket 'no-such-bucket'"),
        (("ab" * 16, "k", "--keep", "--version", "xyz"), "version: 'xyz' is not hexadecimal"),
    ],
)
def test_a_decision_about_nothing_is_refused(tenant: Tenant, admin: Any, arguments: Any, told: str) -> None:
    code, text = admin("heal", "resolve", *arguments)
    assert (code, told in text, tenant.decided) == (1, True, [])


def test_users_and_policies_come_and_go(tenant: Tenant, admin: Any, tmp_path: Path) -> None:
    document = tmp_path / "policy.json"
    statement = {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::b/*"]}
    document.write_text(json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    assert admin("policy", "add", "mine", str(document))[0] == 0
    assert "mine" in admin("policy", "list")[1].splitlines()
    code, text = admin("user", "add", "alice", "--policy", "mine", "--policy", "readonly", "--account", "team")
    assert code == 0, text
    secret = text.splitlines()[-1].rpartition(" ")[2]
    assert len(secret) >= 32
    assert "alice" in admin("user", "list")[1]
    (alice,) = [user for user in json.loads(admin("user", "list", "--json")[1]) if user["accessKey"] == "alice"]
    assert (alice["policies"], alice["account"]) == (["mine", "readonly"], "team")
    code, text = admin("info", AWS_ACCESS_KEY_ID="alice", AWS_SECRET_ACCESS_KEY=secret)
    assert (code, "needs the root keys" in text) == (1, True)
    assert admin("user", "remove", "alice")[0] == 0
    assert admin("policy", "remove", "mine")[0] == 0
    assert "alice" not in admin("user", "list")[1]
    code, text = admin("user", "add", "x", "--policy", "readonly")
    assert (code, "accessKey" in text) == (1, True)
    code, text = admin("policy", "add", "other", str(tmp_path / "absent.json"))
    assert (code, "absent.json" in text) == (1, True)


@pytest.mark.parametrize(
    ("environment", "code", "told"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, 1, "the secret key does not belong to the access key"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, 1, "the store knows no such access key"),
        ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}, 2, "cannot be reached: Connection refused"),
        ({"AWS_ENDPOINT_URL_S3": "127.0.0.1:9000"}, 2, "not of the form http://HOST:PORT"),
        ({"AWS_ENDPOINT_URL_S3": "http://logs..svc:9000"}, 2, "'logs..svc' is no name of a host"),
        ({"AWS_ENDPOINT_URL_S3": "http://logs .svc:9000"}, 2, "is no name of a host"),
        ({"AWS_ACCESS_KEY_ID": "root\r"}, 1, "the access key has a character that none has"),
        ({"AWS_SESSION_TOKEN": "a\nb"}, 1, "the session token has a character that none has"),
        ({"AWS_ENDPOINT_URL_S3": ""}, 2, "give the endpoint: --endpoint or AWS_ENDPOINT_URL_S3"),
        ({"AWS_ENDPOINT_URL_S3": "https://127.0.0.1:1", "AWS_CA_BUNDLE": "/absent"}, 2, "CA file '/absent'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tenant: Tenant, admin: Any, environment: dict[str, str], code: int, told: str
) -> None:
    got, text = admin("heal", "status", **environment)
    assert got == code
    assert told in text
    assert ROOT_PASSWORD not in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "1e20", "soon"])
def test_a_time_limit_that_is_none_ends_with_2(admin: Any, seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        admin("info", f"--timeout={seconds}")
    assert end.value.code == 2
    assert "--timeout" in capsys.readouterr().err


def test_ctrl_c_ends_without_a_word(tenant: Tenant, admin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AdminClient, "info", interrupted)
    assert admin("info") == (130, "")


def test_who_has_set_nothing_is_told_where_to_look(
    admin: Any, tenant: Tenant, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = {"AWS_ENDPOINT_URL_S3": "", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    code, text = admin("info", **nothing)
    assert (code, "`holdfast admin --help` says where" in text) == (2, True)
    with pytest.raises(SystemExit):
        run(["admin", "--help"], {})
    told = capsys.readouterr().out
    assert "{{.data.accessKey | base64decode}}" in told, "the entries of a Secret are not keys as they stand"
    assert "source .holdfast/env" in told


def test_a_user_who_may_do_nothing_is_told_so(tenant: Tenant, admin: Any) -> None:
    assert "no policy" in admin("user", "add", "carol")[1]
    assert "no policy" not in admin("user", "add", "carol", "--policy", "readonly")[1]
    assert "no policy" not in admin("user", "add", "carol", "--account-root")[1]


def test_a_policy_that_is_not_there_is_told_and_the_secret_in_any_case(
    tenant: Tenant, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistyped name would leave a user without rights, and nobody the wiser."""
    code, text = admin("user", "add", "dora", "--policy", "readonly", "--policy", "readolny")
    assert code == 0
    assert "there is no policy readolny: it gives nothing" in text
    assert "no policy readonly" not in text

    def refused(_: object) -> None:
        raise AdminFailure("AccessDenied")

    monkeypatch.setattr(AdminClient, "policies", refused)
    code, text = admin("user", "add", "dora", "--policy", "readolny")
    assert (code, "secret key, shown this once" in text) == (0, True)

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AdminClient, "policies", interrupted)
    code, text = admin("user", "add", "dora", "--policy", "readolny")
    assert (code, "secret key, shown this once" in text) == (130, True)


def test_a_reader_that_has_read_enough_is_no_failure_to_tell(
    tenant: Tenant, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`holdfast admin info | head -1`"""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as nobody_reads:
        monkeypatch.setattr(sys, "stdout", nobody_reads)
        code, _ = admin("info")
        monkeypatch.undo()
        nobody_reads.write("what was left")  # closing flushes it
    assert code == 1


def test_options_may_stand_before_or_behind_the_verb(tenant: Tenant, admin: Any) -> None:
    for arguments in (("--endpoint", "http://127.0.0.1:1", "info"), ("info", "--endpoint", "http://127.0.0.1:1")):
        assert admin(*arguments)[0] == 2


@pytest.mark.parametrize("verb", [(), ("heal",), ("heal", "status"), ("heal", "resolve"), ("user", "add"), ("info",)])
def test_every_verb_has_help(verb: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(["admin", *verb, "--help"], {})
    assert end.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 5
