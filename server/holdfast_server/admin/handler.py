"""Requests of the admin API: who may, and who answers.

A change is acknowledged when its document is committed; this pod re-reads it first, the others are told and
re-read it within moments (at the latest by their periodic refresh).  Every fault of a body is a 400 that names
the field; nothing is changed then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from holdfast_server.admin.bucket_requests import BucketRequests
from holdfast_server.admin.heal_requests import Decide, HealRequests
from holdfast_server.admin.identity_requests import IdentityRequests
from holdfast_server.admin.overview import TenantView, tenant_info
from holdfast_server.api.dispatch import Identify
from holdfast_server.api.failures import RETRY_AFTER_SECONDS, to_s3_error
from holdfast_server.api.services import IncomingBody, Services
from holdfast_server.auth.access import may_administer
from holdfast_server.auth.verified import Identity
from holdfast_server.contract import names
from holdfast_server.contract.admin import AdminError
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.payload import verify_small_body
from holdfast_server.s3.request import Request, Response, percent_decode

MAX_BODY_SIZE_BYTES = 64 * 1024

_JSON = {"content-type": "application/json"}

ReadBody = Callable[[], Awaitable[bytes]]


class AdminApi:
    """Mounted by the wiring at `names.ADMIN_PREFIX`."""

    def __init__(self, services: Services, view: TenantView, decide: Decide) -> None:
        self._services = services
        self._view = view
        self._heal = HealRequests(services, view, decide)
        self._who = IdentityRequests(services)
        self._buckets = BucketRequests(services)

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
                usage = await self._buckets.usage()
                return _json(tenant_info(await self._view.look(), self._services.pod_name, usage))
            case ("GET", ["buckets"]):
                _require(identity, "admin:DataUsageInfo")
                return _json(await self._buckets.list_buckets())
            case ("GET", ["buckets", name, "quota"]):
                _require(identity, "admin:GetBucketQuota")
                return _json(await self._buckets.quota(name))
            case ("PUT", ["buckets", name, "quota"]):
                _require(identity, "admin:SetBucketQuota")
                await self._buckets.put_quota(name, await read())
                return _done()
            case ("DELETE", ["buckets", name, "quota"]):
                _require(identity, "admin:SetBucketQuota")
                await self._buckets.delete_quota(name)
                return Response(status=204)
            case ("GET", ["buckets", name, "owner"]):
                _require(identity, "admin:GetBucketOwner")
                return _json(await self._buckets.owner(name))
            case ("PUT", ["buckets", name, "owner"]):
                _require(identity, "admin:SetBucketOwner")
                await self._buckets.put_owner(name, await read())
                return _done()
            case ("GET", ["buckets", name, "etag"]):
                _require(identity, "admin:GetBucketEtag")
                return _json(await self._buckets.etag(name))
            case ("PUT", ["buckets", name, "etag"]):
                _require(identity, "admin:SetBucketEtag")
                await self._buckets.put_etag(name, await read())
                return _done()
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
                return _json(await self._who.list_users())
            case ("POST", ["users", "reseal"]):
                _require(identity, "admin:CreateUser")
                return _json(await self._who.reseal())
            case ("PUT", ["users", access_key]):
                _require(identity, "admin:CreateUser")
                await self._who.put_user(access_key, await read())
                return _done()
            case ("DELETE", ["users", access_key]):
                _require(identity, "admin:DeleteUser")
                await self._who.delete_user(access_key)
                return Response(status=204)
            case ("GET", ["accounts"]):
                _require(identity, "admin:ListUsers")
                return _json(await self._who.list_accounts())
            case ("PUT", ["accounts", name]):
                _require(identity, "admin:CreateUser")
                await self._who.put_account(name, await read())
                return _done()
            case ("DELETE", ["accounts", name]):
                _require(identity, "admin:DeleteUser")
                await self._who.delete_account(name)
                return Response(status=204)
            case ("GET", ["policies"]):
                _require(identity, "admin:ListUserPolicies")
                return _json(await self._who.policy_names())
            case ("PUT", ["policies", name]):
                _require(identity, "admin:CreatePolicy")
                await self._who.put_policy(name, await read())
                return _done()
            case ("DELETE", ["policies", name]):
                _require(identity, "admin:DeletePolicy")
                await self._who.delete_policy(name)
                return Response(status=204)
        raise S3Error("MethodNotAllowed", f"{request.method} {request.raw_path} is no request of the admin API.")


def _require(identity: Identity, action: str) -> None:
    """Root, or a user whose policies allow it (`consoleAdmin` allows all of it).  Raises AccessDenied."""
    if not may_administer(identity.principal, action):
        raise S3Error("AccessDenied")


def _done() -> Response:
    return Response(status=200, headers=dict(_JSON), body=b"{}")


async def _read(identity: Identity, request: Request, body: IncomingBody) -> bytes:
    taken = bytearray()
    async for piece in body.pieces():
        taken += piece
        if len(taken) > 2 * MAX_BODY_SIZE_BYTES:
            raise S3Error("MaxMessageLengthExceeded", MaxMessageLengthBytes=MAX_BODY_SIZE_BYTES)
    return verify_small_body(request.headers, identity.context, bytes(taken), MAX_BODY_SIZE_BYTES)


def _json(value: object, status: int = 200) -> Response:
    return Response(status=status, headers=dict(_JSON), body=msgspec.json.encode(value))
