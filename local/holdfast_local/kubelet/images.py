"""Which program of this machine an image stands for.  Pure.

Nothing is pulled.  A container's `command` is looked up on PATH, on which the folder of this installation's
programs comes first: `holdfast` and `holdfast-operator` are found there.  Without a `command`, an image whose
name ends in one of these two words stands for that program, as its entrypoint would.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast_local.kubelet.environment import ContainerConfigError

ENTRYPOINTS = ("holdfast", "holdfast-operator")


def argument_vector(image: str, command: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """The full command line; raises ContainerConfigError for an unknown entrypoint."""
    if command:
        return [*command, *arguments]
    name = image.split("@")[0].rpartition("/")[2].partition(":")[0]
    if name in ENTRYPOINTS:
        return [name, *arguments]
    raise ContainerConfigError(f"image {image}: its entrypoint is not known here; give the container a command")
