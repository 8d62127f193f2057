"""The installation's manifests are found in a checkout and in a wheel."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest

from holdfast_local.run import installation
from holdfast_local.run.failure import RunFailed
from holdfast_local.run.installation import SOURCE_ROOT, crd_documents, manifests_root, operator_documents


def unpacked_wheel(folder: Path) -> Path:
    """The files that the build adds to the packages, as an installed wheel has them."""
    project = tomllib.loads((SOURCE_ROOT / "pyproject.toml").read_text())
    for source, target in project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"].items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (SOURCE_ROOT / source).is_dir() else shutil.copy
        copy(SOURCE_ROOT / source, folder / target)
    return folder


def test_a_checkout_uses_its_own_files() -> None:
    assert manifests_root() == SOURCE_ROOT


def test_a_wheel_carries_the_same_manifests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = unpacked_wheel(tmp_path) / "holdfast_local" / "manifests"
    monkeypatch.setattr(installation, "PACKAGED_ROOT", packaged)
    assert manifests_root() == packaged

    def manifests(root: Path) -> list[object]:
        return [document.manifest for document in [*crd_documents(root), *operator_documents(root)]]

    assert manifests(packaged) == manifests(SOURCE_ROOT)


def test_missing_manifests_are_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="no CRD found"):
        crd_documents(tmp_path)
    with pytest.raises(RunFailed, match=r"rules\.yaml"):
        operator_documents(tmp_path)
