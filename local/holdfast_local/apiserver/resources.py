"""The kinds that are served: a table of built-in ones, and those that CustomResourceDefinitions add while we run.

A `Resource` is one version of one kind. Versions of a kind share their stored objects through `Resource.storage`;
core events and events.k8s.io events do, too.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from holdfast_local.apiserver.definitions import OBJECT_META, Definitions, Schema

Object = dict[str, Any]
StorageKey = tuple[str, str]
"""Group and plural: objects of one kind, whatever the version."""

OBJECT_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Resource:
    """One version of one kind, as discovery announces it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    singular: str
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: frozenset[str] = frozenset()
    verbs: tuple[str, ...] = OBJECT_VERBS
    has_generation: bool = False
    custom: bool = False
    schema: Schema = field(default_factory=dict, compare=False, repr=False)
    """Resolved: `$ref`s followed, `metadata` included; empty when nothing is known about the kind."""
    definition_name: str = ""
    columns: tuple[Schema, ...] = field(default=(), compare=False, repr=False)
    """additionalPrinterColumns of a custom kind."""
    scale_paths: Schema = field(default_factory=dict, compare=False, repr=False)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified_plural(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified_kind(self) -> str:
        return f"{self.kind}.{self.group}" if self.group else self.kind

    @property
    def storage(self) -> StorageKey:
        return ("", "events") if self.kind == "Event" else (self.group, self.plural)

    @property
    def has_status(self) -> bool:
        return "status" in self.subresources


_WORKLOAD = ("status", "scale")
_CREATE_ONLY = ("create",)

_BUILTIN: tuple[tuple[str, str, str, bool, tuple[str, ...], tuple[str, ...], bool], ...] = (
    # apiVersion, plural, kind, namespaced, short names, subresources, has generation
    ("v1", "namespaces", "Namespace", False, ("ns",), ("status", "finalize"), False),
    ("v1", "pods", "Pod", True, ("po",), ("status", "log", "eviction", "binding"), True),
    ("v1", "services", "Service", True, ("svc",), ("status",), False),
    ("v1", "endpoints", "Endpoints", True, ("ep",), (), False),
    ("v1", "configmaps", "ConfigMap", True, ("cm",), (), False),
    ("v1", "secrets", "Secret", True, (), (), False),
    ("v1", "persistentvolumeclaims", "PersistentVolumeClaim", True, ("pvc",), ("status",), False),
    ("v1", "persistentvolumes", "PersistentVolume", False, ("pv",), ("status",), False),
    ("v1", "serviceaccounts", "ServiceAccount", True, ("sa",), ("token",), False),
    ("v1", "nodes", "Node", False, ("no",), ("status",), False),
    ("v1", "events", "Event", True, ("ev",), (), False),
    ("v1", "resourcequotas", "ResourceQuota", True, ("quota",), ("status",), False),
    ("v1", "limitranges", "LimitRange", True, ("limits",), (), False),
    ("apps/v1", "statefulsets", "StatefulSet", True, ("sts",), _WORKLOAD, True),
    ("apps/v1", "deployments", "Deployment", True, ("deploy",), _WORKLOAD, True),
    ("apps/v1", "replicasets", "ReplicaSet", True, ("rs",), _WORKLOAD, True),
    ("apps/v1", "daemonsets", "DaemonSet", True, ("ds",), ("status",), True),
    ("apps/v1", "controllerrevisions", "ControllerRevision", True, (), (), False),
    ("batch/v1", "jobs", "Job", True, (), ("status",), True),
    ("batch/v1", "cronjobs", "CronJob", True, ("cj",), ("status",), True),
    ("events.k8s.io/v1", "events", "Event", True, ("ev",), (), False),
    ("discovery.k8s.io/v1", "endpointslices", "EndpointSlice", True, (), (), True),
    ("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget", True, ("pdb",), ("status",), True),
    ("coordination.k8s.io/v1", "leases", "Lease", True, (), (), False),
    ("networking.k8s.io/v1", "ingresses", "Ingress", True, ("ing",), ("status",), True),
    ("networking.k8s.io/v1", "ingressclasses", "IngressClass", False, (), (), True),
    ("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", True, ("netpol",), (), True),
    ("storage.k8s.io/v1", "storageclasses", "StorageClass", False, ("sc",), (), False),
    ("scheduling.k8s.io/v1", "priorityclasses", "PriorityClass", False, ("pc",), (), True),
    ("rbac.authorization.k8s.io/v1", "roles", "Role", True, (), (), False),
    ("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding", True, (), (), False),
    ("rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole", False, (), (), False),
    ("rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding", False, (), (), False),
    (
        "apiextensions.k8s.io/v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        False,
        ("crd", "crds"),
        ("status",),
        True,
    ),
    (
        "admissionregistration.k8s.io/v1",
        "validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
        False,
        (),
        (),
        True,
    ),
    (
        "admissionregistration.k8s.io/v1",
        "mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
        False,
        (),
        (),
        True,
    ),
)
_REVIEWS = (
    ("authorization.k8s.io/v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False),
    ("authorization.k8s.io/v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview", False),
    ("authorization.k8s.io/v1", "subjectaccessreviews", "SubjectAccessReview", False),
    ("authorization.k8s.io/v1", "localsubjectaccessreviews", "LocalSubjectAccessReview", True),
    ("authentication.k8s.io/v1", "selfsubjectreviews", "SelfSubjectReview", False),
    ("authentication.k8s.io/v1", "tokenreviews", "TokenReview", False),
)
_IN_ALL = frozenset(
    {"pods", "services", "statefulsets", "deployments", "replicasets", "daemonsets", "jobs", "cronjobs"}
)

NAMESPACES: StorageKey = ("", "namespaces")
PODS: StorageKey = ("", "pods")
CRDS: StorageKey = ("apiextensions.k8s.io", "customresourcedefinitions")


class Registry:
    """All served resources; changes only when a CustomResourceDefinition does."""

    def __init__(self, definitions: Definitions) -> None:
        self.definitions = definitions
        self._served: dict[tuple[str, str, str], Resource] = {}
        self.generation = 0
        """Counts changes, so that cached documents know when they are stale."""
        for api_version, plural, kind, namespaced, short, subresources, counted in _BUILTIN:
            self.add(self._builtin(api_version, plural, kind, namespaced, short, subresources, counted))
        for api_version, plural, kind, namespaced in _REVIEWS:
            review = self._builtin(api_version, plural, kind, namespaced, (), (), False, _CREATE_ONLY)
            self.add(review)

    def _builtin(
        self,
        api_version: str,
        plural: str,
        kind: str,
        namespaced: bool,
        short_names: tuple[str, ...],
        subresources: tuple[str, ...],
        has_generation: bool,
        verbs: tuple[str, ...] = OBJECT_VERBS,
    ) -> Resource:
        group, _, version = api_version.rpartition("/")
        name = self.definitions.name_of(group, version, kind) or ""
        return Resource(
            group=group,
            version=version,
            plural=plural,
            kind=kind,
            namespaced=namespaced,
            singular=kind.lower(),
            short_names=short_names,
            categories=("all",) if plural in _IN_ALL else (),
            subresources=frozenset(subresources),
            verbs=verbs,
            has_generation=has_generation,
            schema=self.definitions.resolve(name) if name else {},
            definition_name=name,
        )

    def add(self, resource: Resource) -> None:
        self._served[resource.group, resource.version, resource.plural] = resource
        self.generation += 1

    def remove(self, group: str, plural: str) -> None:
        """Stops serving every version of a kind."""
        for key in [key for key in self._served if key[0] == group and key[2] == plural]:
            del self._served[key]
        self.generation += 1

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._served.get((group, version, plural))

    def by_storage(self, key: StorageKey) -> Resource:
        """Any served version of a kind (the preferred one for built-in kinds); KeyError if none is."""
        for resource in self._served.values():
            if resource.storage == key and (resource.group, resource.plural) == key:
                return resource
        raise KeyError(key)

    def by_kind(self, api_version: str, kind: str) -> Resource | None:
        for resource in self._served.values():
            if resource.kind == kind and resource.api_version == api_version:
                return resource
        return None

    def __iter__(self) -> Iterator[Resource]:
        return iter(tuple(self._served.values()))

    def groups(self) -> dict[str, dict[str, list[Resource]]]:
        """group → version → resources, in the order in which they were added; core is the group ''."""
        groups: dict[str, dict[str, list[Resource]]] = {}
        for resource in self._served.values():
            groups.setdefault(resource.group, {}).setdefault(resource.version, []).append(resource)
        return groups


def with_metadata(schema: Schema, definitions: Definitions) -> Schema:
    """The schema of a custom kind with the parts that every object has."""
    properties = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        **(schema.get("properties") or {}),
        "metadata": definitions.resolve(OBJECT_META),
    }
    return {**schema, "type": "object", "properties": properties}


def custom_resources(crd: Object, definitions: Definitions) -> Iterator[Resource]:
    """The served versions that a CustomResourceDefinition asks for."""
    spec = crd["spec"]
    names = spec["names"]
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        free_form: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        subresources = version.get("subresources") or {}
        yield Resource(
            group=spec["group"],
            version=version["name"],
            plural=names["plural"],
            kind=names["kind"],
            namespaced=spec["scope"] == "Namespaced",
            singular=names.get("singular") or names["kind"].lower(),
            short_names=tuple(names.get("shortNames") or ()),
            categories=tuple(names.get("categories") or ()),
            subresources=frozenset(subresources),
            has_generation=True,
            custom=True,
            schema=with_metadata(schema or free_form, definitions),
            columns=tuple(version.get("additionalPrinterColumns") or ()),
            scale_paths=dict(subresources.get("scale") or {}),
        )
