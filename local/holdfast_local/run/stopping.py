"""`holdfast-local stop` and `status`, from another terminal."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from holdfast_local.run.failure import RunFailed
from holdfast_local.run.state_directory import StateDirectory, shown

STOP_TIMEOUT_SECONDS = 90.0
"""Longer than the pods' longest grace."""


def stop(root: Path) -> str:
    """End a running cluster and wait for it; returns a sentence.  Nothing running is no failure."""
    state = StateDirectory(root)
    process = state.running_process()
    if process is None:
        return f"Nothing is running with {shown(state.root)}."
    try:
        os.kill(process, signal.SIGTERM)
    except ProcessLookupError:
        return f"Nothing is running with {shown(state.root)}."
    except PermissionError as error:
        raise RunFailed(f"process {process} belongs to another user") from error
    if not state.wait_until_released(STOP_TIMEOUT_SECONDS):
        raise RunFailed(f"process {process} has not ended within {STOP_TIMEOUT_SECONDS:g} s")
    return "Stopped."


def status(root: Path) -> str:
    """A few lines about the cluster; raises RunFailed if none is running."""
    state = StateDirectory(root)
    process = state.running_process()
    if process is None:
        raise RunFailed(f"Nothing is running with {shown(state.root)}.")
    lines = [f"Running: process {process}, state in {shown(state.root)}/"]
    if state.environment_file.exists():
        lines.append(f"The Tenant has been ready: source {shown(state.environment_file)}")
    else:
        lines.append("The Tenant has not been ready yet.")
    return "\n".join(lines)
