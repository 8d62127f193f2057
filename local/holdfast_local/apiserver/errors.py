"""Errors as the API answers them: `Status` objects with the reasons, codes and wording that clients parse.

kubectl and client-go decide by `reason` and `code`, people read `message`, tools read `details.causes[].field`; so
all three are always filled. Nothing here knows HTTP beyond the status code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from holdfast_local.apiserver.resources import Resource


@dataclass(frozen=True)
class Cause:
    """One faulty field: its path as users write it, the machine-readable reason, and the sentence."""

    field: str
    reason: str
    message: str

    def sentence(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def required(field: str, detail: str = "") -> Cause:
    return Cause(field, "FieldValueRequired", "Required value" + (f": {detail}" if detail else ""))


def invalid_value(field: str, value: object, detail: str) -> Cause:
    return Cause(field, "FieldValueInvalid", f"Invalid value: {shown(value)}: {detail}")


def forbidden_field(field: str, detail: str) -> Cause:
    return Cause(field, "FieldValueForbidden", f"Forbidden: {detail}")


def not_supported(field: str, value: object, supported: Sequence[object]) -> Cause:
    choices = ", ".join(shown(choice) for choice in supported)
    return Cause(field, "FieldValueNotSupported", f"Unsupported value: {shown(value)}: supported values: {choices}")


def duplicate(field: str, value: object) -> Cause:
    return Cause(field, "FieldValueDuplicate", f"Duplicate value: {shown(value)}")


def shown(value: object) -> str:
    """A value as the API quotes it: strings in double quotes, maps and lists by their type's name."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if value is None:
        return '"null"'
    if isinstance(value, dict):
        return '"object"'
    if isinstance(value, list):
        return '"array"'
    return str(value)


class StatusError(Exception):
    """A refused request; `body()` is what the client receives."""

    def __init__(self, code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details or {}

    def body(self) -> dict[str, Any]:
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details:
            status["details"] = self.details
        return status


def _details(resource: Resource, name: str) -> dict[str, Any]:
    details = {"name": name, "kind": resource.plural}
    if resource.group:
        details["group"] = resource.group
    return details


def not_found(resource: Resource, name: str) -> StatusError:
    message = f'{resource.qualified_plural} "{name}" not found'
    return StatusError(404, "NotFound", message, _details(resource, name))


def no_such_path() -> StatusError:
    return StatusError(404, "NotFound", "the server could not find the requested resource", {"causes": []})


def not_in_stand_in(subresource: str) -> StatusError:
    """For what people try by habit and the stand-in has not: say so, rather than that it is nowhere."""
    message = (
        f"the stand-in cluster has no `{subresource}`: its pods are processes of this machine, and its Services "
        "can be reached from here at their cluster IPs"
    )
    return StatusError(501, "NotImplemented", message, {"causes": []})


def already_exists(resource: Resource, name: str) -> StatusError:
    message = f'{resource.qualified_plural} "{name}" already exists'
    return StatusError(409, "AlreadyExists", message, _details(resource, name))


def conflict(resource: Resource, name: str, detail: str) -> StatusError:
    message = f'Operation cannot be fulfilled on {resource.qualified_plural} "{name}": {detail}'
    return StatusError(409, "Conflict", message, _details(resource, name))


STALE = "the object has been modified; please apply your changes to the latest version and try again"


def apply_conflict(message: str, causes: Sequence[Cause]) -> StatusError:
    details = {"causes": [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]}
    return StatusError(409, "Conflict", message, details)


def invalid(resource: Resource, name: str, causes: Sequence[Cause]) -> StatusError:
    """422 with one entry in `details.causes` per faulty field."""
    sentences = list(dict.fromkeys(cause.sentence() for cause in causes))
    text = sentences[0] if len(sentences) == 1 else "[" + ", ".join(sentences) + "]"
    details: dict[str, Any] = {"name": name, "kind": resource.kind}
    if resource.group:
        details["group"] = resource.group
    details["causes"] = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    return StatusError(422, "Invalid", f'{resource.qualified_kind} "{name}" is invalid: {text}', details)


def bad_request(message: str) -> StatusError:
    return StatusError(400, "BadRequest", message)


def forbidden(message: str, details: dict[str, Any] | None = None) -> StatusError:
    return StatusError(403, "Forbidden", message, details)


def unauthorized() -> StatusError:
    return StatusError(401, "Unauthorized", "Unauthorized")


def expired(revision: int, oldest: int) -> StatusError:
    return StatusError(410, "Expired", f"too old resource version: {revision} ({oldest})")


def method_not_allowed() -> StatusError:
    message = "the server does not allow this method on the requested resource"
    return StatusError(405, "MethodNotAllowed", message)


def unsupported_media_type(accepted: Sequence[str]) -> StatusError:
    message = "the body of the request was in an unknown format - accepted media types include: "
    return StatusError(415, "UnsupportedMediaType", message + ", ".join(accepted))


def not_acceptable(offered: Sequence[str]) -> StatusError:
    message = "only the following media types are accepted: " + ", ".join(offered)
    return StatusError(406, "NotAcceptable", message)


def too_many_requests(message: str, causes: Sequence[Cause] = ()) -> StatusError:
    details = {"causes": [{"reason": c.reason, "message": c.message} for c in causes]}
    return StatusError(429, "TooManyRequests", message, details)


def unreadable(message: str) -> StatusError:
    """What server-side apply answers where an object does not fit its schema: 500, without a reason (up to 1.36)."""
    return StatusError(500, "", message)


def internal(message: str) -> StatusError:
    return StatusError(500, "InternalError", f"Internal error occurred: {message}")
