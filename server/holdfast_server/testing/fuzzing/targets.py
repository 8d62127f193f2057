"""All fuzz targets."""

from __future__ import annotations

from holdfast_server.testing.fuzzing import bodies, documents, headers, policies, requests, wire

TARGETS = (*requests.TARGETS, *bodies.TARGETS, *policies.TARGETS, *documents.TARGETS, *headers.TARGETS, *wire.TARGETS)
