"""From a request to a verified one, and whose word counts."""

import pytest

from holdfast_server.auth.access import BucketFacts, authorize, is_allowed
from holdfast_server.auth.builtin import builtin_policies
from holdfast_server.auth.policy import parse_policy
from holdfast_server.auth.principal import Credentials, Principal
from holdfast_server.auth.verified import Authenticator, VerifiedRequest
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.request import Request, fold_headers
from holdfast_server.s3.signing import KeyPair, encode_path, presign_query, sign_headers

NOW_MS = 1_763_676_000_000
HOST = {"host": "s3.example.com:9000"}
READWRITE = builtin_policies()["readwrite"]
LOKI = parse_policy(
    {
        "Statement": [
            {"Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::loki-*", "arn:aws:s3:::loki-*/*"]},
            {
                "Effect": "Deny",
                "Action": "s3:*",
                "Resource": "*",
                "Condition": {"NotIpAddress": {"aws:SourceIp": "192.0.2.0/24"}},
            },
        ]
    }
)
KEYS = {
    "ROOT": Credentials(secret_key="r", principal=Principal(access_key="ROOT", user_name="root", is_root=True)),
    "LOKI": Credentials(secret_key="l", principal=Principal(access_key="LOKI", user_name="loki", policies=(LOKI,))),
    "NONE": Credentials(secret_key="n", principal=Principal(access_key="NONE", user_name="none")),
    "TEMP": Credentials(
        secret_key="t",
        session_token="token",
        principal=Principal(access_key="TEMP", user_name="temp", policies=(READWRITE,)),
    ),
}


def send(
    access_key: str | None,
    method: str = "GET",
    bucket: str = "loki-chunks",
    key: str = "k",
    query: str = "",
    presigned: bool = False,
    remote: str = "192.0.2.7",
    token: str = "",
    **headers: str,
) -> VerifiedRequest:
    path = encode_path(bucket, key)
    sent = {**HOST, **{name.replace("_", "-"): value for name, value in headers.items()}}
    if access_key is not None:
        pair = KeyPair(access_key, access_key[0].lower(), "anywhere", session_token=token)
        if presigned:
            query = presign_query(pair, method, path, query, sent, NOW_MS, 60)
        else:
            sent = sign_headers(pair, method, path, query, sent, NOW_MS)
    request = Request(
        method=method,
        raw_path=path,
        raw_query=query,
        headers=fold_headers(sent.items()),
        remote=remote,
        received_ms=NOW_MS,
        secure=False,
    )
    return Authenticator(lambda key, _: KEYS.get(key), lambda: ["s3.example.com"]).authenticate(request, NOW_MS)


def test_a_signed_request_is_verified_with_its_operation_and_target():
    verified = send("LOKI", "PUT", key="a b", query="partNumber=1&uploadId=x")
    assert verified.principal.user_name == "loki"
    assert (verified.operation.name, verified.bucket, verified.key) == ("UploadPart", "loki-chunks", "a b")
    assert verified.query == {"partNumber": "1", "uploadId": "x"}
    assert verified.context.key is not None


@pytest.mark.parametrize("presigned", [False, True])
def test_unknown_keys_and_wrong_secrets_are_told_apart(presigned):
    with pytest.raises(S3Error, match="InvalidAccessKeyId"):
        send("nobody", presigned=presigned)
    pair = KeyPair("LOKI", "wrong")
    headers = sign_headers(pair, "GET", "/b", "", HOST, NOW_MS)
    request = Request(
        method="GET",
        raw_path="/b",
        raw_query="",
        headers=headers,
        remote="",
        received_ms=NOW_MS,
        secure=False,
    )
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        Authenticator(lambda key, _: KEYS.get(key)).authenticate(request, NOW_MS)


def test_session_tokens_must_be_those_of_the_key():
    assert send("TEMP", token="token").principal.user_name == "temp"
    assert send("TEMP", token="token", presigned=True).principal.user_name == "temp"
    for access_key, token in (("TEMP", ""), ("TEMP", "other"), ("LOKI", "token")):
        with pytest.raises(S3Error, match="InvalidToken"):
            send(access_key, token=token)


def test_parameters_of_a_presigned_url_stand_for_headers_but_for_checksums():
    query = "x-amz-meta-a=1&X-Amz-Storage-Class=STANDARD&x-amz-checksum-crc32=AAAAAA%3D%3D"
    query += "&x-amz-sdk-checksum-algorithm=CRC32"
    verified = send("LOKI", "PUT", query=query, presigned=True)
    assert verified.headers["x-amz-meta-a"] == "1"
    assert verified.headers["x-amz-storage-class"] == "STANDARD"
    assert not [name for name in verified.headers if "checksum" in name or "signature" in name]
    copy = send("LOKI", "PUT", query="x-amz-copy-source=b%2Fk", presigned=True)
    assert copy.operation.name == "CopyObject"
    assert "x-amz-meta-a" not in send("LOKI", "PUT", query="x-amz-meta-a=1").headers


def allowed(verified: VerifiedRequest, bucket: str | None = None, **keywords) -> bool:
    try:
        authorize(verified, verified.bucket if bucket is None else bucket, verified.key, **keywords)
    except S3Error as error:
        assert error.code == "AccessDenied"  # noqa: PT017
        return False
    return True


def test_root_may_everything_and_a_user_what_the_policies_say():
    assert allowed(send("ROOT", "DELETE", bucket="any"))
    assert allowed(send("LOKI"))
    assert not allowed(send("LOKI", bucket="other"))
    assert not allowed(send("NONE"))
    assert not allowed(send("LOKI", remote="198.51.100.1"))
    assert not allowed(send("LOKI"), bucket="other")


def test_the_bucket_policy_adds_and_takes():
    everyone_reads = parse_policy(
        {
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": "*",
                    "Action": "s3:GetObject",
                    "Resource": "arn:aws:s3:::loki-chunks/*",
                },
                {
                    "Effect": "Deny",
                    "Principal": {"AWS": "arn:aws:iam::000000000000:user/loki"},
                    "Action": "s3:DeleteObject",
                    "Resource": "arn:aws:s3:::loki-chunks/*",
                },
            ]
        },
        "loki-chunks",
    )
    for who in (None, "NONE", "LOKI"):
        assert allowed(send(who), facts=BucketFacts(policy=everyone_reads))
    assert not allowed(send(None))
    assert not allowed(send(None, "PUT"), facts=BucketFacts(policy=everyone_reads))
    assert not allowed(send("LOKI", "DELETE"), facts=BucketFacts(policy=everyone_reads))
    assert allowed(send("LOKI", "DELETE"))
    assert allowed(send("ROOT", "DELETE"), facts=BucketFacts(policy=everyone_reads))


def test_conditions_see_the_request():
    policy = parse_policy(
        {
            "Version": "2012-10-17",
            "Statement": {
                "Effect": "Allow",
                "Principal": "*",
                "Action": "s3:ListBucket",
                "Resource": "arn:aws:s3:::b",
                "Condition": {
                    "StringLike": {"s3:prefix": "${aws:username}/*", "aws:UserAgent": "test*"},
                    "NumericLessThanEquals": {"s3:max-keys": 10},
                    "Bool": {"aws:SecureTransport": "false"},
                    "DateGreaterThan": {"aws:CurrentTime": "2025-11-20T21:59:59Z"},
                },
            },
        },
        "b",
    )
    good = send("NONE", bucket="b", key="", query="list-type=2&prefix=none%2Fx&max-keys=10", user_agent="test/1")
    assert is_allowed(good, "s3:ListBucket", "b", "", BucketFacts(policy=policy))
    for query in ("prefix=other%2Fx&max-keys=10", "prefix=none%2Fx&max-keys=11", "max-keys=1"):
        bad = send("NONE", bucket="b", key="", query=query, user_agent="test/1")
        assert not is_allowed(bad, "s3:ListBucket", "b", "", BucketFacts(policy=policy))


def test_a_second_action_can_be_asked():
    verified = send("LOKI", "PUT")
    assert allowed(verified, action="s3:GetObject")
    assert is_allowed(verified, "s3:ListBucket", "loki-chunks")
    assert not is_allowed(verified, "s3:ListBucket", "other")


def test_the_address_is_checked_before_the_signature():
    with pytest.raises(S3Error, match="KeyTooLongError"):
        send("nobody", key="k" * 1025)


@pytest.mark.parametrize("presigned", [False, True])
def test_a_former_secret_of_the_same_access_key_proves_as_much_and_a_wrong_one_nothing(presigned: bool) -> None:
    principal = Principal(access_key="k", user_name="root", is_root=True)

    def known(*former: str) -> Credentials:
        return Credentials(secret_key="new", former_secret_keys=former, principal=principal)

    path, query = encode_path("b", "k"), ""
    pair = KeyPair("k", "old", "anywhere")
    headers = dict(HOST)
    if presigned:
        query = presign_query(pair, "GET", path, query, headers, NOW_MS, 60)
    else:
        headers = sign_headers(pair, "GET", path, query, headers, NOW_MS)
    request = Request(
        method="GET", raw_path=path, raw_query=query, headers=fold_headers(headers.items()), remote="192.0.2.7",
        received_ms=NOW_MS, secure=False,
    )  # fmt: skip
    verified = Authenticator(lambda _key, _token: known("older", "old")).authenticate(request, NOW_MS)
    assert verified.principal is principal
    with pytest.raises(S3Error, match="signature") as refused:
        Authenticator(lambda _key, _token: known("older")).authenticate(request, NOW_MS)
    assert refused.value.code == "SignatureDoesNotMatch"
