"""Folders of Secrets and ConfigMaps, loopback addresses, logs, pod status."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast_local.kubelet.addresses import HOSTS, AddressBook, AddressesExhausted, Slot
from holdfast_local.kubelet.environment import ContainerConfigError
from holdfast_local.kubelet.isolation import Isolation, LaunchSpec, Mount, launcher_command, prepare_prefix
from holdfast_local.kubelet.log_file import LogFile, tail
from holdfast_local.kubelet.pod_status import ContainerSnapshot, derive_pod_status, terminated
from holdfast_local.kubelet.projected_folder import write_folder


def test_files_change_all_at_once_through_one_link(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    assert write_folder(folder, {"a": b"1", "sub/b": b"2"})
    assert (folder / "a").read_bytes() == b"1"
    assert (folder / "sub" / "b").read_bytes() == b"2"
    before = os.readlink(folder / "..data")
    assert not write_folder(folder, {"a": b"1", "sub/b": b"2"})
    assert os.readlink(folder / "..data") == before
    assert write_folder(folder, {"a": b"3"})
    assert (folder / "a").read_bytes() == b"3"
    assert not (folder / "sub").exists()
    assert os.readlink(folder / "a") == "..data/a"
    assert len([entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink()]) == 1


def test_addresses_stay_with_their_names(tmp_path: Path) -> None:
    book = AddressBook(tmp_path / "book.json", "127.77", 9)
    first = book.address("shop/web-0", set())
    second = book.address("shop/web-1", set())
    assert first != second
    again = AddressBook(tmp_path / "book.json", "127.77", 9)
    assert again.address("shop/web-1", set()) == second
    assert again.contains(first)
    assert not again.contains("127.77.10.2")


def test_addresses_of_gone_names_are_reused_when_none_is_left(tmp_path: Path) -> None:
    book = AddressBook(tmp_path / "book.json", "127.77", 9)
    names = {f"n{index}" for index in range(len(HOSTS))}
    for name in sorted(names):
        book.address(name, names)
    with pytest.raises(AddressesExhausted):
        book.address("one-more", names)
    assert book.address("one-more", names - {"n7"})


def test_a_torn_address_file_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "book.json").write_text('{"a": ')
    assert AddressBook(tmp_path / "book.json", "127.77", 9).address("a", set()) == "127.77.9.2"


def test_two_clusters_never_share_a_slot(tmp_path: Path) -> None:
    first = Slot.claim(tmp_path)
    second = Slot.claim(tmp_path)
    assert first.number != second.number
    first.close()
    again = Slot.claim(tmp_path)
    assert again.number == first.number
    second.close()
    again.close()


def test_a_log_is_bounded_and_its_tail_readable(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "logs" / "c.log", limit_bytes=1000)
    for index in range(300):
        log.write(f"line {index}\n".encode())
    log.close()
    sizes = [path.stat().st_size for path in (tmp_path / "logs").iterdir()]
    assert len(sizes) == 2
    assert max(sizes) <= 1000
    assert tail(log.path, 2) == ["line 298", "line 299"]
    assert tail(tmp_path / "absent", 2) == []


def make_spec(root: Path, *mounts: Mount) -> LaunchSpec:
    return LaunchSpec(["true"], {}, "host", root, root / "hosts", list(mounts))


def test_prefix_mode_links_the_mount_paths(tmp_path: Path) -> None:
    source = tmp_path / "volume"
    source.mkdir()
    root = tmp_path / "root"
    spec = make_spec(root, Mount(source, "/data0"), Mount(source, "/etc/holdfast/config/"))
    prepare_prefix(spec)
    prepare_prefix(spec)
    assert (root / "data0").resolve() == source
    assert (root / "etc/holdfast/config").resolve() == source


def test_prefix_mode_refuses_nested_mounts(tmp_path: Path) -> None:
    with pytest.raises(ContainerConfigError, match="/data/inner lies inside /data"):
        prepare_prefix(make_spec(tmp_path, Mount(tmp_path, "/data/inner"), Mount(tmp_path, "/data")))


def test_the_launcher_gets_everything_in_one_argument(tmp_path: Path) -> None:
    command = launcher_command(make_spec(tmp_path, Mount(tmp_path, "/x y")), Isolation.NAMESPACES, [tmp_path])
    assert '"/x y"' in command[-1]


def container(name: str, ready: bool, **state: object) -> ContainerSnapshot:
    return ContainerSnapshot(name, "image", ready=ready, state=dict(state) or {"running": {}})


def status(*containers: ContainerSnapshot, previous: dict[str, object] | None = None, policy: str = "Always") -> dict:
    return derive_pod_status(previous or {}, [], containers, policy, "127.77.1.2", "t0", "now")


def test_a_pod_is_ready_when_all_its_containers_are() -> None:
    for ready in (True, False):
        conditions = {c["type"]: c for c in status(container("a", True), container("b", ready))["conditions"]}
        assert conditions["Ready"]["status"] == str(ready)
    assert "[b]" in conditions["Ready"]["message"]


def test_transition_times_move_only_with_the_status() -> None:
    first = derive_pod_status({}, [], [container("a", True)], "Always", "127.77.1.2", "t0", "t1")
    second = derive_pod_status(first, [], [container("a", True)], "Always", "127.77.1.2", "t0", "t2")
    third = derive_pod_status(second, [], [container("a", False)], "Always", "127.77.1.2", "t0", "t3")
    times = [{c["type"]: c["lastTransitionTime"] for c in s["conditions"]} for s in (first, second, third)]
    assert times[0] == times[1]
    assert (times[2]["Ready"], times[2]["PodScheduled"]) == ("t3", "t1")


def test_a_killed_process_is_told_by_signal_and_exit_code() -> None:
    state = terminated(-9, "a", "b", 42)["terminated"]
    assert (state["exitCode"], state["signal"], state["reason"]) == (137, 9, "Error")


def test_phases() -> None:
    ended = container("a", False, **terminated(0, "a", "b", 1))
    failed = container("a", False, **terminated(3, "a", "b", 1))
    assert status(container("a", False, waiting={}))["phase"] == "Pending"
    assert status(ended)["phase"] == "Running"
    assert status(ended, policy="Never")["phase"] == "Succeeded"
    assert status(failed, policy="Never")["phase"] == "Failed"
