"""From a Tenant's body to a `TenantSpec`, or to every fault it has.

The API server has checked the schema already, but an older CRD, or one applied by hand, may have let things
through, and what spans several fields (geometry, names that grow too long, duplicates, references) cannot be
said in a schema.  A fault is a value, never an exception: it ends as the condition `SpecValid=False`.
Comparison with what the tenant has been before is in `ledger`, not here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

from holdfast_operator.quantities import parse_quantity
from holdfast_operator.tenant import limits
from holdfast_operator.tenant.fields import Fault, Fields, is_address
from holdfast_operator.tenant.parse_access import (
    parse_disruption_budget,
    parse_identity,
    parse_ingress,
    parse_network_policy,
    parse_service,
    parse_service_account,
)
from holdfast_operator.tenant.parse_bucket_limits import parse_lifecycle, parse_quota
from holdfast_operator.tenant.spec import (
    Access,
    AccountSpec,
    AuditSpec,
    BucketEncryptionSpec,
    BucketGrant,
    BucketSpec,
    CorsRule,
    EncryptionSpec,
    IssuerSpec,
    ObjectLockSpec,
    Plaintext,
    PodSettings,
    PolicySpec,
    PoolSpec,
    PrometheusRuleSpec,
    Retention,
    ServiceMonitorSpec,
    Spread,
    TenantSpec,
    TlsMode,
    TlsSpec,
    UserSpec,
    VolumeClaim,
)
from holdfast_server.contract import geometry, names
from holdfast_server.contract.buckets import DEFAULT_ETAG_FORM, EtagForm
from holdfast_server.contract.config import DEFAULT_OBJECT_OWNERSHIP, ObjectOwnership

_RETENTIONS = ("Retain", "Delete")
_VERSIONING = ("Enabled", "Suspended")
_OBJECT_OWNERSHIPS: tuple[str, ...] = get_args(ObjectOwnership)
_ETAG_FORMS: tuple[str, ...] = get_args(EtagForm)
_RESERVED_ENVIRONMENT = ("POD_NAME", "POD_IP")


@dataclass(frozen=True, slots=True)
class Parsed:
    """Either `spec` or at least one fault."""

    spec: TenantSpec | None
    faults: tuple[Fault, ...] = ()
    kept: TenantSpec | None = None
    """What can go on being looked after, where it was accepted before: `spec`, or one that has no faults but in values
    that are passed on as they stand, which an earlier operator did without a look at them."""


def parse_tenant(body: Mapping[str, Any]) -> Parsed:
    """Check `body`, a Tenant as the API server gives it."""
    faults: list[Fault] = []
    metadata = body["metadata"]
    name = metadata["name"]
    spec = Fields.of("spec", body.get("spec"), faults)
    pools = tuple(_pool(fields) for fields in spec.items("pools", max_count=limits.MAX_POOLS))
    policies = tuple(_policy(fields) for fields in spec.items("policies", max_count=limits.MAX_POLICIES))
    root = spec.child("rootCredentials")
    metrics = spec.child("metrics")
    tenant = TenantSpec(
        name=name,
        namespace=metadata["namespace"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        pools=pools,
        image=spec.text("image", max_size=512) or None,
        image_pull_policy=_pull_policy(spec),
        image_pull_secrets=tuple(
            _secret_name(fields) for fields in spec.items("imagePullSecrets", max_count=limits.MAX_PULL_SECRETS)
        ),
        region=spec.text("region", names.DEFAULT_REGION, max_size=63, pattern=limits.REGION),
        domains=_domains(spec),
        object_ownership=_object_ownership(spec) or DEFAULT_OBJECT_OWNERSHIP,
        root_secret_name=_secret_reference(root),
        accounts=tuple(_account(fields) for fields in spec.items("accounts", max_count=limits.MAX_ACCOUNTS)),
        users=tuple(_user(fields) for fields in spec.items("users", max_count=limits.MAX_USERS)),
        policies=policies,
        buckets=tuple(_bucket(fields) for fields in spec.items("buckets", max_count=limits.MAX_BUCKETS)),
        key_overlap_seconds=spec.integer("keyOverlapSeconds", 3600, low=0, high=limits.MAX_KEY_OVERLAP_SECONDS) or 0,
        claim_retention=cast(Retention, spec.choice("claimRetention", _RETENTIONS, "Retain")),
        allow_disruption=spec.flag("allowDisruption"),
        tls=_tls(spec.child("tls")),
        encryption=_encryption(spec.child("encryption")) if spec.has("encryption") else None,
        audit=_audit(spec.child("audit")) if spec.has("audit") else None,
        service_monitor=_service_monitor(metrics),
        prometheus_rule=_prometheus_rule(metrics),
        bucket_usage_metrics=metrics.flag("bucketUsage"),
        service=parse_service(spec.child("service")),
        ingress=parse_ingress(spec.child("ingress")) if spec.has("ingress") else None,
        network_policy=parse_network_policy(spec.child("networkPolicy")) if spec.has("networkPolicy") else None,
        has_disruption_budget=parse_disruption_budget(spec.child("podDisruptionBudget")),
        service_account=parse_service_account(spec.child("serviceAccount")),
        identity=parse_identity(spec.child("securityContext")),
    )
    root.finish()
    metrics.finish()
    spec.finish()
    faults += _faults_across_fields(tenant)
    kept = tenant if all(fault.passed_on for fault in faults) else None
    return Parsed(None if faults else tenant, tuple(faults), kept)


def _encryption(fields: Fields) -> EncryptionSpec:
    over_plaintext = fields.choice("customerKeysOverPlaintext", ("Refused", "Accepted"), "Refused")
    retired = fields.texts("retiredKeys", max_count=limits.MAX_RETIRED_KEYS)
    for index, entry in enumerate(retired):
        if not re.fullmatch(limits.ENCRYPTION_ENTRY, entry):
            fields.fault(f"retiredKeys[{index}]", f"{entry!r} is no name of a key, as in default.1")
    encryption = EncryptionSpec(_secret_reference(fields), cast(Plaintext, over_plaintext), retired)
    fields.finish()
    return encryption


def _bucket_encryption(fields: Fields) -> BucketEncryptionSpec:
    algorithm = fields.choice("algorithm", limits.BUCKET_ALGORITHMS, "AES256")
    key_name = fields.text("keyName", max_size=63, pattern=limits.ENCRYPTION_KEY)
    if key_name and algorithm != "aws:kms":
        fields.fault("keyName", "is for the algorithm aws:kms")
    fields.finish()
    return BucketEncryptionSpec(algorithm, key_name)


def _audit(fields: Fields) -> AuditSpec:
    stdout = fields.flag("stdout")
    url, token = "", None
    if fields.has("webhook"):
        webhook = fields.child("webhook")
        url = webhook.text("url", required=True, max_size=limits.MAX_URL_SIZE, pattern=limits.AUDIT_URL)
        if webhook.has("tokenSecretRef"):
            token = _secret_name(webhook.child("tokenSecretRef"))
        webhook.finish()
    fields.finish()
    return AuditSpec(stdout, url, token)


def _service_monitor(metrics: Fields) -> ServiceMonitorSpec | None:
    if not metrics.has("serviceMonitor"):
        return None
    fields = metrics.child("serviceMonitor")
    interval = fields.integer("intervalSeconds", 30, low=limits.MIN_SCRAPE_SECONDS, high=limits.MAX_SCRAPE_SECONDS)
    monitor = ServiceMonitorSpec(fields.text_mapping("labels"), interval or 30)
    fields.finish()
    return monitor


def _prometheus_rule(metrics: Fields) -> PrometheusRuleSpec | None:
    if not metrics.has("prometheusRule"):
        return None
    fields = metrics.child("prometheusRule")
    rule = PrometheusRuleSpec(fields.text_mapping("labels"))
    fields.finish()
    return rule


def _tls(fields: Fields) -> TlsSpec:
    mode = cast(TlsMode, fields.choice("mode", ("Disabled", "SelfSigned", "CertManager", "Secret"), "Disabled"))
    secret_name = _secret_reference(fields) or ""
    issuer = _issuer(fields.child("issuerRef")) if fields.has("issuerRef") else None
    if mode == "Secret" and not secret_name:
        fields.fault("secretRef", "is required in mode Secret")
    if mode == "CertManager" and issuer is None:
        fields.fault("issuerRef", "is required in mode CertManager")
    names = fields.texts("additionalNames", max_count=limits.MAX_TLS_NAMES)
    for index, name in enumerate(names):
        if not re.fullmatch(limits.TLS_NAME, name) or (":" in name and not is_address(name)):
            fields.fault(f"additionalNames[{index}]", f"{name!r} is neither a DNS name in lower case nor an IP address")
    plaintext = cast(Plaintext, fields.choice("plaintext", ("Refused", "Accepted"), "Refused"))
    fields.finish()
    return TlsSpec(mode, secret_name, issuer, names, plaintext)


def _issuer(fields: Fields) -> IssuerSpec:
    issuer = IssuerSpec(
        name=fields.text("name", required=True, max_size=253, pattern=limits.SECRET_NAME),
        kind=fields.text("kind", "Issuer", max_size=63, pattern=r"[A-Za-z]+"),
        group=fields.text("group", "cert-manager.io", max_size=253, pattern=limits.DOMAIN),
    )
    fields.finish()
    return issuer


def _pull_policy(spec: Fields) -> str | None:
    if not spec.has("imagePullPolicy"):
        return None
    return spec.choice("imagePullPolicy", ("Always", "IfNotPresent", "Never"), "IfNotPresent")


def _domains(spec: Fields) -> tuple[str, ...]:
    domains = spec.texts("domains", max_count=limits.MAX_DOMAINS)
    for index, domain in enumerate(domains):
        if not re.fullmatch(limits.DOMAIN, domain):
            spec.fault(f"domains[{index}]", f"{domain!r} is not a domain name")
    return domains


def _secret_name(fields: Fields) -> str:
    name = fields.text("name", required=True, max_size=253, pattern=limits.SECRET_NAME)
    fields.finish()
    return name


def _secret_reference(fields: Fields) -> str | None:
    if not fields.has("secretRef"):
        return None
    return _secret_name(fields.child("secretRef"))


def _pool(fields: Fields) -> PoolSpec:
    name = fields.text("name", required=True, max_size=40, pattern=limits.DNS_LABEL)
    servers = fields.required_integer("servers", low=1, high=limits.MAX_SERVERS)
    volumes = fields.required_integer("volumesPerServer", low=1, high=limits.MAX_VOLUMES_PER_SERVER)
    quorums, reduced_parity = _quorums(fields, servers, volumes)
    pool = PoolSpec(
        name=name,
        servers=servers,
        volumes_per_server=volumes,
        quorums=quorums,
        reduced_redundancy_parity=reduced_parity,
        claim=_claim(fields.child("volumeClaimTemplate")),
        pods=_pod_settings(fields),
    )
    fields.finish()
    return pool


def _quorums(fields: Fields, servers: int, volumes: int) -> tuple[geometry.Quorums, int | None]:
    """The set's, and the parity of objects of reduced redundancy if it is said."""
    erasure = fields.child("erasure")
    size = erasure.integer("setSize", None, low=1, high=geometry.MAX_SET_SIZE)
    parity = erasure.integer("parity", None, low=0, high=geometry.MAX_SET_SIZE // 2)
    reduced = erasure.integer("reducedRedundancyParity", None, low=1, high=geometry.MAX_SET_SIZE // 2)
    erasure.finish()
    nothing = (geometry.quorums(1, 0), None)
    if servers < 1 or volumes < 1:
        return nothing  # its own fault is noted already
    try:
        found = geometry.resolve(servers, volumes, size, parity)
        geometry.reduced_parity(servers, volumes, found, reduced)
        return found, reduced
    except geometry.GeometryError as error:
        field, _, message = str(error).partition(": ")
        if message:
            fields.fault(field, message)
        else:
            fields.fault("servers", field)
        return nothing


def _claim(fields: Fields) -> VolumeClaim:
    spec = fields.child("spec")
    resources = spec.child("resources")
    requests = resources.child("requests")
    claim = VolumeClaim(
        storage=requests.text("storage", required=True, max_size=32, pattern=limits.QUANTITY),
        storage_class_name=spec.text("storageClassName", max_size=253) if spec.has("storageClassName") else None,
        access_modes=spec.texts("accessModes", ("ReadWriteOnce",), max_count=4),
    )
    for level in (requests, resources, spec, fields):
        level.finish()
    return claim


def _pod_settings(fields: Fields) -> PodSettings:
    env = fields.mappings("env", max_count=limits.MAX_ENV)
    for index, variable in enumerate(env):
        name = variable.get("name")
        if not isinstance(name, str) or not name:
            fields.fault(f"env[{index}].name", "is required")
        elif name in _RESERVED_ENVIRONMENT or name.startswith("HOLDFAST_"):
            fields.fault(f"env[{index}].name", f"{name} is set by the operator")
    return PodSettings(
        spread_over_nodes=cast(
            Spread, fields.choice("spreadOverNodes", ("Preferred", "Required", "Disabled"), "Preferred")
        ),
        resources=_resources(fields),
        node_selector=fields.text_mapping("nodeSelector"),
        affinity=fields.mapping("affinity"),
        tolerations=fields.mappings("tolerations", max_count=limits.MAX_TOLERATIONS),
        topology_spread_constraints=fields.mappings("topologySpreadConstraints", max_count=16),
        priority_class_name=fields.text("priorityClassName", max_size=253) or None,
        labels=fields.text_mapping("labels"),
        annotations=fields.text_mapping("annotations"),
        env=env,
    )


def _resources(fields: Fields) -> dict[str, Any]:
    """Passed on as they stand, but for amounts that are none: of these the API server says only that something in the
    StatefulSet is no quantity."""
    resources = fields.mapping("resources")
    for kind in ("requests", "limits"):
        amounts = resources.get(kind)
        for name, amount in amounts.items() if isinstance(amounts, Mapping) else ():
            try:
                parse_quantity("0" if amount is None else str(amount).strip())
            except ValueError:
                fields.fault(f"resources.{kind}.{name}", f"{amount!r} is no amount such as 500m or 2Gi", passed_on=True)
    return resources


def _bucket(fields: Fields) -> BucketSpec:
    bucket = BucketSpec(
        name=fields.text("name", required=True, max_size=63, pattern=limits.BUCKET_NAME),
        deletion_policy=cast(Retention, fields.choice("deletionPolicy", _RETENTIONS, "Retain")),
        owner=fields.text("owner", max_size=limits.MAX_ACCOUNT_NAME_SIZE, pattern=limits.ACCOUNT_NAME) or None,
        versioning=fields.choice("versioning", _VERSIONING, "Suspended") if fields.has("versioning") else None,
        object_lock=_object_lock(fields.child("objectLock")) if fields.has("objectLock") else None,
        object_ownership=_object_ownership(fields),
        encryption=_bucket_encryption(fields.child("encryption")) if fields.has("encryption") else None,
        tags=fields.text_mapping("tags") if fields.has("tags") else None,
        cors=tuple(map(_cors_rule, fields.items("cors", max_count=limits.MAX_CORS_RULES)))
        if fields.has("cors")
        else None,
        lifecycle=parse_lifecycle(fields) if fields.has("lifecycle") else None,
        quota=parse_quota(fields.child("quota")) if fields.has("quota") else None,
        etag=cast(EtagForm, fields.choice("etag", _ETAG_FORMS, DEFAULT_ETAG_FORM)) if fields.has("etag") else None,
        policy=fields.mapping("policy") if fields.has("policy") else None,
    )
    if bucket.tags is not None and len(bucket.tags) > limits.MAX_BUCKET_TAGS:
        fields.fault("tags", f"has {len(bucket.tags)} entries, at most {limits.MAX_BUCKET_TAGS} are allowed")
    if bucket.owner == limits.RESERVED_ACCOUNT:
        fields.fault("owner", f"{bucket.owner!r} is how the tenant's own account is shown: leave the field out")
    if bucket.object_lock is not None and bucket.versioning == "Suspended":
        fields.fault("versioning", "cannot be Suspended: objectLock keeps versions")
    fields.finish()
    return bucket


def _object_lock(fields: Fields) -> ObjectLockSpec | None:
    enabled = fields.flag("enabled", False)
    lock = ObjectLockSpec(
        mode=fields.choice("mode", limits.LOCK_MODES, "GOVERNANCE") if fields.has("mode") else "",
        days=fields.integer("days", 0, low=1, high=limits.MAX_LOCK_DAYS) or 0,
        years=fields.integer("years", 0, low=1, high=limits.MAX_LOCK_YEARS) or 0,
    )
    if lock.mode and fields.has("days") == fields.has("years"):
        fields.fault("mode", "needs either days or years")
    if not lock.mode and (fields.has("days") or fields.has("years")):
        fields.fault("mode", "is required where days or years are given")
    if not enabled and (lock.mode or fields.has("days") or fields.has("years")):
        fields.fault("enabled", "must be true for a default retention")
    fields.finish()
    return lock if enabled else None


def _object_ownership(fields: Fields) -> ObjectOwnership | None:
    if not fields.has("objectOwnership"):
        return None
    return cast(ObjectOwnership, fields.choice("objectOwnership", _OBJECT_OWNERSHIPS, DEFAULT_OBJECT_OWNERSHIP))


def _cors_rule(fields: Fields) -> CorsRule:
    rule = CorsRule(
        id=fields.text("id", max_size=255),
        allowed_origins=fields.texts("allowedOrigins", max_count=limits.MAX_CORS_ENTRIES),
        allowed_methods=fields.texts("allowedMethods", max_count=len(limits.CORS_METHODS)),
        allowed_headers=fields.texts("allowedHeaders", max_count=limits.MAX_CORS_ENTRIES),
        expose_headers=fields.texts("exposeHeaders", max_count=limits.MAX_CORS_ENTRIES),
        max_age_seconds=fields.integer("maxAgeSeconds", None, low=-1, high=limits.MAX_CORS_AGE_SECONDS),
    )
    for name, given in (("allowedOrigins", rule.allowed_origins), ("allowedMethods", rule.allowed_methods)):
        if not given:
            fields.fault(name, "is required")
    for index, method in enumerate(rule.allowed_methods):
        if method not in limits.CORS_METHODS:
            fields.fault(f"allowedMethods[{index}]", f"{method!r} is none of {', '.join(limits.CORS_METHODS)}")
    fields.finish()
    return rule


def _policy(fields: Fields) -> PolicySpec:
    policy = PolicySpec(
        name=fields.text("name", required=True, max_size=128, pattern=limits.POLICY_NAME),
        document=fields.mapping("document"),
    )
    if not policy.document:
        fields.fault("document", "is required")
    if policy.name in limits.BUILT_IN_POLICIES:
        fields.fault("name", f"{policy.name} is built in and cannot be replaced")
    if policy.name.startswith(limits.GENERATED_POLICY_PREFIX):
        fields.fault("name", f"names that begin with {limits.GENERATED_POLICY_PREFIX} are the operator's")
    fields.finish()
    return policy


def _account(fields: Fields) -> AccountSpec:
    account = AccountSpec(
        name=fields.text("name", required=True, max_size=limits.MAX_ACCOUNT_NAME_SIZE, pattern=limits.ACCOUNT_NAME),
        display_name=fields.text("displayName", max_size=limits.MAX_DISPLAY_NAME_SIZE),
    )
    if account.name == limits.RESERVED_ACCOUNT:
        fields.fault("name", f"{account.name!r} is how the tenant's own account is shown, which is always there")
    if not account.display_name.isprintable():
        fields.fault("displayName", "must be printable")
    fields.finish()
    return account


def _user(fields: Fields) -> UserSpec:
    user = UserSpec(
        name=fields.text("name", required=True, max_size=40, pattern=limits.USER_NAME),
        account=fields.text("account", max_size=limits.MAX_ACCOUNT_NAME_SIZE, pattern=limits.ACCOUNT_NAME),
        account_root=fields.flag("accountRoot"),
        secret_name=_secret_reference(fields),
        policies=fields.texts("policies", max_count=limits.MAX_USER_POLICIES),
        buckets=tuple(_grant(grant) for grant in fields.items("buckets", max_count=limits.MAX_BUCKETS)),
    )
    if user.account == limits.RESERVED_ACCOUNT:
        fields.fault("account", f"{user.account!r} is how the tenant's own account is shown: leave the field out")
    if user.account_root and not user.account:
        fields.fault("accountRoot", "is for users of an account: the tenant's own has its root already")
    if user.account_root and (user.policies or user.buckets):
        fields.fault("accountRoot", "may do everything in its account: policies and buckets say nothing beside it")
    fields.finish()
    return user


def _grant(fields: Fields) -> BucketGrant:
    grant = BucketGrant(
        name=fields.text("name", required=True, max_size=63, pattern=limits.BUCKET_NAME),
        access=cast(Access, fields.choice("access", ("ReadWrite", "ReadOnly"), "ReadWrite")),
    )
    fields.finish()
    return grant


def _faults_across_fields(tenant: TenantSpec) -> Iterable[Fault]:
    if not tenant.pools:
        yield Fault("spec.pools", "at least one pool is required")
    yield from _name_faults(tenant)
    for field, values in (
        ("pools", tenant.pools),
        ("buckets", tenant.buckets),
        ("accounts", tenant.accounts),
        ("users", tenant.users),
        ("policies", tenant.policies),
    ):
        seen: set[str] = set()
        for index, item in enumerate(cast(tuple[Any, ...], values)):
            if item.name in seen:
                yield Fault(f"spec.{field}[{index}].name", f"{item.name!r} stands twice")
            seen.add(item.name)
    if sum(pool.servers for pool in tenant.pools) > names.MAX_PODS:
        yield Fault("spec.pools", f"more than {names.MAX_PODS} servers in all")
    for index, bucket in enumerate(tenant.buckets):
        asked = bucket.encryption is not None and bucket.encryption.algorithm != "None"
        if asked and tenant.encryption is None:
            yield Fault(f"spec.buckets[{index}].encryption", "needs the keys of spec.encryption")
    known = {policy.name for policy in tenant.policies} | set(limits.BUILT_IN_POLICIES)
    yield from _account_faults(tenant)
    for index, user in enumerate(tenant.users):
        for place, policy in enumerate(user.policies):
            if policy not in known:
                yield Fault(
                    f"spec.users[{index}].policies[{place}]", f"{policy!r} is neither in spec.policies nor built in"
                )


def _name_faults(tenant: TenantSpec) -> Iterable[Fault]:
    longest = f"{tenant.name}-console"
    if len(longest) > limits.MAX_OBJECT_NAME_SIZE:
        yield Fault("metadata.name", f"the Service {longest!r} would have more than 63 characters")
    if not re.fullmatch(limits.DNS_LABEL, tenant.name):
        yield Fault("metadata.name", f"{tenant.name!r} cannot name a Service: {limits.DNS_LABEL} is needed")
    for index, pool in enumerate(tenant.pools):
        size = len(f"{tenant.name}-pool-{pool.name}")
        if size > limits.MAX_STATEFUL_SET_NAME_SIZE:
            yield Fault(
                f"spec.pools[{index}].name",
                f"'{tenant.name}-pool-{pool.name}' has {size} characters, "
                f"at most {limits.MAX_STATEFUL_SET_NAME_SIZE} are allowed",
            )


def _account_faults(tenant: TenantSpec) -> Iterable[Fault]:
    """Where accounts are declared, users and buckets belong to one of them, and each has one root at most."""
    known = {account.name for account in tenant.accounts}
    for index, bucket in enumerate(tenant.buckets):
        if known and bucket.owner is not None and bucket.owner not in known:
            yield Fault(f"spec.buckets[{index}].owner", f"{bucket.owner!r} is not in spec.accounts")
    roots: set[str] = set()
    for index, user in enumerate(tenant.users):
        if known and user.account and user.account not in known:
            yield Fault(f"spec.users[{index}].account", f"{user.account!r} is not in spec.accounts")
        if user.account_root and user.account in roots:
            yield Fault(f"spec.users[{index}].accountRoot", f"account {user.account!r} has another root already")
        if user.account_root:
            roots.add(user.account)
