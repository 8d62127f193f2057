"""Signed calls to the storage pods: buckets over S3, users and policies over the admin API.

Every call is idempotent.  It goes to one pod after another until one answers; a pod that cannot be reached, or
answers 5xx, passes the call on; one that cannot be reached is asked last from then on, or each call would wait for it.
What the store refuses is an error with the store's own code and message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar
from urllib.parse import quote
from xml.etree import ElementTree

import aiohttp
import msgspec
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from holdfast_operator.credentials import KeyPair
from holdfast_operator.observe.trust import PLAIN, Reach
from holdfast_operator.provision.bucket_limits import shown_quota
from holdfast_operator.provision.bucket_settings import ABSENT_CODES, ETAG, OWNER, QUOTA
from holdfast_server.contract import admin, names

CALL_TIMEOUT_SECONDS = 10.0
MAX_ANSWER_SIZE_BYTES = 32 * 1024 * 1024
"""A store has up to 20,000 access keys, which are told in one answer, some 200 bytes each and the names of policies."""
BUCKETS_PER_PAGE = 1000
_NOT_NOW = "ServiceUnavailable"
"""A 503 about the one request: a setting that waits for every pod to be there, or for a later release."""
_ALREADY_OURS = "BucketAlreadyOwnedByYou"
ALREADY_THERE = "BucketAlreadyExists"
_ABSENT_CODES = ("NoSuchBucket", "NoSuchUser", "NoSuchPolicy", "NoSuchEntity")


class StoreError(Exception):
    """Root of the failures of calls to the store."""


class StoreUnavailable(StoreError):
    """No pod answered, or each with 5xx: the outcome is open; call again later."""


class StoreFailed(StoreUnavailable):
    """Pods answered, with 5xx; it may be about this one call."""


class StoreRefused(StoreError):
    """The store said no; `code` is its error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code


class StoreClient(Protocol):
    """The calls provisioning makes.  All idempotent; all raise StoreError subclasses only."""

    async def create_bucket(self, name: str, of_any_account: bool = False) -> None:
        """`of_any_account`: one that is another account's is there as well."""

    async def delete_bucket(self, name: str) -> None:
        """StoreRefused with code BucketNotEmpty where it holds anything."""

    async def bucket_setting(self, name: str, setting: str) -> bytes | None:
        """The document of a sub-resource, or of the admin API (see `bucket_settings`); None where there is none."""

    async def put_bucket_setting(self, name: str, setting: str, document: bytes | None) -> None:
        """None takes it away."""

    async def put_policy(self, name: str, document: Mapping[str, Any]) -> None: ...
    async def delete_policy(self, name: str) -> None: ...
    async def put_account(self, name: str, display_name: str) -> None: ...
    async def delete_account(self, name: str) -> None: ...
    async def account_names(self) -> dict[str, str]:
        """Declared ones: name → display name."""

    async def put_user(self, access_key: str, user: admin.UserSpec) -> None: ...
    async def delete_user(self, access_key: str) -> None: ...
    async def reseal_users(self) -> admin.Resealed: ...
    async def bucket_names(self) -> frozenset[str]: ...
    async def policy_names(self) -> frozenset[str]: ...
    async def list_users(self) -> dict[str, admin.UserInfo]:
        """By access key."""


class HttpStoreClient:
    """See `StoreClient`; `hosts` are the addresses of pods that are Ready."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        hosts: Sequence[str],
        root: KeyPair,
        region: str,
        reach: Reach = PLAIN,
        may_call: Callable[[], bool] = lambda: True,
    ) -> None:
        """`hosts` are asked in this order; `may_call`: asked before each call; while it is false the store counts as
        unavailable."""
        self._session = session
        self._may_call = may_call
        self._reach = reach
        self._hosts = list(hosts)
        self._signer = S3SigV4Auth(Credentials(root.access_key, root.secret_key), "s3", region)

    async def create_bucket(self, name: str, of_any_account: bool = False) -> None:
        try:
            await self._call("PUT", f"/{quote(name)}")
        except StoreRefused as error:
            if error.code != _ALREADY_OURS and not (of_any_account and error.code == ALREADY_THERE):
                raise

    async def delete_bucket(self, name: str) -> None:
        await self._delete(f"/{quote(name)}")

    async def bucket_setting(self, name: str, setting: str) -> bytes | None:
        if setting == QUOTA:
            answer = await self._call("GET", _setting_path(name, setting))
            return _decoded_quota(answer)
        if setting in (OWNER, ETAG):
            return await self._call("GET", _setting_path(name, setting))
        try:
            return await self._call("GET", f"/{quote(name)}?{setting}")
        except StoreRefused as error:
            if error.code in ABSENT_CODES:
                return None
            raise

    async def put_bucket_setting(self, name: str, setting: str, document: bytes | None) -> None:
        is_admin = setting in (QUOTA, OWNER, ETAG)
        path = _setting_path(name, setting) if is_admin else f"/{quote(name)}?{setting}"
        await self._call("DELETE" if document is None else "PUT", path, document or b"")

    async def put_policy(self, name: str, document: Mapping[str, Any]) -> None:
        await self._call("PUT", _admin_path("policies", name), msgspec.json.encode(document))

    async def delete_policy(self, name: str) -> None:
        await self._delete(_admin_path("policies", name))

    async def put_account(self, name: str, display_name: str) -> None:
        body = msgspec.json.encode(admin.AccountSpec(display_name=display_name))
        await self._call("PUT", _admin_path("accounts", name), body)

    async def delete_account(self, name: str) -> None:
        await self._delete(_admin_path("accounts", name))

    async def account_names(self) -> dict[str, str]:
        found = _decoded(await self._call("GET", f"{names.ADMIN_PREFIX}/accounts"), list[admin.AccountInfo])
        return {account.name: account.display_name for account in found if account.declared}

    async def put_user(self, access_key: str, user: admin.UserSpec) -> None:
        await self._call("PUT", _admin_path("users", access_key), msgspec.json.encode(user))

    async def delete_user(self, access_key: str) -> None:
        await self._delete(_admin_path("users", access_key))

    async def reseal_users(self) -> admin.Resealed:
        return _decoded(await self._call("POST", _admin_path("users", "reseal")), admin.Resealed)

    async def bucket_names(self) -> frozenset[str]:
        found: set[str] = set()
        token: str | None = ""
        while token is not None:
            after = f"continuation-token={quote(token, safe='')}&" if token else ""
            answer = await self._call("GET", f"/?{after}max-buckets={BUCKETS_PER_PAGE}")
            try:
                page = ElementTree.fromstring(answer)
            except ElementTree.ParseError as error:
                raise StoreUnavailable(f"the list of buckets cannot be read: {error}") from error
            found |= {name.text or "" for name in page.iterfind("{*}Buckets/{*}Bucket/{*}Name")}
            token = page.findtext("{*}ContinuationToken") or None
        return frozenset(found)

    async def policy_names(self) -> frozenset[str]:
        return frozenset(_decoded(await self._call("GET", f"{names.ADMIN_PREFIX}/policies"), list[str]))

    async def list_users(self) -> dict[str, admin.UserInfo]:
        found = _decoded(await self._call("GET", f"{names.ADMIN_PREFIX}/users"), list[admin.UserInfo])
        return {user.access_key: user for user in found}

    async def _delete(self, path: str) -> None:
        try:
            await self._call("DELETE", path)
        except StoreRefused as error:
            if error.code not in _ABSENT_CODES:
                raise

    async def _call(self, method: str, path: str, body: bytes = b"") -> bytes:
        last, code, message = "no pod is ready", "", ""
        for host in tuple(self._hosts):
            if not self._may_call():
                raise StoreUnavailable("not called: the operator's lease has run out")
            try:
                status, answer = await self._send(host, method, path, body)
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                last = f"{host}: {type(error).__name__}: {error}"
                self._hosts.remove(host)
                self._hosts.append(host)
                continue
            if status < 300:
                return answer
            code, message = _error_of(answer, status)
            if status < 500:
                raise StoreRefused(code, message)
            last = f"{host}: {status} {code} {message}".rstrip()
        if code == _NOT_NOW:
            raise StoreRefused(code, message)
        raise StoreFailed(last) if code else StoreUnavailable(last)

    async def _send(self, host: str, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        address = f"[{host}]" if ":" in host else host
        request = AWSRequest(method=method, url=f"{self._reach.scheme}://{address}:{names.S3_PORT}{path}", data=body)
        if body:
            request.headers["Content-Type"] = "application/json"
        self._signer.add_auth(request)
        prepared = request.prepare()
        async with (
            asyncio.timeout(CALL_TIMEOUT_SECONDS),
            self._session.request(
                method,
                prepared.url,
                data=body,
                headers=dict(prepared.headers),
                allow_redirects=False,
                **self._reach.request_options(),
            ) as response,
        ):
            return response.status, await _bounded(response)


_T = TypeVar("_T")


def _decoded(answer: bytes, kind: type[_T]) -> _T:
    """Raises StoreUnavailable for what is no such answer, or too long."""
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.MsgspecError as error:
        raise StoreUnavailable(f"an answer cannot be read: {error}") from error


def _decoded_quota(answer: bytes) -> bytes | None:
    """Raises StoreUnavailable."""
    try:
        return shown_quota(answer)
    except msgspec.MsgspecError as error:
        raise StoreUnavailable(f"an answer cannot be read: {error}") from error


def _setting_path(bucket: str, setting: str) -> str:
    """Of one that is the admin API's."""
    return f"{_admin_path('buckets', bucket)}/{setting}"


def _admin_path(collection: str, name: str) -> str:
    return f"{names.ADMIN_PREFIX}/{collection}/{quote(name, safe='')}"


def _error_of(answer: bytes, status: int) -> tuple[str, str]:
    """Code and message of an error body: S3's XML or the admin API's JSON."""
    try:
        error = msgspec.json.decode(answer, type=admin.AdminError)
        return error.code, error.message
    except msgspec.MsgspecError:
        pass
    try:
        root = ElementTree.fromstring(answer)
    except ElementTree.ParseError:
        return f"HTTP{status}", ""
    return root.findtext("Code") or f"HTTP{status}", root.findtext("Message") or ""


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """Raises ClientPayloadError for an answer that is too long to be trusted."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_ANSWER_SIZE_BYTES:
            raise aiohttp.ClientPayloadError(f"the answer is longer than {MAX_ANSWER_SIZE_BYTES} bytes")
    return bytes(body)
