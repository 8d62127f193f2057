"""Checks of policy documents as clients send them.  Stored as they came; answered percent-encoded, as IAM does."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from urllib.parse import quote

from holdfast_server.auth.policy import PolicyError, parse_policy, parse_trust_policy
from holdfast_server.iam.errors import IamError

MAX_POLICY_NAME = 128
MAX_INLINE_SIZE = {"user": 2048, "group": 5120, "role": 10240}
"""Characters of all inline policies of one, blanks not counted."""
MAX_MANAGED_SIZE = 6144
MAX_TRUST_SIZE = 4096
MAX_SESSION_SIZE = 2048


def check_identity_policy(text: str, max_size: int) -> str:
    """The text itself.  Raises MalformedPolicyDocument, LimitExceeded."""
    _check_size([text], max_size)
    try:
        parse_policy(text)
    except PolicyError as error:
        raise malformed(str(error)) from error
    _check_sids(text)
    return text


def check_trust_policy(text: str) -> str:
    _check_size([text], MAX_TRUST_SIZE)
    try:
        parse_trust_policy(text)
    except PolicyError as error:
        raise malformed(str(error)) from error
    _check_sids(text)
    return text


def check_inline_sizes(kind: str, inline: Mapping[str, str]) -> None:
    _check_size(inline.values(), MAX_INLINE_SIZE[kind])


def _check_size(texts: Iterable[str], max_size: int) -> None:
    size = sum(len("".join(text.split())) for text in texts)
    if size > max_size:
        raise IamError("LimitExceeded", f"Maximum policy size of {max_size} bytes exceeded.")


def _check_sids(text: str) -> None:
    statements = json.loads(text)["Statement"]
    sids = [one["Sid"] for one in (statements if isinstance(statements, list) else [statements]) if "Sid" in one]
    if any(not isinstance(sid, str) for sid in sids):
        raise malformed("Sid: must be a string")
    if len(set(sids)) != len(sids):
        raise malformed("Statement IDs (SID) in a single policy must be unique.")


def malformed(message: str) -> IamError:
    return IamError("MalformedPolicyDocument", message)


def shown_text(text: str) -> str:
    return quote(text, safe="")
