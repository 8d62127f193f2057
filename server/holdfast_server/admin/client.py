"""The asking side of the admin API: signed JSON over one HTTP connection per call, blocking, for the command line.

Every failure is an `AdminFailure` whose message says what to look at; nothing else is raised.  A call is never
repeated: what changes something is idempotent, so the person who types may repeat it.
"""

from __future__ import annotations

import hashlib
import http.client
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from holdfast_server.contract import names
from holdfast_server.contract.admin import (
    AccountInfo,
    AccountSpec,
    AdminError,
    HealStatus,
    Resolve,
    Resolved,
    ScanStarted,
    StuckObject,
    TenantInfo,
    UserInfo,
    UserSpec,
)
from holdfast_server.contract.buckets import BucketEtag, BucketInfo, BucketQuota, EtagForm
from holdfast_server.s3.signing import KeyPair, sign_headers

TIMEOUT_SECONDS = 20.0
"""Longer than a pod takes to find out which peers are silent."""
MAX_ANSWER_SIZE_BYTES = 64 << 20

T = TypeVar("T")


class AdminFailure(Exception):
    """The call did not succeed; the message is for people."""


class Unreachable(AdminFailure):
    """Nobody answers at the endpoint, or what answers is no Holdfast."""


class Refused(AdminFailure):
    """The pod said no; `code` and `status` are the API's."""

    def __init__(self, code: str, message: str, status: int) -> None:
        super().__init__(message)
        self.code, self.status = code, status


@dataclass(frozen=True, slots=True)
class AdminClient:
    """`endpoint` is `http://HOST:PORT` or `https://…`; `ca_file` verifies the latter in place of the system's."""

    endpoint: str
    keys: KeyPair = field(repr=False)
    ca_file: str | None = None
    timeout_seconds: float = TIMEOUT_SECONDS
    now_ms: Callable[[], int] = lambda: int(time.time() * 1000)

    def info(self) -> TenantInfo:
        return self._get("/info", TenantInfo)

    def heal_status(self) -> HealStatus:
        return self._get("/heal", HealStatus)

    def start_scan(self) -> ScanStarted:
        return _decoded(self._call("POST", "/heal/scan"), ScanStarted)

    def stuck(self) -> list[StuckObject]:
        return self._get("/heal/stuck", list[StuckObject])

    def resolve(self, request: Resolve) -> Resolved:
        return _decoded(self._call("POST", "/heal/resolve", msgspec.json.encode(request)), Resolved)

    def users(self) -> list[UserInfo]:
        return self._get("/users", list[UserInfo])

    def put_user(self, access_key: str, user: UserSpec) -> None:
        self._call("PUT", f"/users/{_segment(access_key)}", msgspec.json.encode(user))

    def remove_user(self, access_key: str) -> None:
        self._call("DELETE", f"/users/{_segment(access_key)}")

    def accounts(self) -> list[AccountInfo]:
        return self._get("/accounts", list[AccountInfo])

    def put_account(self, name: str, account: AccountSpec) -> None:
        self._call("PUT", f"/accounts/{_segment(name)}", msgspec.json.encode(account))

    def remove_account(self, name: str) -> None:
        self._call("DELETE", f"/accounts/{_segment(name)}")

    def policies(self) -> list[str]:
        return self._get("/policies", list[str])

    def put_policy(self, name: str, document: bytes) -> None:
        self._call("PUT", f"/policies/{_segment(name)}", document)

    def remove_policy(self, name: str) -> None:
        self._call("DELETE", f"/policies/{_segment(name)}")

    def buckets(self) -> list[BucketInfo]:
        return self._get("/buckets", list[BucketInfo])

    def bucket_quota(self, name: str) -> BucketQuota:
        return self._get(f"/buckets/{_segment(name)}/quota", BucketQuota)

    def put_bucket_quota(self, name: str, quota: BucketQuota) -> None:
        self._call("PUT", f"/buckets/{_segment(name)}/quota", msgspec.json.encode(quota))

    def bucket_etag(self, name: str) -> BucketEtag:
        return self._get(f"/buckets/{_segment(name)}/etag", BucketEtag)

    def put_bucket_etag(self, name: str, etag: EtagForm) -> None:
        self._call("PUT", f"/buckets/{_segment(name)}/etag", msgspec.json.encode(BucketEtag(etag=etag)))

    def remove_bucket_quota(self, name: str) -> None:
        self._call("DELETE", f"/buckets/{_segment(name)}/quota")

    def _get(self, path: str, result: type[T]) -> T:
        return _decoded(self._call("GET", path), result)

    def _call(self, method: str, path: str, body: bytes = b"") -> bytes:
        raw_path = names.ADMIN_PREFIX + path
        self._check_keys()
        connection, host = self._connection()
        headers = {"host": host, "content-length": str(len(body))}
        payload_hash = hashlib.sha256(body).hexdigest()
        headers = sign_headers(self.keys, method, raw_path, "", headers, self.now_ms(), payload_hash)
        try:
            connection.request(method, raw_path, body, headers)
            response = connection.getresponse()
            answer = response.read(MAX_ANSWER_SIZE_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self.endpoint} cannot be reached: {_reason(error)}") from error
        finally:
            connection.close()
        if response.status >= 300:
            raise _refusal(response.status, answer, self.endpoint)
        return answer

    def _check_keys(self) -> None:
        """What stands in a header cannot hold what ends one: a key read from a file may bring a line's end along."""
        told = {"access key": self.keys.access_key, "session token": self.keys.session_token}
        for what, value in told.items():
            if not (value.isascii() and value.isprintable()):
                raise AdminFailure(f"the {what} has a character that none has, a line's end perhaps")

    def _connection(self) -> tuple[http.client.HTTPConnection, str]:
        """Unconnected, with the Host header.  Raises Unreachable for an endpoint that is no URL."""
        try:
            url = urlsplit(self.endpoint)
            host, port = url.hostname, url.port
            if not (url.netloc.isascii() and url.netloc.isprintable()) or " " in url.netloc:
                raise ValueError(f"{url.netloc!r} is no name of a host")
            # As the resolver does it, which fails where a label is missing: `logs..svc`, of a variable that was empty.
            (host or "").encode("idna")
        except UnicodeError as error:
            raise Unreachable(f"endpoint {self.endpoint!r}: {host!r} is no name of a host") from error
        except ValueError as error:
            raise Unreachable(f"endpoint {self.endpoint!r} is no URL: {error}") from error
        if url.scheme not in ("http", "https") or not host or url.path not in ("", "/"):
            raise Unreachable(f"endpoint {self.endpoint!r} is not of the form http://HOST:PORT")
        if url.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=self.timeout_seconds), url.netloc
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise Unreachable(f"CA file {self.ca_file!r} cannot be used: {error}") from error
        return http.client.HTTPSConnection(host, port, timeout=self.timeout_seconds, context=context), url.netloc


def _segment(name: str) -> str:
    return quote(name, safe="")


def _decoded(answer: bytes, result: Any) -> Any:
    try:
        return msgspec.json.decode(answer, type=result)
    except msgspec.MsgspecError as error:
        raise Unreachable(f"the answer is not what this version expects: {error}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


_ADVICE = {
    "InvalidAccessKeyId": "the store knows no such access key",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key",
    "AccessDenied": "this user may not: it needs the root keys, or a user with the policy consoleAdmin",
    "RequestTimeTooSkewed": "this machine's clock and the store's differ by more than 15 minutes",
}


def _refusal(status: int, answer: bytes, endpoint: str) -> AdminFailure:
    try:
        error = msgspec.json.decode(answer, type=AdminError)
    except msgspec.MsgspecError:
        return Unreachable(f"{endpoint} answers {status}, but not as a Holdfast does")
    advice = _ADVICE.get(error.code)
    return Refused(error.code, f"{error.code}: {advice or error.message or status}", status)
