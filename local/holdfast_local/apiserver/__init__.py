"""A Kubernetes API server for laptops and tests: real clients work against it unmodified.

Layers, top to bottom: `server` (life cycle, TLS) → `http` (requests, watches, discovery, tables) → `access` (tokens,
RBAC) → `writing`/`deleting` (what a write means) → `kinds`, `schema`, `patches`, `ownership` (pure rules on plain
dictionaries) → `storage` (objects in memory, journalled in SQLite). `controllers` run beside and use the same store.

May import: the standard library, aiohttp, cryptography, PyYAML, jsonpatch, `cel` and the OpenAPI definitions that
the package kubernetes-validate carries. Not done here: admission webhooks, aggregation, exec and port-forward,
quotas, priorities, conversion between versions of a custom resource other than renaming.
"""
