"""A bucket's declared settings (versioning, lock, tags, CORS rules, ETags, policy …) as S3 and the admin API take and
show them.  Pure.

A field that is not declared is not managed: clients may set it as they like.  One that is declared is kept as
declared; declared empty, it is taken away.  What the store shows is compared by meaning, not by its text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from xml.etree import ElementTree

import msgspec

from holdfast_operator.provision.bucket_limits import lifecycle_document, quota_document
from holdfast_operator.tenant.spec import BucketEncryptionSpec, BucketSpec, CorsRule, ObjectLockSpec
from holdfast_server.contract.buckets import BucketEtag

VERSIONING, OWNERSHIP, TAGGING, CORS, POLICY = "versioning", "ownershipControls", "tagging", "cors", "policy"
OBJECT_LOCK = "object-lock"
ENCRYPTION = "encryption"
LIFECYCLE = "lifecycle"
"""The sub-resources."""
QUOTA = "quota"
OWNER = "owner"
ETAG = "etag"
"""Of the admin API."""
ABSENT_CODES = frozenset(
    {
        "NoSuchTagSet",
        "NoSuchCORSConfiguration",
        "NoSuchLifecycleConfiguration",
        "NoSuchBucketPolicy",
        "OwnershipControlsNotFoundError",
        "ObjectLockConfigurationNotFoundError",
        "ServerSideEncryptionConfigurationNotFoundError",
    }
)

_RULE_LISTS = (
    ("AllowedHeader", "allowed_headers"),
    ("AllowedMethod", "allowed_methods"),
    ("AllowedOrigin", "allowed_origins"),
    ("ExposeHeader", "expose_headers"),
)


def settings_of(bucket: BucketSpec) -> dict[str, bytes | None]:
    """Sub-resource → the document to put there; None to take it away.  Only what is declared, the policy last: it may
    deny root the others."""
    wanted: dict[str, bytes | None] = {}
    if bucket.owner is not None:
        wanted[OWNER] = owner_document(bucket.owner)
    if bucket.versioning is not None or bucket.object_lock is not None:
        wanted[VERSIONING] = _versioning(bucket.versioning or "Enabled")
    if bucket.object_lock is not None:
        wanted[OBJECT_LOCK] = _object_lock(bucket.object_lock)
    if bucket.object_ownership is not None:
        wanted[OWNERSHIP] = _ownership(bucket.object_ownership)
    if bucket.encryption is not None:
        wanted[ENCRYPTION] = _encryption(bucket.encryption) if bucket.encryption.algorithm != "None" else None
    if bucket.tags is not None:
        wanted[TAGGING] = _tagging(bucket.tags) if bucket.tags else None
    if bucket.cors is not None:
        wanted[CORS] = _cors(bucket.cors) if bucket.cors else None
    if bucket.lifecycle is not None:
        wanted[LIFECYCLE] = lifecycle_document(bucket.lifecycle) if bucket.lifecycle else None
    if bucket.quota is not None:
        wanted[QUOTA] = quota_document(bucket.quota)
    if bucket.etag is not None:
        wanted[ETAG] = msgspec.json.encode(BucketEtag(etag=bucket.etag))
    if bucket.policy is not None:
        wanted[POLICY] = json.dumps(bucket.policy, sort_keys=True).encode() if bucket.policy else None
    return wanted


def owner_document(account: str) -> bytes:
    return json.dumps({"account": account}).encode()


def account_of(document: bytes | None) -> str:
    """What `owner_document` names, as the store shows it; empty for what cannot be read."""
    try:
        return str(json.loads(document or b"{}").get("account", ""))
    except (ValueError, AttributeError):
        return ""


def same(setting: str, wanted: bytes | None, there: bytes | None) -> bool:
    """Whether what the store shows means what was put.  What kinds of encryption a bucket blocks is up to clients: a
    Tenant cannot say it."""
    if setting == ENCRYPTION:
        there = _without_blocks(there)
    if wanted is None or there is None:
        return wanted is there
    try:
        if setting in (POLICY, QUOTA, OWNER, ETAG):
            return bool(json.loads(wanted) == json.loads(there))
        return list(_leaves(ElementTree.fromstring(wanted))) == list(_leaves(ElementTree.fromstring(there)))
    except (ValueError, ElementTree.ParseError):
        return False


def _without_blocks(document: bytes | None) -> bytes | None:
    """None where nothing but blocks is shown."""
    try:
        root = ElementTree.fromstring(document or b"")
    except ElementTree.ParseError:
        return document
    rules = [child for child in root if _name(child) == "Rule"]
    for rule in rules:
        for child in [child for child in rule if _name(child) == "BlockedEncryptionTypes"]:
            rule.remove(child)
    return ElementTree.tostring(root, encoding="utf-8") if any(len(rule) for rule in rules) else None


def _name(element: ElementTree.Element) -> str:
    """Without its namespace."""
    return element.tag.rpartition("}")[2]


def _leaves(element: ElementTree.Element, path: str = "") -> Iterator[tuple[str, str]]:
    """Every element by its path without namespaces, with its text."""
    name = f"{path}/{_name(element)}"
    yield name, (element.text or "").strip() if not len(element) else ""
    for child in element:
        yield from _leaves(child, name)


def _versioning(status: str) -> bytes:
    root = ElementTree.Element("VersioningConfiguration")
    ElementTree.SubElement(root, "Status").text = status
    return ElementTree.tostring(root, encoding="utf-8")


def _object_lock(lock: ObjectLockSpec) -> bytes:
    """As the store shows it, too."""
    root = ElementTree.Element("ObjectLockConfiguration")
    ElementTree.SubElement(root, "ObjectLockEnabled").text = "Enabled"
    if lock.mode:
        default = ElementTree.SubElement(ElementTree.SubElement(root, "Rule"), "DefaultRetention")
        ElementTree.SubElement(default, "Mode").text = lock.mode
        ElementTree.SubElement(default, "Years" if lock.years else "Days").text = str(lock.years or lock.days)
    return ElementTree.tostring(root, encoding="utf-8")


def _encryption(encryption: BucketEncryptionSpec) -> bytes:
    """As the store shows it, too."""
    root = ElementTree.Element("ServerSideEncryptionConfiguration")
    rule = ElementTree.SubElement(root, "Rule")
    default = ElementTree.SubElement(rule, "ApplyServerSideEncryptionByDefault")
    ElementTree.SubElement(default, "SSEAlgorithm").text = encryption.algorithm
    if encryption.key_name:
        ElementTree.SubElement(default, "KMSMasterKeyID").text = encryption.key_name
    ElementTree.SubElement(rule, "BucketKeyEnabled").text = "false"
    return ElementTree.tostring(root, encoding="utf-8")


def _ownership(ownership: str) -> bytes:
    root = ElementTree.Element("OwnershipControls")
    rule = ElementTree.SubElement(root, "Rule")
    ElementTree.SubElement(rule, "ObjectOwnership").text = ownership
    return ElementTree.tostring(root, encoding="utf-8")


def _tagging(tags: Mapping[str, str]) -> bytes:
    root = ElementTree.Element("Tagging")
    rows = ElementTree.SubElement(root, "TagSet")
    for key in sorted(tags):
        row = ElementTree.SubElement(rows, "Tag")
        ElementTree.SubElement(row, "Key").text = key
        ElementTree.SubElement(row, "Value").text = tags[key]
    return ElementTree.tostring(root, encoding="utf-8")


def _cors(rules: Sequence[CorsRule]) -> bytes:
    root = ElementTree.Element("CORSConfiguration")
    for rule in rules:
        row = ElementTree.SubElement(root, "CORSRule")
        if rule.id:
            ElementTree.SubElement(row, "ID").text = rule.id
        for element, name in _RULE_LISTS:
            texts: Sequence[str] = getattr(rule, name)
            for text in texts:
                ElementTree.SubElement(row, element).text = text
        if rule.max_age_seconds is not None:
            ElementTree.SubElement(row, "MaxAgeSeconds").text = str(rule.max_age_seconds)
    return ElementTree.tostring(root, encoding="utf-8")
