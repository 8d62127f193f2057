"""Fixed names: ports, paths and file names that others rely on (the contract of `docs/architecture.md`)."""

S3_PORT = 9000
CONSOLE_PORT = 9001
PEER_PORT = 9010

HEALTH_LIVE_PATH = "/health/live"
HEALTH_READY_PATH = "/health/ready"
HEALTH_CLUSTER_PATH = "/health/cluster"
METRICS_PATH = "/metrics"
ADMIN_PREFIX = "/holdfast/admin/v1"
"""Everything below it is the admin API: JSON, signed with SigV4 as service `s3`, root or consoleAdmin only."""

CONFIG_VERSION = 1
DEFAULT_REGION = "us-east-1"

MAX_KEY_SIZE_BYTES = 1024
MAX_PODS = 1024
"""Stamps carry ten bits of pod number."""
