"""Requests of the admin API: who may, what is valid, which documents change.

A change is acknowledged when its document is committed; this pod re-reads it first, the others are told and
re-read it within moments (at the latest by their periodic refresh).  Every fault of a body is a 400 that names
the field; nothing is changed then.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import msgspec

from holdfast_server.admin.heal_requests import Decide, HealRequests
from holdfast_server.admin.overview import TenantView, tenant_info
from holdfast_server.api.dispatch import Identify
from holdfast_server.api.failures import RETRY_AFTER_SECONDS, to_s3_error
from holdfast_server.api.identities import MAX_ACCESS_KEY_LENGTH, POLICY_PREFIX, USER_PREFIX, UserDocument
from holdfast_server.api.services import DOCUMENTS_TOPIC, IncomingBody, Services
from holdfast_server.auth.access import may_administer
from holdfast_server.auth.policy import PolicyError, parse_policy
from holdfast_server.auth.principal import ROOT_NAME
from holdfast_server.auth.verified import Identity
from holdfast_server.contract import names
from holdfast_server.contract.admin import AdminError, Resealed, UserInfo, UserSpec
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.payload import verify_small_body
from holdfast_server.s3.request import Request, Response, percent_decode

MAX_BODY_SIZE_BYTES = 64 * 1024
MIN_ACCESS_KEY_LENGTH = 3
MIN_SECRET_KEY_LENGTH = 8
MAX_SECRET_KEY_LENGTH = 256
MAX_POLICIES_PER_USER = 64
MAX_FORMER_SECRETS = 8
MAX_NAME_LENGTH = 128

_NAME = re.compile(r"[A-Za-z0-9_.@=+,-]+")
_JSON = {"content-type": "application/json"}

ReadBody = Callable[[], Awaitable[bytes]]


class AdminApi:
    """Mounted by the wiring at `names.ADMIN_PREFIX`."""

    def __init__(self, services: Services, view: TenantView, decide: Decide) -> None:
        self._services = services
        self._view = view
        self._heal = HealRequests(services, view, decide)

    async def handle(self, identify: Identify, request: Request, body: IncomingBody) -> Response:
        """Never raises but CancelledError; failures are JSON, a bad signature too."""
        try:
            identity = await identify()
            segments = [
                percent_decode(part) for part in request.raw_path.removeprefix(names.ADMIN_PREFIX + "/").split("/")
            ]
            return await self._route(identity, request, segments, lambda: _read(identity, request, body))
        except Exception as error:
            told = to_s3_error(error)
            answer = _json(AdminError(code=told.code, message=told.message), told.status)
            if told.status == 503:
                answer.headers["retry-after"] = str(RETRY_AFTER_SECONDS)
            return answer

    async def _route(self, identity: Identity, request: Request, segments: list[str], read: ReadBody) -> Response:
        match (request.method, segments):
            case ("GET", ["info"]):
                _require(identity, "admin:ServerInfo")
                return _json(tenant_info(await self._view.look(), self._services.pod_name))
            case ("GET", ["heal"]):
                _require(identity, "admin:Heal")
                return _json(await self._heal.status())
            case ("GET", ["heal", "stuck"]):
                _require(identity, "admin:Heal")
                return _json(await self._heal.stuck())
            case ("POST", ["heal", "scan"]):
                _require(identity, "admin:Heal")
                return _json(await self._heal.start_scan())
            case ("POST", ["heal", "resolve"]):
                _require(identity, "admin:Heal")
                return _json(await self._heal.resolve(await read()))
            case ("GET", ["users"]):
                _require(identity, "admin:ListUsers")
                return await self._list_users()
            case ("POST", ["users", "reseal"]):
                _require(identity, "admin:CreateUser")
                return await self._reseal()
            case ("PUT", ["users", access_key]):
                _require(identity, "admin:CreateUser")
                return await self._put_user(access_key, await read())
            case ("DELETE", ["users", access_key]):
                _require(identity, "admin:DeleteUser")
                return await self._delete(USER_PREFIX + access_key)
            case ("GET", ["policies"]):
                _require(identity, "admin:ListUserPolicies")
                await self._services.identities.refresh()
                return _json(self._services.identities.policy_names())
            case ("PUT", ["policies", name]):
                _require(identity, "admin:CreatePolicy")
                return await self._put_policy(name, await read())
            case ("DELETE", ["policies", name]):
                _require(identity, "admin:DeletePolicy")
                self._refuse_builtin(name)
                return await self._delete(POLICY_PREFIX + name)
        raise S3Error("MethodNotAllowed", f"{request.method} {request.raw_path} is no request of the admin API.")

    async def _list_users(self) -> Response:
        await self._services.identities.refresh()
        return _json(
            [
                UserInfo(
                    access_key=user.access_key,
                    name=user.name,
                    policies=list(user.policies),
                    enabled=user.enabled,
                    account=user.account,
                )
                for user in self._services.identities.users()
            ]
        )

    async def _reseal(self) -> Response:
        told = await self._services.identities.reseal()
        return _json(Resealed(done=told.done, left=told.left, unreadable=told.unreadable))

    async def _put_user(self, access_key: str, body: bytes) -> Response:
        try:
            spec = msgspec.json.decode(body, type=UserSpec)
        except msgspec.MsgspecError as error:
            raise _bad(str(error)) from error
        _check_user(access_key, spec, self._services.identities.root_access_keys)
        seal = self._services.identities.secrets.seal
        document = UserDocument(
            secret=seal(access_key, spec.secret_key),
            former=[seal(access_key, former) for former in spec.former_secret_keys],
            name=spec.name,
            policies=spec.policies,
            enabled=spec.enabled,
            account=spec.account,
            changed_ms=self._services.clock.now_ms(),
        )
        return await self._put(USER_PREFIX + access_key, msgspec.json.encode(document))

    async def _put_policy(self, name: str, body: bytes) -> Response:
        if len(name) > MAX_NAME_LENGTH or not _NAME.fullmatch(name):
            raise _bad(f"name: {name!r} must be 1 to {MAX_NAME_LENGTH} of A-Z a-z 0-9 _.@=+,-")
        self._refuse_builtin(name)
        try:
            parse_policy(body)
        except PolicyError as error:
            raise S3Error("MalformedPolicy", str(error)) from error
        return await self._put(POLICY_PREFIX + name, body)

    def _refuse_builtin(self, name: str) -> None:
        if self._services.identities.is_builtin(name):
            raise _bad(f"name: {name!r} is built in and cannot be changed")

    async def _put(self, document_name: str, body: bytes) -> Response:
        await self._services.objects.put_document(document_name, body)
        await self._tell(document_name)
        return Response(status=200, headers=dict(_JSON), body=b"{}")

    async def _delete(self, document_name: str) -> Response:
        await self._services.objects.delete_document(document_name)
        await self._tell(document_name)
        return Response(status=204)

    async def _tell(self, document_name: str) -> None:
        await self._services.identities.announced([document_name])
        await self._services.announce(DOCUMENTS_TOPIC, [document_name])


def _require(identity: Identity, action: str) -> None:
    """Root, or a user whose policies allow it (`consoleAdmin` allows all of it).  Raises AccessDenied."""
    if not may_administer(identity.principal, action):
        raise S3Error("AccessDenied")


def _check_user(access_key: str, spec: UserSpec, root_access_keys: frozenset[str]) -> None:
    """Raises InvalidArgument with every fault, each with its field."""
    faults = []
    if not MIN_ACCESS_KEY_LENGTH <= len(access_key) <= MAX_ACCESS_KEY_LENGTH or not _NAME.fullmatch(access_key):
        faults.append(f"accessKey: must be {MIN_ACCESS_KEY_LENGTH} to {MAX_ACCESS_KEY_LENGTH} of A-Z a-z 0-9 _.@=+,-")
    if access_key in root_access_keys:
        faults.append("accessKey: is the root user's")
    if len(spec.former_secret_keys) > MAX_FORMER_SECRETS:
        faults.append(f"formerSecretKeys: at most {MAX_FORMER_SECRETS}")
    sizes = [len(secret) for secret in (spec.secret_key, *spec.former_secret_keys)]
    if not all(MIN_SECRET_KEY_LENGTH <= size <= MAX_SECRET_KEY_LENGTH for size in sizes):
        faults.append(f"secretKey: must have {MIN_SECRET_KEY_LENGTH} to {MAX_SECRET_KEY_LENGTH} characters")
    if spec.name and (len(spec.name) > MAX_NAME_LENGTH or not _NAME.fullmatch(spec.name)):
        faults.append(f"name: must be at most {MAX_NAME_LENGTH} of A-Z a-z 0-9 _.@=+,-")
    if spec.account and (
        len(spec.account) > MAX_NAME_LENGTH or not _NAME.fullmatch(spec.account) or spec.account == ROOT_NAME
    ):
        faults.append(f"account: must be at most {MAX_NAME_LENGTH} of A-Z a-z 0-9 _.@=+,- and not {ROOT_NAME!r}")
    if len(spec.policies) > MAX_POLICIES_PER_USER:
        faults.append(f"policies: at most {MAX_POLICIES_PER_USER}")
    if faults:
        raise _bad("; ".join(faults))


def _bad(message: str) -> S3Error:
    return S3Error("InvalidArgument", message)


async def _read(identity: Identity, request: Request, body: IncomingBody) -> bytes:
    taken = bytearray()
    async for piece in body.pieces():
        taken += piece
        if len(taken) > 2 * MAX_BODY_SIZE_BYTES:
            raise S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=MAX_BODY_SIZE_BYTES)
    return verify_small_body(request.headers, identity.context, bytes(taken), MAX_BODY_SIZE_BYTES)


def _json(value: object, status: int = 200) -> Response:
    return Response(status=status, headers=dict(_JSON), body=msgspec.json.encode(value))
