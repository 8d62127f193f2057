"""The JSON of the admin API, below `names.ADMIN_PREFIX`; every request is signed (SigV4, service `s3`).

    GET    /info                        → ClusterHealth (see `health`)
    GET    /users                       → list[UserInfo]
    PUT    /users/{accessKey}           ← UserSpec        create or replace, idempotent
    DELETE /users/{accessKey}                             204 also when absent
    GET    /policies                    → list[str]
    PUT    /policies/{name}             ← an IAM policy document (AWS's language), 400 with the field if bad
    DELETE /policies/{name}                               204 also when absent

Errors are JSON too: {"code": "...", "message": "..."} with the S3 status codes.
Built-in policies that always exist: readonly, readwrite, writeonly, diagnostics, consoleAdmin.
"""

from __future__ import annotations

import msgspec


class _Struct(msgspec.Struct, frozen=True, rename="camel"):
    pass


class UserSpec(_Struct, frozen=True, kw_only=True):
    secret_key: str
    name: str = ""
    """The declared name, for people and ARNs; the access key where empty."""
    policies: list[str] = []
    enabled: bool = True


class UserInfo(_Struct, frozen=True, kw_only=True):
    access_key: str
    name: str = ""
    policies: list[str] = []
    enabled: bool = True


class AdminError(_Struct, frozen=True, kw_only=True):
    code: str
    message: str
