"""Which program of this machine an image stands for.  Pure.

Nothing is pulled, but an image of a registry below `.invalid`, a domain that by RFC 2606 never exists, cannot be, just
as on a real node: so that a mistyped image can be tried here, too.  A container's `command` is looked up on PATH, on
which the folder of this installation's programs comes first: `holdfast` and `holdfast-operator` are found there.
Without a `command`, an image whose name ends in one of these two words stands for that program, as its entrypoint
would.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast_local.kubelet.environment import ContainerConfigError

UNREACHABLE_DOMAIN = ".invalid"
ENTRYPOINTS = ("holdfast", "holdfast-operator")


class ImagePullError(Exception):
    """An image that no node could get."""


def pull(image: str) -> None:
    """Raises ImagePullError with what a kubelet would say."""
    registry, found, _ = image.partition("/")
    if found and registry.partition(":")[0].endswith(UNREACHABLE_DOMAIN):
        raise ImagePullError(f'failed to pull and unpack image "{image}": dial tcp: lookup {registry}: no such host')


def argument_vector(image: str, command: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """The full command line; raises ContainerConfigError for an unknown entrypoint."""
    if command:
        return [*command, *arguments]
    name = image.split("@")[0].rpartition("/")[2].partition(":")[0]
    if name in ENTRYPOINTS:
        return [name, *arguments]
    raise ContainerConfigError(f"image {image}: its entrypoint is not known here; give the container a command")
