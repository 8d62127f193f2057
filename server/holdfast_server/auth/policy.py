"""AWS's policy language: documents are read once, checked field by field, and then decide requests.

A `Policy` is a set of statements.  A statement applies when its principal (policies of buckets and roles only), action,
resource and conditions all match; one applying Deny wins over every Allow, and no Allow means no.
Whose policies are asked for a request is decided in `verified`.
Reference: IAM user guide, "JSON policy elements".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import msgspec

from holdfast_server.auth.conditions import (
    Condition,
    Values,
    check_value,
    expand,
    like,
    parse_condition_operator,
)

MAX_POLICY_SIZE_BYTES = 20 << 10
"""S3's bound on a bucket policy."""
MAX_STATEMENTS = 200
S3_ARN_PREFIX = "arn:aws:s3:::"
_ARN_PREFIXES = (S3_ARN_PREFIX, "arn:aws:iam::", "arn:aws:sts::")
"""Of what an identity's policy may name."""

ALLOW = "Allow"
DENY = "Deny"

_VERSION = "2012-10-17"
_VERSION_WITHOUT_VARIABLES = "2008-10-17"
"""Also that of a document which names none."""
_STATEMENT_FIELDS = frozenset(
    ["Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Principal", "NotPrincipal", "Condition"]
)
_ACTION = re.compile(r"\*|[A-Za-z0-9-]+:[A-Za-z0-9*?]+")
_PRINCIPAL_KINDS = frozenset({"AWS", "CanonicalUser", "Service", "Federated"})
_PRINCIPAL = re.compile(r"\*|\d{12}|arn:aws:(iam|sts)::[\w-]*:(root|(user|role|assumed-role)/[\w+=,.@/-]+)|[\w+=,.@-]+")
"""Everybody, an account by number or ARN, a user by ARN or (here alone) by its name."""
_EXISTING_TAG = "s3:existingobjecttag/"
_SERVICES = frozenset({"s3", "admin", "kms", "sts", "iam"})


class PolicyError(ValueError):
    """A document that is no policy; the message begins with the field at fault."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a policy."""

    action: str
    """`s3:GetObject`."""
    resource: str
    """`arn:aws:s3:::bucket/key`."""
    principal_names: tuple[str, ...] = ()
    """Under which the policy of a bucket or role may name the asker (`Principal.names`); empty for anonymous."""
    values: Callable[[], Values]
    """The request's condition values, made only when a condition or a variable asks for them."""


class _Patterns(msgspec.Struct, frozen=True):
    """Wildcard patterns of actions or resources."""

    fixed: tuple[str, ...]
    variable: tuple[str, ...] = ()
    """Those with variables."""

    def match(self, text: str, values: Callable[[], Values]) -> bool:
        if any(like(pattern, text) for pattern in self.fixed):
            return True
        for pattern in self.variable:
            expanded = expand(pattern, values(), for_wildcard=True, most=len(text))
            if expanded is not None and like(expanded, text):
                return True
        return False


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """One checked statement."""

    effect: str
    actions: _Patterns
    """In lower case, as they count."""
    actions_negated: bool
    resources: _Patterns | None
    """None only for statements on services without resources."""
    resources_negated: bool
    principals: tuple[str, ...] | None
    """None in identity policies."""
    principals_negated: bool
    conditions: tuple[Condition, ...]

    def applies(self, question: Question) -> bool:
        if self.actions.match(question.action.lower(), question.values) == self.actions_negated:
            return False
        if self.resources is not None and (
            self.resources.match(question.resource, question.values) == self.resources_negated
        ):
            return False
        if self.principals is not None and self._names(question) == self.principals_negated:
            return False
        return all(condition.holds(question.values()) for condition in self.conditions)

    def _names(self, question: Question) -> bool:
        principals = self.principals or ()
        return "*" in principals or any(name in principals for name in question.principal_names)


class Policy(msgspec.Struct, frozen=True):
    """A checked document."""

    statements: tuple[Statement, ...]
    asks_object_tags: bool
    """Whether a condition or a variable is about the tags of the object that is there."""

    def decide(self, question: Question) -> str | None:
        """`Deny`, `Allow`, or None where no statement applies."""
        decision = None
        for statement in self.statements:
            if (statement.effect == DENY or decision is None) and statement.applies(question):
                if statement.effect == DENY:
                    return DENY
                decision = ALLOW
        return decision


def parse_policy(document: bytes | str | dict[str, object], bucket: str | None = None) -> Policy:
    """Read a policy: an identity's, or that of `bucket`.  Raises PolicyError naming the field."""
    return _parse(document, _Kind(bucket is not None, bucket))


def parse_trust_policy(document: bytes | str) -> Policy:
    """Read the policy that says who may assume a role.  Raises PolicyError naming the field."""
    return _parse(document, _Kind(True, None))


class _Kind(msgspec.Struct, frozen=True):
    names_principals: bool
    bucket: str | None
    """Of a bucket's policy: within which its resources must be."""
    literal: bool = False
    """Of the version without variables: `${aws:username}` is text like any other."""

    @property
    def is_trust(self) -> bool:
        return self.names_principals and self.bucket is None


def _parse(document: bytes | str | dict[str, object], kind: _Kind) -> Policy:
    if not isinstance(document, dict):
        size_bytes = len(document)
        if size_bytes > MAX_POLICY_SIZE_BYTES:
            raise PolicyError(f"the document has {size_bytes} bytes; at most {MAX_POLICY_SIZE_BYTES} are allowed")
        try:
            document = msgspec.json.decode(document, type=dict[str, object])
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise PolicyError(f"the document is not a JSON object: {error}") from error
    version = document.get("Version", _VERSION_WITHOUT_VARIABLES)
    if version not in (_VERSION, _VERSION_WITHOUT_VARIABLES):
        raise PolicyError(f"Version: {version!r} is neither {_VERSION} nor {_VERSION_WITHOUT_VARIABLES}")
    kind = msgspec.structs.replace(kind, literal=version == _VERSION_WITHOUT_VARIABLES)
    for name in document:
        if name not in ("Version", "Id", "Statement"):
            raise PolicyError(f"{name}: unknown field")
    statements = document.get("Statement")
    if isinstance(statements, dict):
        statements = [statements]
    if not isinstance(statements, list) or not 1 <= len(statements) <= MAX_STATEMENTS:
        raise PolicyError(f"Statement: must be a list of 1 to {MAX_STATEMENTS} statements")
    found = tuple([_statement(raw, f"Statement[{i}]", kind) for i, raw in enumerate(statements)])
    return Policy(found, any(map(_asks_object_tags, found)))


def _statement(raw: object, where: str, kind: _Kind) -> Statement:
    if not isinstance(raw, dict):
        raise PolicyError(f"{where}: must be an object")
    for name in raw:
        if name not in _STATEMENT_FIELDS:
            raise PolicyError(f"{where}.{name}: unknown field")
    if raw.get("Effect") not in (ALLOW, DENY):
        raise PolicyError(f"{where}.Effect: must be Allow or Deny")
    action_field, actions = _one_of(raw, where, "Action", "NotAction")
    for action in actions:
        if not _ACTION.fullmatch(action) or (action != "*" and action.partition(":")[0].lower() not in _SERVICES):
            raise PolicyError(f"{where}.{action_field}: {action!r} is no action such as s3:GetObject")
        if kind.is_trust and not action.lower().startswith("sts:"):
            raise PolicyError(f"{where}.{action_field}: {action!r} is no action of STS")
    if kind.is_trust and ("Resource" in raw or "NotResource" in raw):
        raise PolicyError(f"{where}.Resource: a role's trust policy is about the role and names no resource")
    needs_resource = any(action.lower().startswith("s3:") or action == "*" for action in actions)
    resources: list[str] = []
    resource_field = "Resource"
    if needs_resource or "Resource" in raw or "NotResource" in raw:
        resource_field, resources = _one_of(raw, where, "Resource", "NotResource")
        _check_resources(resources, f"{where}.{resource_field}", kind.bucket)
    principals, principals_negated = _principals(raw, where, kind)
    if principals_negated and raw["Effect"] == ALLOW:
        raise PolicyError(f"{where}.NotPrincipal: only a Deny can name everybody but some")
    return Statement(
        effect=raw["Effect"],
        actions=_Patterns(tuple([action.lower() for action in actions])),
        actions_negated=action_field == "NotAction",
        resources=_patterns(resources, kind.literal) if resources else None,
        resources_negated=resource_field == "NotResource",
        principals=principals,
        principals_negated=principals_negated,
        conditions=tuple(_conditions(raw.get("Condition", {}), f"{where}.Condition", kind.literal)),
    )


def _asks_object_tags(statement: Statement) -> bool:
    texts = list(statement.resources.variable) if statement.resources is not None else []
    for condition in statement.conditions:
        texts += condition.wanted
    return any(condition.key.startswith(_EXISTING_TAG) for condition in statement.conditions) or any(
        "${" in text and _EXISTING_TAG in text.lower() for text in texts
    )


def _patterns(texts: list[str], literal: bool) -> _Patterns:
    return _Patterns(
        tuple([text for text in texts if literal or "${" not in text]),
        tuple([text for text in texts if not literal and "${" in text]),
    )


def _one_of(raw: dict[str, object], where: str, name: str, negated: str) -> tuple[str, list[str]]:
    if (name in raw) == (negated in raw):
        raise PolicyError(f"{where}.{name}: exactly one of {name} and {negated} must be given")
    field = name if name in raw else negated
    return field, _strings(raw[field], f"{where}.{field}")


def _strings(value: object, where: str) -> list[str]:
    """A string or a non-empty list of strings; numbers and booleans become strings, as AWS takes them."""
    items = value if isinstance(value, list) else [value]
    texts = []
    for item in items:
        if isinstance(item, bool):
            texts.append("true" if item else "false")
        elif isinstance(item, str | int | float):
            texts.append(str(item))
        else:
            raise PolicyError(f"{where}: must be a string or a list of strings")
    if not texts:
        raise PolicyError(f"{where}: must not be empty")
    return texts


def _check_resources(resources: list[str], where: str, bucket: str | None) -> None:
    for resource in resources:
        if bucket is None and (resource == "*" or resource.startswith(_ARN_PREFIXES)):
            continue
        if not resource.startswith(S3_ARN_PREFIX):
            raise PolicyError(f"{where}: {resource!r} does not begin with {S3_ARN_PREFIX}")
        name = resource.removeprefix(S3_ARN_PREFIX).partition("/")[0]
        if bucket is not None and not like(name, bucket):
            raise PolicyError(f"{where}: {resource!r} is not within bucket {bucket!r}")


def _principals(raw: dict[str, object], where: str, kind: _Kind) -> tuple[tuple[str, ...] | None, bool]:
    given = [name for name in ("Principal", "NotPrincipal") if name in raw]
    if not kind.names_principals:
        if given:
            raise PolicyError(f"{where}.{given[0]}: only the policies of buckets and roles name principals")
        return None, False
    if len(given) != 1:
        raise PolicyError(f"{where}.Principal: exactly one of Principal and NotPrincipal must be given")
    return tuple(_principal_names(raw[given[0]], f"{where}.{given[0]}")), given[0] == "NotPrincipal"


def _principal_names(value: object, where: str) -> Iterator[str]:
    """`"*"`, or lists by kind.  Services and federated users are nobody here: named, and never met."""
    if value == "*":
        yield "*"
        return
    if not isinstance(value, dict) or not value or not set(value) <= _PRINCIPAL_KINDS:
        raise PolicyError(f'{where}: must be "*" or {{"AWS": …}}')
    for kind, given in value.items():
        for name in _strings(given, f"{where}.{kind}"):
            if kind == "AWS" and not _PRINCIPAL.fullmatch(name):
                raise PolicyError(f"{where}.{kind}: invalid principal {name!r}")
            yield name if kind in ("AWS", "CanonicalUser") else f"{kind}:{name}"


def _conditions(raw: object, where: str, literal: bool) -> Iterator[Condition]:
    if not isinstance(raw, dict):
        raise PolicyError(f"{where}: must be an object")
    for operator_text, keys in raw.items():
        try:
            qualifier, operator, if_exists = parse_condition_operator(operator_text)
        except ValueError as error:
            raise PolicyError(f"{where}: {error}") from error
        if not isinstance(keys, dict):
            raise PolicyError(f"{where}.{operator_text}: must be an object")
        for key, value in keys.items():
            wanted = _strings(value, f"{where}.{operator_text}.{key}")
            for text in wanted:
                try:
                    check_value(operator, text, literal)
                except ValueError as error:
                    raise PolicyError(f"{where}.{operator_text}.{key}: {error}") from error
            yield Condition(operator, key.lower(), tuple(wanted), if_exists, qualifier, literal)
