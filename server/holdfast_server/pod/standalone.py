"""`holdfast server PATH…`: a tenant of one pod, made up from the paths on the command line.  Pure.

`{1...4}` in a path stands for the numbers from 1 to 4 (leading zeros kept), as users of other stores know it.
Blank drives may be formatted while no drive of the pod remembers one in their place; a drive that was emptied
later is therefore a replacement and heals.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from holdfast_server.contract import geometry, names
from holdfast_server.contract.config import (
    ConfigError,
    ErasureConfig,
    KeyFiles,
    Listen,
    PoolConfig,
    ServerConfig,
    TenantConfig,
)

POOL = "main"
POD = "standalone-0"
_POD_PREFIX = "standalone-"
_RANGE = re.compile(r"\{(\d+)\.\.\.(\d+)\}")
_SPOILT_RANGE = re.compile(r"\{[^{}]*\.\.[^{}]*\}")
MAX_DRIVES = 256


def expand_paths(patterns: Sequence[str]) -> list[str]:
    """Every path the patterns stand for, in order.  Raises ConfigError."""
    paths = [path for pattern in patterns for path in _expand(pattern)]
    if not paths:
        raise ConfigError("no drive: give at least one path")
    if len(paths) > MAX_DRIVES:
        raise ConfigError(f"{len(paths)} drives; at most {MAX_DRIVES} in one pod")
    doubled = sorted({path for path in paths if paths.count(path) > 1})
    if doubled:
        raise ConfigError(f"the same drive twice: {', '.join(doubled)}")
    return paths


def make_config(tenant_id: str, drives: int, listen: Listen, region: str = names.DEFAULT_REGION) -> ServerConfig:
    """One pool of one server.  Raises ConfigError if so many drives cannot form erasure sets."""
    try:
        quorums = geometry.resolve(1, drives)
    except geometry.GeometryError as error:
        raise ConfigError(str(error)) from error
    pool = PoolConfig(
        name=POOL,
        servers=1,
        volumes_per_server=drives,
        erasure=ErasureConfig(set_size=quorums.set_size, parity=quorums.parity_shards),
        pod_name_prefix=_POD_PREFIX,
        drive_path="{volume}",
        formatting=True,
    )
    return ServerConfig(
        tenant=TenantConfig(id=tenant_id, name="standalone"),
        region=region,
        pools=[pool],
        keys=KeyFiles(root_user_file="", root_password_file="", peer_key_file=""),
        listen=listen,
    )


def _expand(pattern: str) -> list[str]:
    match = _RANGE.search(pattern)
    if match is None:
        if _SPOILT_RANGE.search(pattern):
            raise ConfigError(f"{pattern}: a range is two numbers, as in {{1...4}}")
        return [pattern]
    first, last = match.groups()
    if int(last) < int(first) or int(last) - int(first) >= MAX_DRIVES:
        raise ConfigError(f"{pattern}: {match.group()} must ascend, by less than {MAX_DRIVES}")
    width = len(first) if first.startswith("0") else 0
    heads = [pattern[: match.start()] + f"{n:0{width}d}" for n in range(int(first), int(last) + 1)]
    return [head + tail for head in heads for tail in _expand(pattern[match.end() :])]
