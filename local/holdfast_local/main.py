"""The `holdfast-local` command.

Exit codes: 0 after a clean end, 1 for a failure that is explained on stderr, 2 for a wrong command line, 130 where it
was interrupted before it had begun.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from holdfast_local.run import stopping
from holdfast_local.run.failure import RunFailed
from holdfast_local.run.options import RunOptions
from holdfast_local.run.progress import Progress
from holdfast_local.run.state_directory import NAME_IN_CHECKOUT

DEFAULT_STATE = Path(NAME_IN_CHECKOUT)
DEFAULT_TIMEOUT_SECONDS = 300.0
MAX_NODES = 64
EXIT_INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="holdfast-local", description="A stand-in Kubernetes for laptops and tests, running Holdfast."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="start the cluster, the operator and the Tenants of a file")
    running.add_argument("--tenant", type=Path, required=True, metavar="FILE", help="manifests with a Tenant")
    running.add_argument("--port", type=_port, default=None, help="of the API server (default: 6443, or a free one)")
    running.add_argument(
        "--isolation",
        choices=("auto", "namespaces", "prefix"),
        default="auto",
        help="how pods see their volumes: in mount namespaces or below a root prefix (default: what works here)",
    )
    running.add_argument(
        "--timeout",
        type=_seconds,
        default=DEFAULT_TIMEOUT_SECONDS,
        metavar="SECONDS",
        help="until the Tenants must be ready (default: %(default)g)",
    )
    running.add_argument(
        "--nodes",
        type=_nodes,
        default=1,
        metavar="COUNT",
        help=f"how many nodes this machine plays, at most {MAX_NODES} (default: %(default)d)",
    )
    running.add_argument(
        "--refresh",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="changed Secrets and ConfigMaps reach pods up to so much later, as on a cluster (default: at once)",
    )
    serving = commands.add_parser("api", help="start the API server alone: no pods, no operator")
    serving.add_argument("--port", type=_port, default=None, help="of the API server (default: 6443, or a free one)")
    commands.add_parser("stop", help="end a running cluster; its data stay")
    commands.add_parser("status", help="say whether a cluster is running")
    for command in commands.choices.values():
        command.add_argument(
            "--state", type=Path, default=DEFAULT_STATE, metavar="DIR", help="its files (default: %(default)s)"
        )
    return parser


def _port(text: str) -> int:
    return _from_one_to(65535, text, "a port")


def _nodes(text: str) -> int:
    return _from_one_to(MAX_NODES, text, f"a number from 1 to {MAX_NODES}")


def _from_one_to(most: int, text: str, wanted: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, run, exit."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    failure = None
    try:
        _execute(options)
    except* RunFailed as failures:  # out of a task group they come in groups
        failure = _first(failures)
    except* KeyboardInterrupt:  # while it was being loaded: what has begun listens for it
        sys.exit(EXIT_INTERRUPTED)
    if failure is not None:
        print(f"holdfast-local: {failure}", file=sys.stderr)
        sys.exit(failure.exit_code)


def _execute(options: argparse.Namespace) -> None:
    if options.command == "stop":
        print(stopping.stop(options.state))
    elif options.command == "status":
        print(stopping.status(options.state))
    elif options.command == "api":
        from holdfast_local.run.api_only import serve_api  # as below

        asyncio.run(serve_api(options.state, options.port, Progress(sys.stdout)))
    else:
        from holdfast_local.run.command import run  # a second of imports that `stop` can do without

        run_options = RunOptions(
            options.tenant, options.state, options.port, options.isolation, options.timeout, options.nodes,
            options.refresh,
        )  # fmt: skip
        asyncio.run(run(run_options, os.environ, Progress(sys.stdout)))


def _first(failures: BaseExceptionGroup[RunFailed]) -> RunFailed:
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, RunFailed)
    return error


if __name__ == "__main__":
    main()
