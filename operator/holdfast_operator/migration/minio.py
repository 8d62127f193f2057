"""From a MinIO Tenant (`minio.min.io/v2`) to ours: what can be carried over, and a word on everything that cannot.

The input is whatever a person has at hand: the Tenant, and if they are there the Secrets it names (root keys in
`spec.configuration`, users in `spec.users`), as `kubectl get tenant,secret -o yaml` prints them.  The output is a
Tenant and Secrets to apply, and notes; *no field of the input is passed over in silence*.

Invariants: what comes out has passed `parse_tenant`; a field that this module does not know ends as a note.
Not here: the objects themselves (they are copied over S3, `docs/migrating-from-minio.md`), and identity providers,
replication, notification and tiering, which live in the running MinIO and not in its Tenant.
"""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast_operator.credentials import ACCESS_KEY_FORM, ACCESS_KEY_WORDS
from holdfast_operator.labels import TENANT_LABEL
from holdfast_operator.migration.placement import names_of, spread_alone, with_our_labels
from holdfast_operator.tenant.parse import parse_tenant
from holdfast_server.contract import geometry, names
from holdfast_server.contract.keys import MAX_SECRET_KEY_LENGTH, MIN_ACCESS_KEY_LENGTH, MIN_SECRET_KEY_LENGTH

MINIO_GROUP = "minio.min.io/"
_LIKE_OURS = (
    "affinity", "annotations", "labels", "nodeSelector", "resources", "tolerations", "topologySpreadConstraints",
)  # fmt: skip
"""Fields of a pool that mean the same there and here."""
_WITHOUT_MEANING = {
    "mountPath": "pods mount their volumes where they like",
    "subPath": "pods use their volumes whole",
    "podManagementPolicy": "pods always start in parallel",
    "serviceAccountName": "the operator makes one without any rights; spec.serviceAccount.name takes another",
    "logging": "logs are one event per line, key=value",
    "prometheusOperator": "metrics are at /metrics of every pod; spec.metrics has the Prometheus operator scrape them",
    "requestAutoCert": "",
    "s3": "",
}
_DROPPED = {
    "externalCertSecret": "spec.tls with mode: Secret takes one, which has to vouch for the new endpoint",
    "externalCaCertSecret": "nothing is called out to, so no further authority is trusted",
    "externalClientCertSecret": "there is no key server to authenticate to",
    "externalClientCertSecrets": "there is nothing they would be shown to",
    "certConfig": "spec.tls says where certificates come from",
    "kes": "spec.encryption has keys in a Secret; what is encrypted there is decrypted by being copied over S3",
    "sideCars": "the operator runs the storage container only",
    "initContainers": "the operator runs the storage container only",
    "additionalVolumes": "pods mount their configuration and their drives only",
    "additionalVolumeMounts": "pods mount their configuration and their drives only",
    "hostNetwork": "pods are reached through the Service",
    "minioContainerPort": f"S3 is always on port {names.S3_PORT}",
    "consoleContainerPort": f"the console is always on port {names.CONSOLE_PORT}",
    "liveness": "the operator's own probe is used",
    "readiness": "the operator's own probe is used",
    "startup": "the operator's own probe is used",
    "lifecycle": "the operator's own hooks are used",
    "poolsMetadata": "labels and annotations are given per pool",
    "env": "MINIO_* variables mean nothing here; those with a counterpart were taken over",
    "image": "it is MinIO's image; the operator's default is used",
    "imagePullPolicy": "it was chosen for MinIO's image",
    "imagePullSecret": "it was chosen for MinIO's image; add spec.imagePullSecrets if the operator's needs one",
}
_POOL_DROPPED = {
    "securityContext": "pods run as an unprivileged user, which spec.securityContext names, and so does the group",
    "containerSecurityContext": "containers run without privileges and with a read-only root",
    "runtimeClassName": "the cluster's default is used",
    "reclaimStorage": "claims outlive the Tenant unless spec.claimRetention is Delete",
}
_CARRIED_VARIABLES = (
    "MINIO_ROOT_USER",
    "MINIO_ROOT_PASSWORD",
    "MINIO_ACCESS_KEY",
    "MINIO_SECRET_KEY",
    "MINIO_REGION",
    "MINIO_REGION_NAME",
    "MINIO_SITE_REGION",
    "MINIO_DOMAIN",
    "MINIO_STORAGE_CLASS_STANDARD",
    "MINIO_STORAGE_CLASS_RRS",
)
_PARITIES = {
    "MINIO_STORAGE_CLASS_STANDARD": "parity",
    "MINIO_STORAGE_CLASS_RRS": "reducedRedundancyParity",
}
_BY_TOOLS = ("kubectl.kubernetes.io/", "app.kubernetes.io/managed-by", "meta.helm.sh/", "helm.sh/")
_EC = re.compile(r"EC:(\d+)")


class ConversionError(ValueError):
    """There is no Tenant in the input, or what it describes cannot be run; the message names the fields."""


@dataclass(frozen=True, slots=True)
class Converted:
    manifests: tuple[dict[str, Any], ...]
    """Secrets, then the Tenant: apply them in this order."""
    notes: tuple[str, ...]
    """`<field>: <what became of it>`, for a person to read."""


@dataclass(slots=True)
class _Conversion:
    """One conversion under way."""

    tenant: Mapping[str, Any]
    secrets: Mapping[str, Mapping[str, str]]
    """Decoded, by name; only those of the Tenant's namespace."""
    notes: list[str] = field(default_factory=list)
    made: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return str(self.tenant["metadata"]["name"])

    def note(self, where: str, what: str) -> None:
        self.notes.append(f"{where}: {what}")


def convert(documents: Iterable[Any]) -> Converted:
    """Convert the one MinIO Tenant among `documents`.  Raises ConversionError."""
    everything = list(_flattened(documents))
    tenants = [d for d in everything if d.get("kind") == "Tenant" and str(d.get("apiVersion")).startswith(MINIO_GROUP)]
    if len(tenants) != 1:
        raise ConversionError(f"one Tenant of {MINIO_GROUP}v2 is needed, {len(tenants)} were found")
    tenant = tenants[0]
    namespace = tenant["metadata"].get("namespace")
    secrets = {
        document["metadata"]["name"]: _decoded(document)
        for document in everything
        if document.get("kind") == "Secret" and document["metadata"].get("namespace") == namespace
    }
    conversion = _Conversion(tenant, secrets)
    metadata = {"name": conversion.name, **({"namespace": namespace} if namespace else {})}
    ours = {
        "apiVersion": "holdfast.dev/v1",
        "kind": "Tenant",
        "metadata": metadata,
        "spec": _spec(conversion, tenant.get("spec") or {}),
    }
    _beside_the_spec(conversion)
    parsed = parse_tenant({**ours, "metadata": {"namespace": "", "uid": "", **metadata}})
    if parsed.faults:
        raise ConversionError("; ".join(str(fault) for fault in parsed.faults))
    return Converted((*conversion.made, ours), tuple(conversion.notes))


def _spec(conversion: _Conversion, spec: Mapping[str, Any]) -> dict[str, Any]:
    rest = dict(spec)
    variables = _variables(conversion, rest)
    result: dict[str, Any] = {}
    _root(conversion, rest, variables, result)
    region = next(
        (variables[n] for n in ("MINIO_SITE_REGION", "MINIO_REGION", "MINIO_REGION_NAME") if n in variables), ""
    )
    if region:
        result["region"] = region
    domains = _domains(conversion, rest.pop("features", None) or {}, variables)
    if domains:
        result["domains"] = domains
    erasure = _erasure(conversion, variables)
    service = _service(conversion, rest.pop("exposeServices", None) or {}, rest.pop("serviceMetadata", None) or {})
    if service:
        result["service"] = service
    priority = rest.pop("priorityClassName", "")
    result["pools"] = [
        _pool(conversion, index, pool, erasure, priority) for index, pool in enumerate(rest.pop("pools", None) or [])
    ]
    buckets = rest.pop("buckets", None) or []
    if buckets:
        result["buckets"] = [_bucket(conversion, index, bucket) for index, bucket in enumerate(buckets)]
    users = rest.pop("users", None) or []
    if users:
        result["users"] = [_user(conversion, index, user["name"]) for index, user in enumerate(users)]
    rest.setdefault("requestAutoCert")  # left out it is the same as true there
    for key, value in rest.items():
        _left_over(conversion, f"spec.{key}", key, value, {**_WITHOUT_MEANING, **_DROPPED})
    return result


def _beside_the_spec(conversion: _Conversion) -> None:
    """What MinIO's operator hands on to the pods, and what tools alone have written."""
    metadata = conversion.tenant["metadata"]
    for kind in ("labels", "annotations"):
        given = [key for key in metadata.get(kind) or {} if not key.startswith(_BY_TOOLS)]
        if given:
            what = f"not carried over to the pods: {', '.join(given)}; spec.pools[].{kind} has those of pods here"
            conversion.note(f"metadata.{kind}", what)
    if (conversion.tenant.get("scheduler") or {}).get("name"):
        conversion.note("scheduler", "not carried over: the cluster's default scheduler places the pods")


def _left_over(conversion: _Conversion, where: str, key: str, value: Any, reasons: Mapping[str, str]) -> None:
    if value in (None, {}, [], "", False) or reasons.get(key) == "":
        if key == "requestAutoCert" and value is not False:
            conversion.note(
                where, "not carried over: the Tenant serves plain http, unless spec.tls.mode: SelfSigned is added"
            )
        return
    word = "has no counterpart" if key in _WITHOUT_MEANING else "not carried over"
    conversion.note(where, f"{word}: {reasons[key]}" if key in reasons else "not carried over: it is not known here")


# --- keys


def _variables(conversion: _Conversion, rest: dict[str, Any]) -> dict[str, str]:
    """MinIO's environment: `config.env` of the configuration Secret, and literal values of `spec.env`."""
    found: dict[str, str] = {}
    reference = (rest.pop("configuration", None) or {}).get("name")
    if reference and reference not in conversion.secrets:
        what = "root keys, region, parity and domains in its config.env are not known here"
        conversion.note("spec.configuration", f"Secret {reference} was not given: {what}")
    elif reference:
        found.update(_config_env(conversion.secrets[reference].get("config.env", "")))
    for variable in rest.get("env") or []:
        if "value" in variable:
            found[str(variable["name"])] = str(variable["value"])
    for name in sorted(set(found) - set(_CARRIED_VARIABLES)):
        conversion.note(f"environment {name}", "not carried over")
    if all(
        str(variable.get("name")) in _CARRIED_VARIABLES and "value" in variable for variable in rest.get("env") or []
    ):
        rest.pop("env", None)
    return found


def _config_env(text: str) -> dict[str, str]:
    """`export NAME="value"` lines, as a shell reads them.  Raises ConversionError."""
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise ConversionError(f"spec.configuration: config.env cannot be read, line {number}: {error}") from error
        for word in words[1:] if words[:1] == ["export"] else words[:1]:
            name, separator, value = word.partition("=")
            if separator:
                found[name] = value
    return found


def _root(conversion: _Conversion, rest: dict[str, Any], variables: Mapping[str, str], result: dict[str, Any]) -> None:
    old = str((rest.pop("credsSecret", None) or {}).get("name"))
    user = variables.get("MINIO_ROOT_USER") or variables.get("MINIO_ACCESS_KEY")
    password = variables.get("MINIO_ROOT_PASSWORD") or variables.get("MINIO_SECRET_KEY")
    if not (user and password) and old in conversion.secrets:
        keys = conversion.secrets[old]
        user, password = keys.get("accesskey"), keys.get("secretkey")
    if user and password:
        name = f"{conversion.name}-minio-root"
        conversion.made.append(_secret(conversion, name, user, password))
        result["rootCredentials"] = {"secretRef": {"name": name}}
        conversion.note("root keys", f"kept, in Secret {name}")
        _note_keys(conversion, "root keys", name, user, password)
    else:
        conversion.note("root keys", f"not found in the input; new ones are generated in Secret {conversion.name}-root")


def _user(conversion: _Conversion, index: int, secret: str) -> dict[str, Any]:
    name = re.sub(r"[^a-z0-9-]+", "-", secret.lower()).strip("-")[:40].strip("-") or f"user-{index}"
    where = f"spec.users[{index}]"
    # MinIO's operator gives every user that it makes the policy consoleAdmin.
    user: dict[str, Any] = {"name": name, "policies": ["consoleAdmin"]}
    keys = conversion.secrets.get(secret)
    if keys is None:
        conversion.note(where, f"Secret {secret} was not given: new keys are generated")
    elif keys.get("CONSOLE_ACCESS_KEY") and keys.get("CONSOLE_SECRET_KEY"):
        made = f"{conversion.name}-minio-user-{name}"
        conversion.made.append(_secret(conversion, made, keys["CONSOLE_ACCESS_KEY"], keys["CONSOLE_SECRET_KEY"]))
        user["secretRef"] = {"name": made}
        conversion.note(where, f"keys kept, in Secret {made}")
        _note_keys(conversion, where, made, keys["CONSOLE_ACCESS_KEY"], keys["CONSOLE_SECRET_KEY"])
    else:
        conversion.note(
            where, f"Secret {secret} has no CONSOLE_ACCESS_KEY and CONSOLE_SECRET_KEY: new keys are generated"
        )
    conversion.note(where, "has the policy consoleAdmin, as there; consider fewer rights")
    return user


def _secret(conversion: _Conversion, name: str, access_key: str, secret_key: str) -> dict[str, Any]:
    metadata = {"name": name}
    if conversion.tenant["metadata"].get("namespace"):
        metadata["namespace"] = conversion.tenant["metadata"]["namespace"]
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "stringData": {"accessKey": access_key, "secretKey": secret_key},
    }


def _note_keys(conversion: _Conversion, where: str, name: str, access_key: str, secret_key: str) -> None:
    """What of them is not taken here."""
    faults = []
    if not ACCESS_KEY_FORM.fullmatch(access_key):
        faults.append(f"accessKey has to have {MIN_ACCESS_KEY_LENGTH} characters at least, and {ACCESS_KEY_WORDS}")
    if not MIN_SECRET_KEY_LENGTH <= len(secret_key) <= MAX_SECRET_KEY_LENGTH:
        faults.append(f"secretKey has to have {MIN_SECRET_KEY_LENGTH} to {MAX_SECRET_KEY_LENGTH} characters")
    if faults:
        conversion.note(where, f"change them in Secret {name} before you apply it: {'; '.join(faults)}")


# --- how clients get in


def _service(conversion: _Conversion, exposed: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    service: dict[str, Any] = {}
    for key, value in exposed.items():
        if key == "minio" and value:
            service["type"] = "LoadBalancer"
        elif value:
            conversion.note(f"spec.exposeServices.{key}", "not carried over: there is no console yet")
    for key, value in metadata.items():
        ours = {"minioServiceLabels": "labels", "minioServiceAnnotations": "annotations"}.get(key)
        if ours and value:
            service[ours] = dict(value)
        elif value:
            conversion.note(f"spec.serviceMetadata.{key}", "not carried over: there is no such Service to be reached")
    return service


# --- pools and what they hold


def _erasure(conversion: _Conversion, variables: Mapping[str, str]) -> dict[str, int]:
    """What is said of parity."""
    said = {}
    for name, ours in _PARITIES.items():
        value = variables.get(name, "")
        matched = _EC.fullmatch(value)
        if matched:
            said[ours] = int(matched[1])
        elif value:
            conversion.note(name, f"{value!r} is not EC:<parity>; the default parity is used")
    return said


def _pool(
    conversion: _Conversion, index: int, pool: Mapping[str, Any], erasure: Mapping[str, int], priority: str
) -> dict[str, Any]:
    rest = dict(pool)
    where = f"spec.pools[{index}]"
    result: dict[str, Any] = {
        "name": _pool_name(conversion, where, index, rest.pop("name", "")),
        "servers": rest.pop("servers", 0),
        "volumesPerServer": rest.pop("volumesPerServer", 0),
    }
    fitting = _fitting(conversion, f"{where}.erasure", result, erasure)
    if fitting:
        result["erasure"] = fitting
    result["volumeClaimTemplate"] = _claim(conversion, where, rest.pop("volumeClaimTemplate", None) or {})
    result.update({key: rest.pop(key) for key in _LIKE_OURS if rest.get(key)})
    if priority:
        result["priorityClassName"] = priority
    _placement(conversion, where, result)
    for key, value in rest.items():
        _left_over(conversion, f"{where}.{key}", key, value, _POOL_DROPPED)
    return result


def _placement(conversion: _Conversion, where: str, pool: dict[str, Any]) -> None:
    """Rules that name MinIO's pods are about ours from now on."""
    pools = enumerate(conversion.tenant["spec"]["pools"])
    own = names_of(conversion.name, {str(one.get("name")): _our_name(index, one.get("name")) for index, one in pools})
    spread = spread_alone(pool.get("affinity", {}), own)
    if spread is not None:
        del pool["affinity"]
        pool["spreadOverNodes"] = spread
        conversion.note(f"{where}.affinity", f"is spreadOverNodes: {spread} here")
    for key in ("affinity", "topologySpreadConstraints"):
        ours = with_our_labels(pool.get(key), own)
        if ours != pool.get(key):
            pool[key] = ours
            name = f"{TENANT_LABEL}: {conversion.name}"
            conversion.note(f"{where}.{key}", f"names pods by {name} here; change it with the Tenant's name")


def _fitting(
    conversion: _Conversion, where: str, pool: Mapping[str, Any], erasure: Mapping[str, int]
) -> dict[str, int]:
    """Without a reduced parity that this pool's objects could not be read with while one pod is away."""
    servers, volumes, reduced = pool["servers"], pool["volumesPerServer"], erasure.get("reducedRedundancyParity")
    fitting = dict(erasure)
    try:
        quorums = geometry.resolve(servers, volumes, None, erasure.get("parity"))
        geometry.reduced_parity(servers, volumes, quorums, reduced)
    except (geometry.GeometryError, TypeError) as error:
        if fitting.pop("reducedRedundancyParity", None) is not None:
            conversion.note(where, f"{error}; the default is used")
    return fitting


def _pool_name(conversion: _Conversion, where: str, index: int, name: str) -> str:
    ours = _our_name(index, name)
    if ours != name:
        conversion.note(f"{where}.name", f"is {ours!r} here")
    return ours


def _our_name(index: int, name: str | None) -> str:
    cleaned = re.sub(r"[^a-z0-9-]+", "-", (name or "").lower()).strip("-")
    return cleaned if cleaned[:1].isalpha() else f"pool-{cleaned or index}"


def _claim(conversion: _Conversion, where: str, claim: Mapping[str, Any]) -> dict[str, Any]:
    spec = dict(claim.get("spec") or {})
    kept = {key: spec.pop(key) for key in ("storageClassName", "accessModes") if spec.get(key)}
    resources = {kind: dict(sizes or {}) for kind, sizes in (spec.pop("resources", None) or {}).items()}
    storage = resources.get("requests", {}).pop("storage", "")
    spec |= {f"resources.{kind}": sizes for kind, sizes in resources.items() if sizes}
    for key in (*spec, *(["metadata"] if set(claim.get("metadata") or {}) - {"name", "creationTimestamp"} else [])):
        conversion.note(f"{where}.volumeClaimTemplate {key}", "not carried over")
    return {"spec": {**kept, "resources": {"requests": {"storage": str(storage)}}}}


def _bucket(conversion: _Conversion, index: int, bucket: Mapping[str, Any]) -> dict[str, Any]:
    if bucket.get("region"):
        conversion.note(f"spec.buckets[{index}].region", "a Tenant has one region, spec.region")
    return {"name": bucket["name"], **({"objectLock": {"enabled": True}} if bucket.get("objectLock") else {})}


def _domains(conversion: _Conversion, features: Mapping[str, Any], variables: Mapping[str, str]) -> list[str]:
    given = dict(features)
    domains = dict(given.pop("domains", None) or {})
    listed: Sequence[str] = [*(domains.pop("minio", None) or []), *variables.get("MINIO_DOMAIN", "").split(",")]
    if domains.get("console"):
        conversion.note("spec.features.domains.console", "not carried over: expose the console with an Ingress")
    if given.pop("bucketDNS", False):
        conversion.note(
            "spec.features.bucketDNS", "add the Service's own name to spec.domains, and DNS for its buckets"
        )
    for key, value in given.items():
        if value:
            conversion.note(f"spec.features.{key}", "not carried over: it is not served")
    hosts = [re.sub(r"^[a-z]+://", "", domain.strip()).partition("/")[0].partition(":")[0] for domain in listed]
    return list(dict.fromkeys(host.lower() for host in hosts if host))


# --- input


def _flattened(documents: Iterable[Any]) -> Iterable[Mapping[str, Any]]:
    for document in documents:
        if not isinstance(document, dict):
            continue
        if document.get("kind") == "List":
            yield from _flattened(document.get("items") or [])
        elif isinstance(document.get("metadata"), dict) and document["metadata"].get("name"):
            yield document


def _decoded(secret: Mapping[str, Any]) -> dict[str, str]:
    """What is no text is left out: keys are, and the others of the namespace are not asked for anything."""
    data = {}
    for key, value in (secret.get("data") or {}).items():
        try:
            data[key] = base64.b64decode(value or "").decode()
        except ValueError:
            continue
    return {**data, **(secret.get("stringData") or {})}
