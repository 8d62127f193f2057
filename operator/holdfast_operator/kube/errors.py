"""What can go wrong when talking to Kubernetes, sorted by what a caller can do about it."""

from __future__ import annotations


class KubeError(Exception):
    """Root of all failures of the Kubernetes API; the message is fit for a condition."""


class KubeUnavailable(KubeError):
    """No answer, a 5xx, or 429: nothing is known of the outcome; try again later."""


class WebhookAway(KubeUnavailable):
    """5xx where the API server answers, and an admission webhook that it has to ask does not, or cannot judge: about
    these objects alone, and for as long as its owner lets it."""


class KubeForbidden(KubeError):
    """401 or 403: the operator's role does not allow it; only an administrator can help."""


class NamespaceEnding(KubeError):
    """403 of a namespace that is being deleted, in which nothing can be made any more: the Tenant goes, too."""


class KubeConflict(KubeError):
    """409: the object exists already, or has changed since it was read; read again and decide anew."""


class KubeRejected(KubeError):
    """400, 404 of a kind, 415 or 422: the request itself is wrong and will stay so until something changes."""


class EvictionRefused(KubeError):
    """429 of the Eviction API: a disruption budget forbids it now; wait."""


class WatchExpired(KubeError):
    """410, or an error within the stream: what is known may have gaps; list again."""


REFUSALS = (KubeRejected, KubeForbidden, WebhookAway)
"""What the API server says of one object, and may say for long: by a right, a quota or an admission webhook.  It must
not keep the rest of a pass from being done."""
