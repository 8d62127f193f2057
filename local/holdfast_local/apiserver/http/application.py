"""The HTTP application: authenticate, find out what is asked for, authorize, answer; errors become `Status` objects."""

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from holdfast_local.apiserver import errors
from holdfast_local.apiserver.access.authorizer import Authorizer
from holdfast_local.apiserver.access.identity import ANONYMOUS, Authenticator, User
from holdfast_local.apiserver.access.impersonation import impersonated
from holdfast_local.apiserver.access.reviews import review
from holdfast_local.apiserver.access.service_account_tokens import request_token
from holdfast_local.apiserver.errors import StatusError
from holdfast_local.apiserver.http import discovery, openapi
from holdfast_local.apiserver.http.answers import MAX_BODY_SIZE_BYTES, json_answer, read_body
from holdfast_local.apiserver.http.objects import Call, Objects
from holdfast_local.apiserver.http.targets import Target, parse_target
from holdfast_local.apiserver.resources import Object, Registry
from holdfast_local.apiserver.storage.store import Store
from holdfast_local.apiserver.writing import Writer

_LOGGER = logging.getLogger(__name__)
_HEALTH_PATHS = ("/healthz", "/livez", "/readyz")
_REVIEW_GROUPS = ("authorization.k8s.io", "authentication.k8s.io")
_ABSENT_SUBRESOURCES = ("exec", "attach", "portforward", "proxy", "ephemeralcontainers")
MAX_HEADER_SIZE_BYTES = 64 * 1024

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Front:
    """Everything below the root path."""

    def __init__(
        self,
        writer: Writer,
        registry: Registry,
        authenticator: Authenticator,
        authorizer: Authorizer,
        is_closing: Callable[[], bool],
    ) -> None:
        self._writer = writer
        self._registry = registry
        self._store: Store = writer.store
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._objects = Objects(writer, is_closing)
        self._documents: dict[str, tuple[int, Object | None]] = {}

    def application(self) -> web.Application:
        """An aiohttp application that answers every path."""
        application = web.Application(client_max_size=MAX_BODY_SIZE_BYTES)
        application.router.add_route("*", "/{path:.*}", self.handle)
        return application

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Every request comes through here."""
        try:
            return await self._answer(request)
        except StatusError as error:
            response = json_answer(error.body(), error.code)
            if error.code == 401:
                response.headers["WWW-Authenticate"] = 'Bearer realm="holdfast-local"'
            return response
        except OSError as error:
            # The state could not be written; nothing of the request was done.
            _LOGGER.error("%s %s: %s", request.method, request.path, error)
            return json_answer(errors.internal(str(error)).body(), 500)
        except Exception as error:
            _LOGGER.exception("%s %s", request.method, request.path)
            return json_answer(errors.internal(f"{type(error).__name__}: {error}").body(), 500)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        user = self._authenticator.authenticate(request.headers.get("Authorization"))
        if user is None:
            raise errors.unauthorized()
        user = impersonated(user, request.headers, self._authorizer)
        if request.path in _HEALTH_PATHS:
            return web.Response(text="ok")
        watching = request.query.get("watch", "").lower() in ("true", "1")
        target = parse_target(request.path, request.method, watching)
        if target is None:
            return await self._answer_path(request, user)
        if target.group in _REVIEW_GROUPS:
            return await self._answer_review(request, user, target)
        self._authorizer.require(user, target)
        resource = self._registry.find(target.group, target.version, target.plural)
        if resource is None:
            raise errors.no_such_path()
        if (resource.plural, target.subresource) == ("serviceaccounts", "token"):
            body = await read_body(request, optional=True)
            answer = request_token(self._writer, resource, self._authenticator, target, body)
            return json_answer(answer, status=201)
        if target.subresource in _ABSENT_SUBRESOURCES:
            raise errors.not_in_stand_in(target.subresource)
        return await self._objects.serve(Call(request, target, resource))

    async def _answer_review(self, request: web.Request, user: User, target: Target) -> web.StreamResponse:
        resource = self._registry.find(target.group, target.version, target.plural)
        if resource is None:
            raise errors.no_such_path()
        if target.verb != "create":
            raise errors.method_not_allowed()
        if resource.kind not in ("SelfSubjectAccessReview", "SelfSubjectRulesReview", "SelfSubjectReview"):
            self._authorizer.require(user, target)
        elif user == ANONYMOUS:
            raise errors.unauthorized()
        body = await read_body(request)
        return json_answer(review(resource, user, body, self._authorizer, self._authenticator), status=201)

    async def _answer_path(self, request: web.Request, user: User) -> web.StreamResponse:
        path = "/" + request.path.strip("/")
        if path != "/version":
            self._authorizer.require_path(user, request.method.lower(), request.path)
        if request.method not in ("GET", "HEAD"):
            raise errors.method_not_allowed()
        aggregated = "as=APIGroupDiscoveryList" in request.headers.get("Accept", "")
        if path in ("/api", "/apis") and aggregated and "v=v2;" in request.headers.get("Accept", ""):
            body = discovery.aggregated(self._registry, core=path == "/api")
            response = json_answer(body)
            response.headers["Content-Type"] = discovery.AGGREGATED
            return response
        if path == "/openapi/v2" and request.headers.get("Accept", "").startswith(openapi.PROTOBUF_V2_FORMS):
            return web.Response(body=openapi.document_v2_in_protobuf(), content_type=openapi.PROTOBUF_V2)
        found = self._document(path)
        if found is None:
            raise errors.no_such_path()
        return json_answer(found)

    def _document(self, path: str) -> Object | None:
        """Discovery and OpenAPI documents, remade when the served kinds change."""
        known = self._documents.get(path)
        if known is not None and known[0] == self._registry.generation:
            return known[1]
        found = self._make_document([part for part in path.split("/") if part])
        if found is not None:
            self._documents[path] = (self._registry.generation, found)
        return found

    def _make_document(self, parts: list[str]) -> Object | None:
        groups = self._registry.groups()
        match parts:
            case []:
                return {"paths": ["/api", "/apis", "/healthz", "/openapi/v2", "/openapi/v3", "/version"]}
            case ["version"]:
                return discovery.version_info()
            case ["api"]:
                return discovery.api_versions()
            case ["apis"]:
                return discovery.api_groups(self._registry)
            case ["apis", group] if group in groups:
                return discovery.api_group(group, list(groups[group]))
            case ["api", version] if version in groups[""]:
                return discovery.resource_list("", version, groups[""][version])
            case ["apis", group, version] if version in groups.get(group, {}):
                return discovery.resource_list(group, version, groups[group][version])
            case ["openapi", "v2"]:
                return openapi.document_v2(self._registry, self._store)
            case ["openapi", "v3"]:
                return openapi.index(self._registry)
            case ["openapi", "v3", "api", version]:
                return openapi.document(self._registry, self._store, "", version)
            case ["openapi", "v3", "apis", group, version]:
                return openapi.document(self._registry, self._store, group, version)
        return None
