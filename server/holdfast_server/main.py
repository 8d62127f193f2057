"""The command `holdfast`: arguments and environment to a running storage pod.  The only place of the server
that reads the environment.

    holdfast server PATH…                      one pod by hand
    holdfast server --config FILE --pod NAME   a pod of a tenant
    holdfast admin VERB …                      look after a running tenant; exit codes of its own, see `admin.cli`
    holdfast --version

Exit codes: 0 stopped as asked, 1 a failure (a port that is taken), 2 wrong arguments or configuration; every
message names the field or path.

Environment: HOLDFAST_ROOT_USER and HOLDFAST_ROOT_PASSWORD (MINIO_ROOT_* accepted) for a pod by hand;
HOLDFAST_ENCRYPTION_KEYS, the folder of its encryption keys (or --encryption-keys), and
HOLDFAST_CUSTOMER_KEYS_OVER_PLAINTEXT, whether keys of SSE-C are taken without TLS: Refused (where absent) or Accepted;
HOLDFAST_DRAIN_SECONDS, how long a pod serves on after SIGTERM (0 where absent);
POD_IP, whose family of addresses all listeners take, on every interface (`kubectl port-forward` comes in over
loopback); HOLDFAST_BIND_ADDRESS in its place, HOLDFAST_ROOT_PREFIX before every absolute path of the
configuration and HOLDFAST_HOSTS_FILE before the name service, where pods run as plain processes on one network;
HOLDFAST_LOG_LEVEL.  For `admin`: AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_CA_BUNDLE.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import sys
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from errno import EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvloop

from holdfast_server.contract import names
from holdfast_server.contract.config import ConfigError, EncryptionConfig, Listen
from holdfast_server.pod.key_files import under_prefix
from holdfast_server.pod.log_lines import set_up_logging
from holdfast_server.wiring.inputs import PodInputs, StandaloneInputs, TenantInputs
from holdfast_server.wiring.process import raise_file_limit, stop_on_signals, tune_allocator, tune_collector
from holdfast_server.wiring.storage_pod import PodSettings, serve

EXIT_FAILURE = 1
EXIT_BAD_CONFIGURATION = 2
MAX_DRAIN_SECONDS = 300
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point; ends the process."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments, os.environ))


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Returns the exit code; argparse exits by itself with 2."""
    options = _parser(with_admin=[*arguments[:1]] != ["server"]).parse_args(arguments)
    if hasattr(options, "run_admin"):
        from holdfast_server.admin.cli import run_admin

        return run_admin(options, environment, sys.stdout, sys.stderr)
    try:
        inputs = _inputs(options, environment)
        settings = _settings(options, environment)
        log_level = _log_level(environment)
    except ConfigError as error:
        for line in str(error).splitlines():
            print(f"holdfast: {line}", file=sys.stderr)
        return EXIT_BAD_CONFIGURATION
    set_up_logging(log_level)
    tune_allocator()
    tune_collector()
    raise_file_limit()
    try:
        return _run_loop(lambda: _serve(inputs, settings))
    except OSError as error:
        of_the_address = error.errno in (EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT)
        hint = "; --address [HOST]:PORT chooses another" if of_the_address and options.paths else ""
        print(f"holdfast: {error.strerror or error}{hint}", file=sys.stderr)
        return EXIT_FAILURE


def _run_loop(work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work())


async def _serve(inputs: PodInputs, settings: PodSettings) -> int:
    await serve(inputs, settings, stop_on_signals(asyncio.get_running_loop()))
    return 0


def _inputs(options: argparse.Namespace, environment: Mapping[str, str]) -> PodInputs:
    if options.config is not None:
        if options.paths:
            raise ConfigError("give either --config or paths, not both")
        if not options.pod:
            raise ConfigError("--pod: the name of this pod is needed with --config")
        if options.address is not None:
            raise ConfigError("--address: with --config the ports are those of its `listen`")
        if options.encryption_keys is not None:
            raise ConfigError("--encryption-keys: with --config the keys are those of its `encryption`")
        prefix = _root_prefix(environment)
        return TenantInputs(under_prefix(options.config, prefix), options.pod, prefix)
    if not options.paths:
        raise ConfigError("give the paths of the drives, or --config FILE --pod NAME")
    user = environment.get("HOLDFAST_ROOT_USER") or environment.get("MINIO_ROOT_USER", "")
    password = environment.get("HOLDFAST_ROOT_PASSWORD") or environment.get("MINIO_ROOT_PASSWORD", "")
    _, port = _address(options.address)
    encryption = _encryption(options, environment)
    return StandaloneInputs(options.paths, user, password, Listen(s3_port=port), str(uuid.uuid4()), encryption)


def _encryption(options: argparse.Namespace, environment: Mapping[str, str]) -> EncryptionConfig | None:
    folder = options.encryption_keys or environment.get("HOLDFAST_ENCRYPTION_KEYS", "")
    over_plaintext = environment.get("HOLDFAST_CUSTOMER_KEYS_OVER_PLAINTEXT") or "Refused"
    if over_plaintext not in ("Refused", "Accepted"):
        raise ConfigError(f"HOLDFAST_CUSTOMER_KEYS_OVER_PLAINTEXT: {over_plaintext!r} is neither Refused nor Accepted")
    accepted = over_plaintext == "Accepted"
    return EncryptionConfig(keys_folder=folder, customer_keys_over_plaintext="Accepted" if accepted else "Refused")


def _settings(options: argparse.Namespace, environment: Mapping[str, str]) -> PodSettings:
    host, _ = _address(options.address)
    hosts_file = environment.get("HOLDFAST_HOSTS_FILE")
    return PodSettings(
        bind_address=host or environment.get("HOLDFAST_BIND_ADDRESS") or _every_address(environment),
        version=version("holdfast"),
        hosts_file=Path(hosts_file) if hosts_file else None,
        drain_seconds=_drain_seconds(environment),
    )


def _drain_seconds(environment: Mapping[str, str]) -> float:
    text = environment.get("HOLDFAST_DRAIN_SECONDS") or "0"
    if not text.isdecimal() or int(text) > MAX_DRAIN_SECONDS:
        raise ConfigError(f"HOLDFAST_DRAIN_SECONDS: {text!r} is not a number from 0 to {MAX_DRAIN_SECONDS}")
    return float(text)


def _log_level(environment: Mapping[str, str]) -> str:
    level = (environment.get("HOLDFAST_LOG_LEVEL") or "INFO").upper()
    if level not in LOG_LEVELS:
        raise ConfigError(f"HOLDFAST_LOG_LEVEL: {level!r} is none of {', '.join(LOG_LEVELS)}")
    return level


def _every_address(environment: Mapping[str, str]) -> str:
    return "::" if ":" in environment.get("POD_IP", "") else "0.0.0.0"


def _root_prefix(environment: Mapping[str, str]) -> Path | None:
    prefix = environment.get("HOLDFAST_ROOT_PREFIX")
    return Path(prefix) if prefix else None


def _address(address: str | None) -> tuple[str, int]:
    """`[HOST]:PORT` or `HOST`; an empty host means that none was given.  Raises ConfigError."""
    if address is None:
        return "", names.S3_PORT
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        return address.strip("[]"), names.S3_PORT
    if _is_ipv6(address):
        if _is_ipv6(host):
            raise ConfigError(
                f"--address: {address!r} may be [{host}]:{port} or [{address}]; write the one that is meant"
            )
        return address, names.S3_PORT
    if not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"--address: {address!r} is not [HOST]:PORT")
    return host.strip("[]"), int(port)


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _parser(with_admin: bool) -> argparse.ArgumentParser:
    """`with_admin` False leaves out what a pod that starts would spend a tenth of its imports on."""
    parser = argparse.ArgumentParser(prog="holdfast", description="The object store you own.")
    parser.add_argument("--version", action="version", version=f"holdfast {version('holdfast')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    server = commands.add_parser(
        "server",
        help="run a storage pod",
        description="Run a storage pod: by hand with the paths of its drives, or as a pod of a tenant.",
    )
    server.add_argument("paths", nargs="*", metavar="PATH", help="a drive's folder; {1...4} stands for 1 to 4")
    server.add_argument("--config", metavar="FILE", help="the tenant's configuration")
    server.add_argument("--pod", metavar="NAME", help="which pod of the configuration this is")
    server.add_argument("--address", metavar="[HOST]:PORT", help=f"S3 of a pod by hand; default :{names.S3_PORT}")
    server.add_argument(
        "--encryption-keys", metavar="FOLDER", help="encryption keys of a pod by hand: a file each, default.1 first"
    )
    if with_admin:
        from holdfast_server.admin.cli import add_parser

        add_parser(commands)
    return parser


if __name__ == "__main__":
    main()
