"""Content negotiation and bodies: JSON out in the form that a client accepts, JSON or YAML in.

Forms: the object itself, `PartialObjectMetadata` and `Table` of meta.k8s.io/v1. Protobuf and CBOR are never sent;
clients that accept only those get 406. Protobuf bodies of the few kinds that kubectl sends so are read (`protobuf`).
"""

import json
from typing import Any

import yaml
from aiohttp import web

from holdfast_local.apiserver import errors
from holdfast_local.apiserver.http.protobuf import PROTOBUF, decode_object
from holdfast_local.apiserver.resources import Object

OBJECT = "object"
TABLE = "Table"
PARTIAL = "PartialObjectMetadata"
_ACCEPTED_BODIES = ("application/json", "application/yaml")
MAX_BODY_SIZE_BYTES = 3 * 1024 * 1024


def dump(body: Any) -> bytes:
    """Compact JSON."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def json_answer(body: Any, status: int = 200, warnings: list[str] | None = None) -> web.Response:
    """An answer with its warnings as kubectl prints them."""
    response = web.Response(body=dump(body), status=status, content_type="application/json")
    for warning in warnings or ():
        quoted = warning.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{quoted}"')
    return response


def accepted_form(request: web.Request) -> str:
    """The first acceptable form that is offered here. Raises StatusError 406."""
    header = ",".join(request.headers.getall("Accept", [])) or "*/*"
    for choice in header.split(","):
        media_type, *parameters = (part.strip() for part in choice.split(";"))
        if media_type not in ("application/json", "*/*", "application/*"):
            continue
        wanted = dict(part.split("=", 1) for part in parameters if "=" in part).get("as", "")
        if wanted in ("", OBJECT):
            return OBJECT
        if wanted.removesuffix("List") in (TABLE, PARTIAL):
            return wanted.removesuffix("List")
    raise errors.not_acceptable(["application/json"])


async def read_body(request: web.Request, *, optional: bool = False) -> Any:
    """The decoded body; None if it is empty and may be. Raises StatusError 400, 413 or 415."""
    try:
        raw = await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise errors.StatusError(413, "RequestEntityTooLarge", "the request is too large") from error
    if not raw:
        if optional:
            return None
        raise errors.bad_request("the request's body is empty")
    media_type = request.content_type
    if media_type == PROTOBUF:
        return decode_object(raw)
    try:
        if media_type.endswith("yaml"):
            return _yaml_or_json(raw)
        if media_type.endswith("json") or media_type in ("application/octet-stream", "text/plain"):
            return json.loads(raw)
    except (ValueError, yaml.YAMLError) as error:
        raise errors.bad_request(f"the object provided is unrecognized: {error}") from error
    raise errors.unsupported_media_type(_ACCEPTED_BODIES)


def _yaml_or_json(raw: bytes) -> Any:
    """Clients that apply say YAML and send JSON: reading it as YAML was a sixth of what this server did."""
    try:
        return json.loads(raw)
    except ValueError:
        return yaml.safe_load(raw)


def partial_metadata(obj: Object) -> Object:
    return {"apiVersion": "meta.k8s.io/v1", "kind": PARTIAL, "metadata": obj["metadata"]}
