"""Bounds of a Tenant's fields, the same as in `crds/tenant.yaml` (a test compares them)."""

from __future__ import annotations

MAX_POOLS = 16
MAX_SERVERS = 256
MAX_VOLUMES_PER_SERVER = 64
MAX_BUCKETS = 256
LOCK_MODES = ("GOVERNANCE", "COMPLIANCE")
MAX_LOCK_DAYS = 36_500
MAX_LOCK_YEARS = 100
MAX_BUCKET_TAGS = 50
MAX_LIFECYCLE_RULES = 64
MAX_LIFECYCLE_DAYS = 36_500
MAX_OBJECT_TAGS = 10
MAX_FILTER_SIZE_BYTES = 1 << 50
DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
MAX_CORS_RULES = 100
MAX_CORS_ENTRIES = 64
MAX_CORS_AGE_SECONDS = 2_147_483_647
CORS_METHODS = ("GET", "PUT", "POST", "DELETE", "HEAD")
MAX_USERS = 256
MAX_ACCOUNTS = 64
MAX_DISPLAY_NAME_SIZE = 128
MAX_POLICIES = 64
MAX_USER_POLICIES = 32
MAX_DOMAINS = 16
MAX_ENV = 64
MAX_TOLERATIONS = 32
MAX_PULL_SECRETS = 8
MAX_TLS_NAMES = 32
MAX_RETIRED_KEYS = 100
BUCKET_ALGORITHMS = ("AES256", "aws:kms", "None")
MAX_INGRESS_HOSTS = 16
MAX_NETWORK_CLIENTS = 32
MAX_NETWORKS = 32
MAX_GROUPS = 16
MAX_ID = 2**31 - 1
"""Of users and groups of a pod."""
MAX_PORT = 65535
MAX_KEY_OVERLAP_SECONDS = 7 * 24 * 3600

MAX_STATEFUL_SET_NAME_SIZE = 52
"""A pod's `controller-revision-hash` label is this name with eleven characters more, 63 at most."""
MAX_OBJECT_NAME_SIZE = 63
"""Names of Services are DNS labels."""

DNS_LABEL = r"[a-z]([-a-z0-9]*[a-z0-9])?"
"""Names that become parts of Service names, which must begin with a letter."""
BUCKET_NAME = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
USER_NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
ACCOUNT_NAME = r"[A-Za-z0-9_.@=+,-]+"
MAX_ACCOUNT_NAME_SIZE = 128
RESERVED_ACCOUNT = "root"
"""How the tenant's own account, which has no name, is shown."""
POLICY_NAME = r"[A-Za-z0-9][A-Za-z0-9+=,.@_-]*"
QUANTITY = r"[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|Ei|k|M|G|T|P|E)?"
DOMAIN = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
TLS_NAME = r"(\*\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?|[0-9a-f:]*:[0-9a-f:.]*"
"""A DNS name, also a wildcard's, or an IP address."""
INGRESS_HOST = r"(\*\.)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
NETWORK = r"[0-9a-fA-F:.]+/[0-9]{1,3}"
REGION = r"[a-z0-9][a-z0-9-]*"
ENCRYPTION_KEY = r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}"
ENCRYPTION_ENTRY = r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}(\.[1-9][0-9]{0,5})?"
"""A key's name, and that with a generation."""
AUDIT_URL = r"https?://[^\s/@]+(/\S*)?"
MAX_URL_SIZE = 2048
MIN_SCRAPE_SECONDS = 5
MAX_SCRAPE_SECONDS = 3600
SECRET_NAME = r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?"
"""And of other objects that the Tenant names."""

BUILT_IN_POLICIES = ("readonly", "readwrite", "writeonly", "diagnostics", "consoleAdmin")
GENERATED_POLICY_PREFIX = "tenant-user-"
