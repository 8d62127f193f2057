"""The configuration and the keys: faults named, changes followed, broken changes kept out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast_server.contract.config import ConfigError, KeyFiles
from holdfast_server.contract.keys import FurtherKeys, RootPair, encode_further_keys
from holdfast_server.pod.config_file import ConfigFile, parse_config
from holdfast_server.pod.key_files import Keys, KeyStore, check_root, read_keys
from holdfast_server.pod.membership import check_pools, check_successor, find_membership

GOOD = """
tenant: {id: 5e3b, name: logs, namespace: loki}
epoch: 3
pools:
  - name: main
    servers: 4
    volumesPerServer: 2
    erasure: {setSize: 8, parity: 4}
    podNamePrefix: logs-pool-main-
    hostSuffix: .logs-pods.loki.svc.cluster.local
    drivePath: /data{volume}
  - name: more
    servers: 4
    volumesPerServer: 1
    erasure: {setSize: 4, parity: 2}
    podNamePrefix: logs-pool-more-
    drivePath: /data
    firstNode: 4
keys: {rootUserFile: /keys/user, rootPasswordFile: /keys/password, peerKeyFile: /keys/peer}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tenant: {", "tenant: [", "not YAML"),
        ("name: logs,", "nam: logs,", "nam"),
        ("servers: 4", "servers: four", "servers"),
        ("setSize: 8", "setSize: 7", "setSize: 7 does not fit"),
        ("drivePath: /data{volume}", "drivePath: /data", "pools[0].drivePath"),
        ("firstNode: 4", "firstNode: 3", "pools[1].firstNode"),
        ("epoch: 3", "version: 9", "version: 9"),
    ],
)
def test_faults_name_their_field(old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(GOOD.replace(old, new, 1))
    assert message in str(caught.value)


def test_all_faults_come_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(GOOD.replace("setSize: 8", "setSize: 7").replace("firstNode: 4", "firstNode: 3"))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("text", ["", "[]", "just words", "\x00"])
def test_a_document_that_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_config(text)


def test_an_absent_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        ConfigFile(tmp_path / "config.yaml")


async def test_a_change_is_taken_over_and_a_broken_one_is_not(tmp_path: Path) -> None:
    """As a ConfigMap changes: `config.yaml` is a link into the folder that `..data` points to."""

    def publish(generation: str, text: str) -> None:
        folder = tmp_path / generation
        folder.mkdir()
        (folder / "config.yaml").write_text(text)
        (tmp_path / "..data_tmp").symlink_to(generation)
        os.replace(tmp_path / "..data_tmp", tmp_path / "..data")

    publish("..1", GOOD)
    (tmp_path / "config.yaml").symlink_to("..data/config.yaml")
    file = ConfigFile(tmp_path / "config.yaml")
    assert await file.changed() is None
    publish("..2", GOOD.replace("epoch: 3", "epoch: 4"))
    fresh = await file.changed()
    assert fresh is not None
    assert (fresh.epoch, file.current.epoch, file.fault) == (4, 4, "")
    publish("..3", GOOD.replace("setSize: 8", "setSize: 7"))
    assert await file.changed() is None
    assert file.current.epoch == 4
    assert "setSize: 7" in file.fault
    publish("..4", GOOD.replace("id: 5e3b", "id: other"))
    assert await file.changed() is None
    assert "tenant.id" in file.fault
    publish("..5", GOOD.replace("epoch: 3", "epoch: 5"))
    assert await file.changed() is not None
    assert file.fault == ""


def test_a_pod_finds_its_place() -> None:
    config = parse_config(GOOD)
    me = find_membership(config, "logs-pool-main-3")
    assert (me.pool.name, me.ordinal, me.node) == ("main", 3, 3)
    assert [(v.number, v.path, v.set_index, v.position) for v in me.volumes] == [
        (0, "/data0", 0, 3),
        (1, "/data1", 0, 7),
    ]
    assert find_membership(config, "logs-pool-more-0").node == 4


@pytest.mark.parametrize("pod", ["logs-pool-main-4", "logs-pool-main-", "logs-pool-main-01", "other-0", ""])
def test_a_pod_that_is_none_of_the_tenants_is_refused(pod: str) -> None:
    with pytest.raises(ConfigError, match="pod"):
        find_membership(parse_config(GOOD), pod)


def test_what_is_frozen_cannot_change_under_a_running_pod() -> None:
    before = find_membership(parse_config(GOOD), "logs-pool-main-0")
    check_successor(before, parse_config(GOOD.replace("epoch: 3", "epoch: 4")))
    reduced = GOOD.replace("parity: 4", "parity: 4, reducedRedundancyParity: 3")
    check_successor(before, parse_config(reduced))
    check_pools(parse_config(GOOD), parse_config(reduced))
    with pytest.raises(ConfigError, match=r"parity changed from 4 to 3"):
        check_successor(before, parse_config(GOOD.replace("parity: 4", "parity: 3")))


def test_a_pool_may_go_only_before_anything_is_looked_for_in_it() -> None:
    joining = GOOD.replace("firstNode: 4\n", "firstNode: 4\n    readableFromEpoch: 4\n    writableFromEpoch: 5\n")
    alone = GOOD[: GOOD.index("  - name: more")] + GOOD[GOOD.index("keys:") :]
    check_pools(parse_config(joining), parse_config(alone))
    with pytest.raises(ConfigError, match="pool 'more' is missing; it holds data"):
        check_pools(parse_config(joining.replace("epoch: 3", "epoch: 4")), parse_config(alone.replace("3", "4", 1)))
    with pytest.raises(ConfigError, match="pool 'more' is missing; it holds data"):
        check_pools(parse_config(GOOD), parse_config(alone))


def write_keys(folder: Path, user: str = "admin\n", password: str = "password1\n", peer: str = "p" * 32) -> KeyFiles:
    for name, value in [("user", user), ("password", password), ("peer", peer)]:
        (folder / name).write_text(value)
    return KeyFiles(root_user_file="/user", root_password_file="/password", peer_key_file="/peer")


async def test_keys_are_read_below_the_prefix_and_again_when_they_change(tmp_path: Path) -> None:
    files = write_keys(tmp_path)
    store = KeyStore(files, tmp_path)
    assert tuple(store.current)[:3] == ("admin", "password1", b"p" * 32)
    write_keys(tmp_path, password="password2")
    await store.refresh(files)
    assert store.current.root_password == "password2"
    write_keys(tmp_path, password="short")
    await store.refresh(files)
    assert store.current.root_password == "password2"
    assert "rootPasswordFile" in store.fault
    (tmp_path / "user").unlink()
    await store.refresh(files)
    assert "rootUserFile: /user: No such file" in store.fault


def test_every_fault_of_the_keys_is_named_and_none_is_shown(tmp_path: Path) -> None:
    files = write_keys(tmp_path, user="me", password="hunter2", peer="tiny")
    with pytest.raises(ConfigError) as caught:
        read_keys(files, tmp_path)
    text = str(caught.value)
    assert len(text.splitlines()) == 3
    assert "at least 3" in text
    assert "at least 8" in text
    assert "hunter2" not in text
    assert "hunter2" not in repr(KeyStore(write_keys(tmp_path, password="hunter2hunter2"), tmp_path).current)


@pytest.mark.parametrize("user", ["a/b", "a,b", "a=b", "ab\n", " abc"])
def test_a_root_user_that_signatures_cannot_carry_is_refused(user: str) -> None:
    assert check_root(user, "password1", "HOLDFAST_ROOT_USER", "HOLDFAST_ROOT_PASSWORD")


async def test_further_keys_are_accepted_beside_the_pods_own(tmp_path: Path) -> None:
    plain = write_keys(tmp_path)
    files = KeyFiles(
        root_user_file=plain.root_user_file, root_password_file=plain.root_password_file,
        peer_key_file=plain.peer_key_file, further_keys_file="/further.json",
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"keys.furtherKeysFile: /further.json: No such file"):
        KeyStore(files, tmp_path)
    former = FurtherKeys(revision=3, root=(RootPair(access_key="before", secret_key="password0"),), peer=("q" * 32,))
    (tmp_path / "further.json").write_bytes(encode_further_keys(former))
    store = KeyStore(files, tmp_path)
    assert store.current.root_pairs == (("admin", "password1"), ("before", "password0"))
    assert store.current.peer_keys == (b"p" * 32, b"q" * 32)
    assert store.current.further.revision == 3
    assert "password0" not in repr(store.current.further)
    (tmp_path / "further.json").write_text('{"revision": 4, "root": [{"accessKey": "x", "secretKey": "hunter2"}]}')
    await store.refresh(files)
    assert store.current.further.revision == 3
    assert "root[0].secretKey" in store.fault
    assert "root[0].accessKey" in store.fault
    assert "hunter2" not in store.fault
    (tmp_path / "further.json").write_text('{"revision": 4, "roots": []}')
    await store.refresh(files)
    assert "furtherKeysFile: /further.json: Object contains unknown field `roots`" in store.fault


async def test_keys_that_change_while_they_are_read_wait_for_the_next_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_keys(tmp_path)
    store = KeyStore(files, tmp_path)
    reads = iter([Keys("admin", "password2", b"p" * 32), Keys("boss", "password2", b"p" * 32)])
    monkeypatch.setattr("holdfast_server.pod.key_files.read_keys", lambda *_: next(reads))
    await store.refresh(files)
    assert store.current.root_pairs == (("admin", "password1"),), "never a new user with an old password"
