"""What `make` installs into, whatever an interrupted installation left there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_an_environment_whose_pip_was_interrupted_is_made_anew_and_a_whole_one_kept(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    venv = tmp_path / ".venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    for script in venv.glob("bin/pip*"):
        script.unlink()  # what comes last; with the rest there, venv takes pip for whole
    # pip's version in place of all that it would install.
    command = ["make", f"PYTHON={sys.executable}", "PIP=.venv/bin/pip --version; true", ".venv/.runtime"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert str(venv) in made.stdout, made.stdout + made.stderr
    kept = venv / "kept"
    kept.touch()
    (venv / ".runtime").unlink()
    subprocess.run(command, cwd=tmp_path, check=True)
    assert kept.exists()
