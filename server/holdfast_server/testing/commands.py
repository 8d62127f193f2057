"""Programs that tests run: with an environment of their own, a bound on their time, and what they said.

A program that takes too long, or whose test is cancelled, is killed and waited for: none outlives its test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


async def start_command(
    program: str, arguments: Sequence[str | Path], environment: Mapping[str, str]
) -> asyncio.subprocess.Process:
    """All three streams are pipes; whoever starts it ends it."""
    return await asyncio.create_subprocess_exec(
        program,
        *(str(argument) for argument in arguments),
        env=dict(environment),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run_command(
    program: str,
    arguments: Sequence[str | Path],
    environment: Mapping[str, str],
    *,
    stdin: str = "",
    timeout_seconds: float,
) -> Result:
    """Until it ends by itself.  Raises TimeoutError."""
    process = await start_command(program, arguments, environment)
    try:
        async with asyncio.timeout(timeout_seconds):
            out, err = await process.communicate(stdin.encode())
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Result(process.returncode, out.decode(), err.decode())
