"""The policies that always exist, under the names and with the meaning MinIO's users know.

`readonly` reads objects whose names are known and does not list; `writeonly` only puts.
"""

from __future__ import annotations

from holdfast_server.auth.policy import Policy, parse_policy


def _policy(*statements: tuple[list[str], bool]) -> dict[str, object]:
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": actions, **({"Resource": ["arn:aws:s3:::*"]} if on_s3 else {})}
            for actions, on_s3 in statements
        ],
    }


DOCUMENTS: dict[str, dict[str, object]] = {
    "readonly": _policy((["s3:GetBucketLocation", "s3:GetObject"], True)),
    "readwrite": _policy((["s3:*"], True)),
    "writeonly": _policy((["s3:PutObject"], True)),
    "diagnostics": _policy((["admin:ServerInfo", "admin:ServerTrace", "admin:Prometheus"], False)),
    "consoleAdmin": _policy((["admin:*"], False), (["s3:*"], True)),
}
"""name → document."""


_AWS_DOCUMENTS: dict[str, dict[str, object]] = {
    "AdministratorAccess": {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]},
    "AmazonS3FullAccess": _policy((["s3:*"], True)),
    "AmazonS3ReadOnlyAccess": _policy((["s3:Get*", "s3:List*"], True)),
    "IAMFullAccess": {"Statement": [{"Effect": "Allow", "Action": "iam:*", "Resource": "*"}]},
    "IAMReadOnlyAccess": {"Statement": [{"Effect": "Allow", "Action": ["iam:Get*", "iam:List*"], "Resource": "*"}]},
}
"""Under the names that AWS's clients attach, with AWS's meaning as far as there is anything here that it is
about.  Known to the IAM API alone."""


def aws_policies() -> dict[str, Policy]:
    return {name: parse_policy(document) for name, document in _AWS_DOCUMENTS.items()}


def aws_document(name: str) -> dict[str, object] | None:
    return _AWS_DOCUMENTS.get(name)


def builtin_document(name: str) -> dict[str, object] | None:
    return DOCUMENTS.get(name)


def builtin_policies() -> dict[str, Policy]:
    """Every built-in policy, checked."""
    return {name: parse_policy(document) for name, document in DOCUMENTS.items()}
