"""Requests for objects: get, list, watch, create, update, patch, apply, delete, and the subresources.

Handlers translate between HTTP and `writing`/`deleting`; they hold no rules of their own.
"""

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from holdfast_local.apiserver import errors
from holdfast_local.apiserver.controllers.disruption import evict
from holdfast_local.apiserver.deleting import DeleteOptions, delete
from holdfast_local.apiserver.http.answers import (
    OBJECT,
    PARTIAL,
    TABLE,
    accepted_form,
    json_answer,
    partial_metadata,
    read_body,
)
from holdfast_local.apiserver.http.logs import serve_log
from holdfast_local.apiserver.http.scale import read_scale, scaled
from holdfast_local.apiserver.http.tables import table
from holdfast_local.apiserver.http.targets import Target
from holdfast_local.apiserver.http.watches import Watch, WatchOptions
from holdfast_local.apiserver.kinds.versions import from_storage
from holdfast_local.apiserver.resources import Object, Resource
from holdfast_local.apiserver.selection import parse_selection
from holdfast_local.apiserver.writing import APPLY_PATCH, MERGE_PATCH, WriteOptions, Writer

_FIELD_VALIDATION = ("Ignore", "Warn", "Strict")


@dataclass(frozen=True)
class Call:
    """A routed and authorized request for a served kind."""

    request: web.Request
    target: Target
    resource: Resource

    @property
    def query(self) -> dict[str, str]:
        return dict(self.request.query)


class Objects:
    """Serves the objects of every stored kind."""

    def __init__(self, writer: Writer, is_closing: Callable[[], bool]) -> None:
        self._writer = writer
        self._is_closing = is_closing

    async def serve(self, call: Call) -> web.StreamResponse:
        """Raises StatusError; OSError when the state cannot be written."""
        target, resource = call.target, call.resource
        if target.subresource and target.subresource not in resource.subresources:
            raise errors.no_such_path()
        if target.namespace and not resource.namespaced:
            raise errors.no_such_path()
        handler = {
            "get": self._get,
            "list": self._list,
            "watch": self._watch,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_collection,
        }.get(target.verb)
        if handler is None or (target.verb == "create" and target.name and not target.subresource):
            raise errors.method_not_allowed()
        if resource.namespaced and not target.namespace and target.verb not in ("list", "watch"):
            raise errors.no_such_path()
        return await handler(call)

    async def _get(self, call: Call) -> web.StreamResponse:
        obj = self._writer.get(call.resource, call.target.namespace, call.target.name)
        if call.target.subresource == "log":
            return await serve_log(call.request, obj, lambda: self._is_closing() or self._has_ended(obj))
        if call.target.subresource == "scale":
            return json_answer(read_scale(call.resource, obj))
        form = accepted_form(call.request)
        return json_answer(self._shaped(call, [obj], form, obj["metadata"]["resourceVersion"], single=obj))

    def _has_ended(self, pod: Object) -> bool:
        """Nothing more will come from this pod."""
        address = self._writer.store.by_uid(pod["metadata"]["uid"])
        found = self._writer.store.at(address) if address else None
        return found is None or (found.get("status") or {}).get("phase") in ("Succeeded", "Failed")

    async def _list(self, call: Call) -> web.StreamResponse:
        form = accepted_form(call.request)
        store = self._writer.store
        objects = self._selected(call)
        return json_answer(self._shaped(call, objects, form, str(store.revision)))

    def _selected(self, call: Call) -> list[Object]:
        resource, query = call.resource, call.query
        selects = parse_selection(resource, query.get("labelSelector", ""), query.get("fieldSelector", ""))
        stored = self._writer.store.list(resource.storage, call.target.namespace)
        return [obj for obj in (from_storage(resource, entry) for entry in stored) if selects(obj)]

    def _shaped(
        self, call: Call, objects: Sequence[Object], form: str, revision: str, single: Object | None = None
    ) -> Object:
        resource = call.resource
        if form == TABLE:
            include = call.query.get("includeObject", "Metadata")
            return table(resource, objects, {"resourceVersion": revision}, self._now(), include=include)
        if single is not None:
            return partial_metadata(single) if form == PARTIAL else single
        if form == PARTIAL:
            partials = [partial_metadata(obj) for obj in objects]
            kind, api_version = "PartialObjectMetadataList", "meta.k8s.io/v1"
            return _list_of(kind, api_version, revision, partials)
        return _list_of(f"{resource.kind}List", resource.api_version, revision, list(objects))

    def _now(self) -> datetime.datetime:
        return self._writer.time()

    async def _watch(self, call: Call) -> web.StreamResponse:
        resource, query = call.resource, call.query
        form = accepted_form(call.request)
        field_selector = query.get("fieldSelector", "")
        if call.target.name:
            field_selector = ",".join(filter(None, [field_selector, f"metadata.name={call.target.name}"]))
        selects = parse_selection(resource, query.get("labelSelector", ""), field_selector)
        options = WatchOptions.parse(call.target.namespace, query)
        render = self._renderer(call, form)
        watch = Watch(self._writer.store, resource, options, selects, render, self._is_closing)
        return await watch.serve(call.request)

    def _renderer(self, call: Call, form: str) -> Callable[[Object], Any]:
        if form == OBJECT:
            return lambda obj: obj
        if form == PARTIAL:
            return partial_metadata
        include = call.query.get("includeObject", "Metadata")
        header = True

        def render(obj: Object) -> Object:
            nonlocal header
            metadata = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            shown = table(call.resource, [obj], metadata, self._now(), include=include, header=header)
            header = False
            return shown

        return render

    async def _create(self, call: Call) -> web.StreamResponse:
        target = call.target
        body = await read_body(call.request)
        if target.subresource == "eviction":
            evict(self._writer, call.resource, target.namespace, target.name, body)
            return json_answer(_success({}), status=201)
        if target.subresource == "binding":
            self._bind(call, body)
            return json_answer(_success({}), status=201)
        if target.subresource:
            raise errors.method_not_allowed()
        options = _write_options(call)
        created = self._writer.create(call.resource, target.namespace, body, options)
        return self._written(call, created, options, status=201)

    def _bind(self, call: Call, body: Any) -> None:
        node = ((body or {}).get("target") or {}).get("name") if isinstance(body, dict) else None
        if not node:
            raise errors.bad_request("a Binding needs target.name")
        patch = {"spec": {"nodeName": node}}
        options = WriteOptions(manager=_manager(call))
        target = call.target
        pod = self._writer.get(call.resource, target.namespace, target.name)
        if pod["spec"].get("nodeName"):
            detail = f'pod {target.name} is already assigned to node "{pod["spec"]["nodeName"]}"'
            raise errors.conflict(call.resource, target.name, detail)
        self._writer.patch(call.resource, target.namespace, target.name, MERGE_PATCH, patch, options)

    async def _update(self, call: Call) -> web.StreamResponse:
        target = call.target
        body = await read_body(call.request)
        options = _write_options(call)
        if target.subresource == "scale":
            return self._scale(call, body, options)
        updated = self._writer.update(call.resource, target.namespace, target.name, body, options, target.subresource)
        return self._written(call, updated, options)

    def _scale(self, call: Call, body: Any, options: WriteOptions) -> web.StreamResponse:
        target = call.target
        obj = self._writer.get(call.resource, target.namespace, target.name)
        changed = scaled(call.resource, obj, body)
        updated = self._writer.update(call.resource, target.namespace, target.name, changed, options)
        return json_answer(read_scale(call.resource, updated))

    async def _patch(self, call: Call) -> web.StreamResponse:
        target, resource = call.target, call.resource
        media_type = call.request.content_type
        patch = await read_body(call.request)
        options = _write_options(call)
        if target.subresource == "scale":
            return self._scale(call, patch, options)
        if media_type == APPLY_PATCH:
            if not call.query.get("fieldManager"):
                message = (
                    'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
                )
                raise errors.StatusError(422, "Invalid", message)
            if not isinstance(patch, dict):
                raise errors.bad_request("the applied object is not an object")
            applied, created = self._writer.apply(
                resource, target.namespace, target.name, patch, options, target.subresource
            )
            return self._written(call, applied, options, status=201 if created else 200)
        patched = self._writer.patch(
            resource, target.namespace, target.name, media_type, patch, options, target.subresource
        )
        return self._written(call, patched, options)

    def _written(self, call: Call, obj: Object, options: WriteOptions, status: int = 200) -> web.StreamResponse:
        form = accepted_form(call.request)
        body = self._shaped(call, [obj], form, obj["metadata"].get("resourceVersion", ""), single=obj)
        return json_answer(body, status, options.warnings)

    async def _delete(self, call: Call) -> web.StreamResponse:
        target, resource = call.target, call.resource
        if target.subresource:
            raise errors.method_not_allowed()
        options = DeleteOptions.parse(await read_body(call.request, optional=True), call.query)
        obj, gone = delete(self._writer, resource, target.namespace, target.name, options)
        if not gone or resource.kind == "Pod":
            return json_answer(obj)
        details = {"name": target.name, "kind": resource.plural, "uid": obj["metadata"]["uid"]}
        if resource.group:
            details["group"] = resource.group
        return json_answer(_success({"details": details}))

    async def _delete_collection(self, call: Call) -> web.StreamResponse:
        options = DeleteOptions.parse(await read_body(call.request, optional=True), call.query)
        objects = self._selected(call)
        for obj in objects:
            metadata = obj["metadata"]
            delete(self._writer, call.resource, metadata.get("namespace", ""), metadata["name"], options)
        resource, revision = call.resource, str(self._writer.store.revision)
        return json_answer(_list_of(f"{resource.kind}List", resource.api_version, revision, objects))


def _list_of(kind: str, api_version: str, revision: str, items: list[Object]) -> Object:
    return {"kind": kind, "apiVersion": api_version, "metadata": {"resourceVersion": revision}, "items": items}


def _success(more: Object) -> Object:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", **more}


def _manager(call: Call) -> str:
    """The field manager: as asked for, else the first word of the user agent, as on a real server."""
    agent = call.request.headers.get("User-Agent", "")
    return call.query.get("fieldManager") or agent.partition("/")[0].partition(" ")[0][:128] or "unknown"


def _write_options(call: Call) -> WriteOptions:
    query = call.query
    validation = query.get("fieldValidation") or "Warn"
    if validation not in _FIELD_VALIDATION:
        raise errors.bad_request(f'fieldValidation: Unsupported value: "{validation}"')
    dry_run = query.get("dryRun", "")
    if dry_run not in ("", "All"):
        raise errors.bad_request(f'dryRun: Unsupported value: "{dry_run}": supported values: "All"')
    return WriteOptions(
        manager=_manager(call),
        dry_run=bool(dry_run),
        field_validation=validation,
        force=query.get("force") in ("true", "1"),
    )
