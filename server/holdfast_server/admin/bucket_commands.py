"""`holdfast admin bucket …`: what each bucket holds, how much it may, and what ETags it gives.

Not here: connecting and failing (`cli`), how tables look (`tables`).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any, get_args

from holdfast_server.admin.tables import size, table
from holdfast_server.contract.buckets import BucketInfo, BucketQuota, EtagForm
from holdfast_server.contract.wording import about

_UNITS = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50,
}  # fmt: skip
_SIZE = re.compile(r"(\d+)(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi|)B?")

AddVerb = Callable[..., argparse.ArgumentParser]


def parse_size(text: str) -> int:
    """`10Gi`, `500M`, `1024`: bytes.  Raises ArgumentTypeError."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; give bytes, or 500M, 10Gi, 2Ti")
    return int(match[1]) * _UNITS[match[2]]


def add_bucket_verbs(bucket: argparse.ArgumentParser, add_verb: AddVerb, json_option: Callable[[Any], None]) -> None:
    verbs = bucket.add_subparsers(required=True, metavar="VERB")
    json_option(
        add_verb(
            verbs, "list", _list, "all buckets, what they hold and may hold",
            "List all buckets with their objects, versions and bytes, as of the last count and what is known to have "
            "been written since, and their quotas.",
        )
    )  # fmt: skip
    quota = add_verb(
        verbs, "quota", _quota, "how much a bucket may hold",
        "Show a bucket's quota, or set it.  Writes that would exceed it are refused with 403 QuotaExceeded; deletes "
        "never are.  What is given replaces the quota as a whole.",
    )  # fmt: skip
    quota.add_argument("bucket", metavar="BUCKET")
    quota.add_argument("--size", type=parse_size, metavar="SIZE", help="bytes, or 500M, 10Gi, 2Ti")
    quota.add_argument("--objects", type=int, metavar="COUNT", help="objects, replaced versions and delete markers")
    quota.add_argument("--clear", action="store_true", help="no quota any more")
    json_option(quota)
    etag = add_verb(
        verbs, "etag", _etag, "what ETags a bucket's objects get",
        "Show what ETags a bucket gives to what is written into it, or set it: MD5 as S3 has it, or, of what is larger "
        "than 64 KiB, opaque ones, which take less CPU and which clients do not take for an MD5.",
    )  # fmt: skip
    etag.add_argument("bucket", metavar="BUCKET")
    etag.add_argument("--set", choices=get_args(EtagForm), help="of what is written from now on")
    json_option(etag)


def _list(terminal: Any) -> int:
    found: list[BucketInfo] = terminal.client.buckets()
    if terminal.options.json:
        terminal.json(found)
        return 0
    now_ms = terminal.client.now_ms()
    rows = [
        (
            one.name, *_held(one), quota_text(one.quota),
            f"{about((now_ms - one.counted_ms) / 1000)} ago" if one.counted_ms else "not yet",
        )
        for one in found
    ]  # fmt: skip
    terminal.say(table(("BUCKET", "OBJECTS", "VERSIONS", "SIZE", "QUOTA", "COUNTED"), rows))
    return 0


def _held(one: BucketInfo) -> tuple[str, str, str]:
    """Objects, versions, size.  What was not counted yet may hold anything: no 0 for it."""
    if not one.counted_ms:
        return "-", "-", "-"
    return f"{one.objects:,}", f"{one.versions:,}", size(one.size_bytes)


def _quota(terminal: Any) -> int:
    options = terminal.options
    if options.clear:
        terminal.client.remove_bucket_quota(options.bucket)
    elif options.size is not None or options.objects is not None:
        terminal.client.put_bucket_quota(options.bucket, BucketQuota(size_bytes=options.size, objects=options.objects))
    quota = terminal.client.bucket_quota(options.bucket)
    if options.json:
        terminal.json(quota)
    else:
        terminal.say(f"{options.bucket}: {quota_text(quota)}")
    return 0


def _etag(terminal: Any) -> int:
    options = terminal.options
    if options.set is not None:
        terminal.client.put_bucket_etag(options.bucket, options.set)
    etag = terminal.client.bucket_etag(options.bucket)
    if options.json:
        terminal.json(etag)
    else:
        terminal.say(f"{options.bucket}: {etag.etag}")
    return 0


def quota_text(quota: BucketQuota) -> str:
    parts = [size(quota.size_bytes)] if quota.size_bytes is not None else []
    parts += [f"{quota.objects:,} objects"] if quota.objects is not None else []
    return ", ".join(parts) or "none"
