"""`holdfast admin …`: what an operator types against a running tenant.

Exit codes: 0 done (for `heal status`: the tenant is whole), 1 refused or failed (for `heal status`: it is not
whole), 2 nobody answers, the answer makes no sense, or the arguments are wrong, 130 after Ctrl-C.  Everything goes to
any one pod, or to the Service: each answers for the whole tenant.

Not here: the environment (`main` hands it in), the calls (`client`), how answers look (`tables`).
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO, get_args

import msgspec

from holdfast_server.admin import tables
from holdfast_server.admin.bucket_commands import add_bucket_verbs
from holdfast_server.admin.client import TIMEOUT_SECONDS, AdminClient, AdminFailure, Unreachable
from holdfast_server.contract import names
from holdfast_server.contract.admin import AccountSpec, Resolve, UserInfo, UserSpec
from holdfast_server.contract.healing import RegisterKind
from holdfast_server.s3.signing import KeyPair

EXIT_DONE, EXIT_NOT_DONE, EXIT_UNREACHABLE = 0, 1, 2
EXIT_INTERRUPTED = 130
MAX_TIMEOUT_SECONDS = 86_400.0
SECRET_KEY_SIZE_BYTES = 30

_ENVIRONMENT = """
environment:
  AWS_ENDPOINT_URL_S3    --endpoint, where that is not given
  AWS_ACCESS_KEY_ID      --access-key
  AWS_SECRET_ACCESS_KEY  the secret key; there is no option for it, because other users see a command's options
  AWS_CA_BUNDLE          --ca-file

A tenant's root keys are accessKey and secretKey of the Secret TENANT-root, whose entries are base64:
  kubectl -n NAMESPACE get secret TENANT-root -o go-template='{{.data.accessKey | base64decode}}'
Beside `make run` all of these are in a file: source .holdfast/env
"""


class _Terminal:
    """One run: its client, and where its words go."""

    def __init__(self, options: argparse.Namespace, client: AdminClient, out: TextIO) -> None:
        self.options, self.client, self._out = options, client, out

    def say(self, text: str, at_once: bool = False) -> None:
        print(text, file=self._out, flush=at_once)

    def json(self, value: object) -> None:
        self.say(msgspec.json.format(msgspec.json.encode(value)).decode())


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `admin` to the commands of `holdfast`."""
    admin = commands.add_parser(
        "admin",
        help="look after a running tenant",
        description="Look after a running tenant, through any of its pods or its Service.",
        epilog=_ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _connection_options(admin, None)
    verbs = admin.add_subparsers(required=True, metavar="VERB")
    info = _verb(verbs, "info", _info, "pods, drives, capacity, versions", "List pods, drives, capacity and versions.")
    _json_option(info)
    _add_heal(verbs.add_parser("heal", help="what is not whole, and what is done about it",
                               description="What is not whole, and what is done about it."))  # fmt: skip
    _add_user(verbs.add_parser("user", help="users and their policies", description="Users and their policies."))
    bucket = verbs.add_parser("bucket", help="what buckets hold and may hold", description="Buckets and their quotas.")
    add_bucket_verbs(bucket, _verb, _json_option)
    _add_account(verbs.add_parser("account", help="whom buckets and users belong to",
                                  description="Accounts: buckets and users belong to them."))  # fmt: skip
    _add_policy(verbs.add_parser("policy", help="IAM policies", description="Policies, in AWS's IAM language."))


def _connection_options(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Before the verb or behind it; there they must not override with a default what was given before."""
    parser.add_argument(
        "--endpoint", metavar="URL", default=default, help=f"http://HOST:{names.S3_PORT} of a pod or of the Service"
    )
    parser.add_argument(
        "--access-key",
        dest="signed_as",
        metavar="KEY",
        default=default,
        help="of root, or of a user with the policy consoleAdmin",
    )
    parser.add_argument("--ca-file", metavar="FILE", default=default, help="certificates that verify an https endpoint")
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=_timeout, default=default, help=f"default: {TIMEOUT_SECONDS:g}"
    )


def _timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_TIMEOUT_SECONDS:  # NaN neither
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0, a day at most")
    return seconds


def _add_heal(heal: argparse.ArgumentParser) -> None:
    verbs = heal.add_subparsers(required=True, metavar="VERB")
    status = _verb(
        verbs, "status", _heal_status, "how whole the tenant is",
        "Tell how whole the tenant is: every set and drive, what waits for repair, how far drives are filled and "
        "scanned.  Ends with 0 if it is whole, 1 if it is not, 2 if nobody answers.",
    )  # fmt: skip
    _json_option(status)
    start = _verb(
        verbs, "start", _heal_start, "scan for what is missing or rotten, now",
        "Have every pod scan its drives from where its pass stands to the end, without the rests in between: bytes "
        "that do not match their hash are rebuilt, what a drive lacks is brought to it.  Missed writes and empty "
        "drives are healed without being asked.",
    )  # fmt: skip
    start.add_argument("--scan", action="store_true", help="the default, and all there is to start")
    stuck = _verb(
        verbs, "list-stuck", _heal_stuck, "what waits for your decision",
        "List versions that the drives can neither decide nor rebuild: fewer copies than a read needs are left, "
        "and a drive that may have held another was replaced.  Each was either acknowledged and lost, or never "
        "acknowledged; nobody but you can tell.",
    )  # fmt: skip
    _json_option(stuck)
    resolve = _verb(
        verbs, "resolve", _heal_resolve, "decide one of them",
        "Decide what becomes of a version that is stuck.  Look at it with list-stuck first.",
    )  # fmt: skip
    resolve.add_argument("bucket", metavar="BUCKET")
    resolve.add_argument("key", metavar="KEY")
    choice = resolve.add_mutually_exclusive_group(required=True)
    choice.add_argument(
        "--keep", action="store_true",
        help="it stays: made whole if a drive with another shard has come back, else refused with what is missing",
    )  # fmt: skip
    choice.add_argument(
        "--discard",
        action="store_true",
        help="take it back: what was current before it is served again; or, if it was committed, delete it",
    )
    resolve.add_argument(
        "--kind", choices=get_args(RegisterKind), default="object",
        help="version: one that is not current; default: %(default)s",
    )  # fmt: skip
    resolve.add_argument("--version", metavar="HEX", default="", help="as list-stuck shows it, where it shows one")


def _add_user(user: argparse.ArgumentParser) -> None:
    verbs = user.add_subparsers(required=True, metavar="VERB")
    _json_option(_verb(verbs, "list", _user_list, "all users but root", "List all users but root."))
    add = _verb(
        verbs, "add", _user_add, "create or replace a user",
        "Create a user, or replace it.  The secret key is read from standard input with --secret-stdin; otherwise "
        "one is made and printed.",
    )  # fmt: skip
    add.add_argument("access_key", metavar="ACCESSKEY")
    add.add_argument("--secret-stdin", action="store_true", help="read the secret key from standard input")
    add.add_argument("--policy", action="append", default=[], metavar="NAME", help="may be repeated")
    add.add_argument("--name", default="", help="for people and ARNs; default: the access key")
    add.add_argument("--account", default="", metavar="NAME", help="whose its buckets are; default: the tenant's own")
    add.add_argument("--account-root", action="store_true", help="may do everything in its account")
    add.add_argument("--expires", type=_duration_ms, default=0, metavar="TIME", help="ends after 90d, 12h or 30m")
    add.add_argument("--limit", metavar="FILE", help="a policy that has to allow it, too; - for standard input")
    add.add_argument("--disabled", action="store_true", help="may do nothing")
    remove = _verb(verbs, "remove", _user_remove, "remove a user", "Remove a user; no error where there is none.")
    remove.add_argument("access_key", metavar="ACCESSKEY")


def _add_account(account: argparse.ArgumentParser) -> None:
    verbs = account.add_subparsers(required=True, metavar="VERB")
    _json_option(_verb(verbs, "list", _account_list, "all accounts", "List all accounts, with their ids."))
    add = _verb(
        verbs, "add", _account_add, "declare an account", "Declare an account, or say anew how it is shown to people."
    )
    add.add_argument("name", metavar="NAME")
    add.add_argument("--display-name", default="", metavar="TEXT", help="default: the name")
    remove = _verb(
        verbs, "remove", _account_remove, "forget how an account is shown",
        "Remove an account from those that were declared; its users and buckets stay.",
    )  # fmt: skip
    remove.add_argument("name", metavar="NAME")


_UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000}


def _duration_ms(text: str) -> int:
    number, unit = text[:-1], text[-1:]
    # `0d`, of a variable of somebody's script perhaps, would be taken for a key that never ends.
    if not (number.isascii() and number.isdigit() and number.strip("0") and unit in _UNITS_MS):
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90d, 12h or 30m")
    return int(number) * _UNITS_MS[unit]


def _add_policy(policy: argparse.ArgumentParser) -> None:
    verbs = policy.add_subparsers(required=True, metavar="VERB")
    _json_option(_verb(verbs, "list", _policy_list, "names of all policies", "List all policies, built-in ones too."))
    add = _verb(verbs, "add", _policy_add, "create or replace a policy", "Create a policy, or replace it.")
    add.add_argument("name", metavar="NAME")
    add.add_argument("file", metavar="FILE", help="its document; - for standard input")
    remove = _verb(verbs, "remove", _policy_remove, "remove a policy", "Remove a policy; no error where there is none.")
    remove.add_argument("name", metavar="NAME")


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[_Terminal], int],
    told: str,
    description: str,
) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=told, description=description)
    parser.set_defaults(run_admin=run)
    _connection_options(parser, argparse.SUPPRESS)
    return parser


def _json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


def run_admin(options: argparse.Namespace, environment: Mapping[str, str], out: TextIO, errors: TextIO) -> int:
    """Returns the exit code."""
    endpoint = options.endpoint or environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL", "")
    access_key = options.signed_as or environment.get("AWS_ACCESS_KEY_ID", "")
    secret_key = environment.get("AWS_SECRET_ACCESS_KEY", "")
    wanted = (
        (endpoint, "the endpoint: --endpoint or AWS_ENDPOINT_URL_S3"),
        (access_key, "the access key: --access-key or AWS_ACCESS_KEY_ID"),
        (secret_key, "the secret key: AWS_SECRET_ACCESS_KEY"),
    )
    missing = [told for value, told in wanted if not value]
    if missing:
        for told in missing:
            print(f"holdfast admin: give {told}", file=errors)
        if len(missing) == len(wanted):  # somebody's first time
            print("holdfast admin: `holdfast admin --help` says where they are found", file=errors)
        return EXIT_UNREACHABLE
    client = AdminClient(
        endpoint,
        KeyPair(access_key, secret_key, session_token=environment.get("AWS_SESSION_TOKEN", "")),
        options.ca_file or environment.get("AWS_CA_BUNDLE") or None,
        options.timeout or TIMEOUT_SECONDS,
    )
    try:
        code = int(options.run_admin(_Terminal(options, client, out)))
        out.flush()
        return code
    except BrokenPipeError:
        # `| head` has read enough.  What is left goes nowhere, or the end of the process would complain of it.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, out.fileno())
        os.close(nowhere)
        return EXIT_NOT_DONE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except AdminFailure as error:
        print(f"holdfast admin: {error}", file=errors)
        return EXIT_UNREACHABLE if isinstance(error, Unreachable) else EXIT_NOT_DONE
    except OSError as error:
        print(f"holdfast admin: {error.filename or ''}: {error.strerror or error}", file=errors)
        return EXIT_NOT_DONE


def _now_ms() -> int:
    return int(time.time() * 1000)


def _info(terminal: _Terminal) -> int:
    info = terminal.client.info()
    if terminal.options.json:
        terminal.json(info)
    else:
        terminal.say(tables.info_text(info, _now_ms()))
    return EXIT_DONE


def _heal_status(terminal: _Terminal) -> int:
    status = terminal.client.heal_status()
    if terminal.options.json:
        terminal.json(status)
    else:
        terminal.say(tables.heal_text(status, _now_ms()))
    return EXIT_DONE if status.whole else EXIT_NOT_DONE


def _heal_start(terminal: _Terminal) -> int:
    started = terminal.client.start_scan()
    terminal.say(f"scanning on {', '.join(started.started)}; see `holdfast admin heal status`")
    if started.silent_pods:
        terminal.say(f"not reached: {', '.join(started.silent_pods)}")
        return EXIT_NOT_DONE
    return EXIT_DONE


def _heal_stuck(terminal: _Terminal) -> int:
    stuck = terminal.client.stuck()
    if terminal.options.json:
        terminal.json(stuck)
    else:
        terminal.say(tables.stuck_text(stuck, _now_ms()) if stuck else "nothing is stuck")
    return EXIT_DONE


def _heal_resolve(terminal: _Terminal) -> int:
    options = terminal.options
    request = Resolve(
        bucket=options.bucket, key=options.key, kind=options.kind, keep=options.keep, version=options.version
    )
    terminal.say(terminal.client.resolve(request).outcome)
    return EXIT_DONE


def _user_list(terminal: _Terminal) -> int:
    users = terminal.client.users()
    if terminal.options.json:
        terminal.json(users)
        return EXIT_DONE
    rows = [
        (user.access_key, user.name, user.account or "-", _rights(user), "yes" if user.enabled else "no")
        for user in users
    ]
    terminal.say(tables.table(("ACCESS KEY", "NAME", "ACCOUNT", "POLICIES", "ENABLED"), rows))
    return EXIT_DONE


def _rights(user: UserInfo) -> str:
    """What a key was given, and whether clients made it (then the rest is the IAM API's to tell)."""
    notes = [*user.policies]
    notes += ["(root of its account)"] if user.account_root else []
    notes += ["(made by clients)"] if user.by_clients else []
    notes += ["(limited)"] if user.limited else []
    notes += ["(ends)"] if user.expires_ms else []
    return ", ".join(notes) or "-"


def _user_add(terminal: _Terminal) -> int:
    options = terminal.options
    if options.secret_stdin:
        secret_key = sys.stdin.readline().rstrip("\r\n")
    else:
        secret_key = secrets.token_urlsafe(SECRET_KEY_SIZE_BYTES)
    terminal.client.put_user(
        options.access_key,
        UserSpec(
            secret_key=secret_key,
            name=options.name,
            policies=options.policy,
            enabled=not options.disabled,
            account=options.account,
            account_root=options.account_root,
            expires_ms=_now_ms() + options.expires if options.expires else 0,
            policy=_document(options.limit) if options.limit else None,
        ),
    )
    terminal.say(f"user {options.access_key} is {'disabled' if options.disabled else 'in force'}")
    if not (options.policy or options.account_root):
        terminal.say("it has no policy (--policy NAME): it may do only what bucket policies, ACLs and its groups allow")
    if not options.secret_stdin:
        # Before anything else is asked: the key is in force, and whoever ends this would never be told it.
        terminal.say(f"secret key, shown this once: {secret_key}", at_once=True)
    for absent in _absent_policies(terminal):
        terminal.say(f"there is no policy {absent}: it gives nothing until there is one (`holdfast admin policy list`)")
    return EXIT_DONE


def _absent_policies(terminal: _Terminal) -> list[str]:
    """Of those that were named; none where that cannot be learned: the user is there in any case."""
    try:
        there = set(terminal.client.policies()) if terminal.options.policy else set()
    except AdminFailure:
        return []
    return [name for name in terminal.options.policy if name not in there]


def _document(file: str) -> dict[str, object]:
    text = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    try:
        return msgspec.json.decode(text, type=dict[str, object])
    except msgspec.MsgspecError as error:
        raise AdminFailure(f"{file} is no policy: {error}") from error


def _account_list(terminal: _Terminal) -> int:
    accounts = terminal.client.accounts()
    if terminal.options.json:
        terminal.json(accounts)
        return EXIT_DONE
    rows = [(one.name or "-", one.display_name, one.id, one.canonical_id) for one in accounts]
    terminal.say(tables.table(("ACCOUNT", "SHOWN AS", "ID", "CANONICAL ID"), rows))
    return EXIT_DONE


def _account_add(terminal: _Terminal) -> int:
    terminal.client.put_account(terminal.options.name, AccountSpec(display_name=terminal.options.display_name))
    terminal.say(f"account {terminal.options.name} is there")
    return EXIT_DONE


def _account_remove(terminal: _Terminal) -> int:
    terminal.client.remove_account(terminal.options.name)
    terminal.say(f"account {terminal.options.name} is declared no more")
    return EXIT_DONE


def _user_remove(terminal: _Terminal) -> int:
    terminal.client.remove_user(terminal.options.access_key)
    terminal.say(f"there is no user {terminal.options.access_key} any more")
    return EXIT_DONE


def _policy_list(terminal: _Terminal) -> int:
    policies = terminal.client.policies()
    if terminal.options.json:
        terminal.json(policies)
    else:
        terminal.say("\n".join(policies))
    return EXIT_DONE


def _policy_add(terminal: _Terminal) -> int:
    options = terminal.options
    document = sys.stdin.buffer.read() if options.file == "-" else Path(options.file).read_bytes()
    terminal.client.put_policy(options.name, document)
    terminal.say(f"policy {options.name} is in force")
    return EXIT_DONE


def _policy_remove(terminal: _Terminal) -> int:
    terminal.client.remove_policy(terminal.options.name)
    terminal.say(f"there is no policy {terminal.options.name} any more")
    return EXIT_DONE
