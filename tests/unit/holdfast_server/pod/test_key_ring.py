"""Encryption keys from a folder: as they are now, or as they were while the files are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast_server.contract.config import EncryptionConfig
from holdfast_server.pod.key_ring import KeyRingStore

ONE, TWO = "11" * 32, "22" * 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "keys"
    made.mkdir()
    (made / "default.1").write_text(ONE)
    return made


def store_of(folder: Path) -> tuple[KeyRingStore, EncryptionConfig]:
    config = EncryptionConfig(keys_folder=str(folder))
    return KeyRingStore(config), config


async def test_keys_that_come_and_go_are_taken_over(folder: Path) -> None:
    store, config = store_of(folder)
    assert store.current.entries == ["default.1"]
    (folder / "default.2").write_text(TWO)
    await store.refresh(config)
    assert store.current.entries == ["default.1", "default.2"]
    (folder / "default.1").unlink()
    await store.refresh(config)
    assert (store.current.entries, store.fault) == (["default.2"], "")


async def test_the_files_of_a_mounted_secret_are_read_through_its_links(tmp_path: Path) -> None:
    version = tmp_path / "..2026_11_21"
    version.mkdir()
    (version / "default.1").write_text(ONE)
    (tmp_path / "..data").symlink_to(version.name)
    (tmp_path / "default.1").symlink_to("..data/default.1")
    store, _ = store_of(tmp_path)
    assert store.current.entries == ["default.1"]


@pytest.mark.parametrize("spoil", ["empty", "gone", "wrong", "name"])
async def test_a_spoilt_folder_leaves_the_keys_in_force_and_is_told(folder: Path, spoil: str) -> None:
    store, config = store_of(folder)
    if spoil in ("empty", "gone"):
        (folder / "default.1").unlink()
    if spoil == "gone":
        folder.rmdir()
    if spoil == "wrong":
        (folder / "default.2").write_text("secret but short")
    if spoil == "name":
        (folder / "default 2").write_text(TWO)
    await store.refresh(config)
    assert store.current.get("default.1") == bytes.fromhex(ONE)
    assert str(folder) in store.fault
    assert "secret" not in store.fault
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    (folder / "default.1").write_text(ONE)
    await store.refresh(config)
    assert store.fault == ""


def test_a_pod_starts_without_keys_and_says_so(tmp_path: Path) -> None:
    store, _ = store_of(tmp_path / "nowhere")
    assert len(store.current) == 0
    assert "nowhere" in store.fault


def test_without_a_folder_nothing_is_missed() -> None:
    for config in (None, EncryptionConfig()):
        store = KeyRingStore(config)
        assert (len(store.current), store.fault) == (0, "")
