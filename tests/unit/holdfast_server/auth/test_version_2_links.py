"""Presigned URLs of signature version 2, as boto3 and s3cmd make them; and what forging one is answered with."""

import base64
import hmac
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import boto3
import pytest
from botocore.config import Config

from holdfast_server.auth.principal import Credentials, Principal
from holdfast_server.auth.request_values import condition_values
from holdfast_server.auth.verified import Authenticator
from holdfast_server.s3.errors import S3Error
from holdfast_server.s3.request import Request

USER = Principal(access_key="AKID", user_name="u")
KEYS = {
    "AKID": Credentials(secret_key="secret", principal=USER),
    "TEMP": Credentials(secret_key="secret", principal=USER, session_token="token/1"),
}
KEY = "fake/a b/1:2=3+4%/é~!*'()@&,;$"
NOW_MS = 1_790_000_000_000


@pytest.fixture(autouse=True)
def _frozen_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.auth.time.time", lambda: NOW_MS / 1000)


def client(endpoint: str = "http://store.test:9000", access_key: str = "AKID", token: str | None = None, **config):
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key="secret",
        aws_session_token=token,
        config=Config(signature_version="s3", **config),
    )


def link(operation: str, seconds: int = 60, s3=None, **parameters) -> str:
    url = (s3 or client()).generate_presigned_url(operation, Params={"Bucket": "b", **parameters}, ExpiresIn=seconds)
    assert "AWSAccessKeyId=" in url
    return url


def request(method: str, url: str, **headers: str) -> Request:
    parts = urlsplit(url)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(
        method=method,
        raw_path=parts.path,
        raw_query=parts.query,
        headers={"host": parts.netloc, **named},
        remote="127.0.0.1",
        received_ms=NOW_MS,
        secure=False,
    )


def verify(method: str, url: str, now_ms: int = NOW_MS, domains: tuple[str, ...] = (), **headers: str):
    return Authenticator(lambda key, _: KEYS.get(key), lambda: domains).authenticate(
        request(method, url, **headers), now_ms
    )


def refusal(method: str, url: str, now_ms: int = NOW_MS, **headers: str) -> str:
    with pytest.raises(S3Error) as raised:
        verify(method, url, now_ms, **headers)
    return raised.value.code


@pytest.mark.parametrize("key", [KEY, "plain", "a//b/../c"])
def test_links_to_any_key_are_accepted(key: str) -> None:
    verified = verify("GET", link("get_object", Key=key))
    assert (verified.operation.name, verified.bucket, verified.key) == ("GetObject", "b", key)
    assert verified.principal is USER
    assert condition_values(verified, "000000000000")["s3:signatureversion"] == ("AWS",)
    assert condition_values(verified, "000000000000")["s3:authtype"] == ("REST-QUERY-STRING",)


def test_every_kind_of_request_can_be_linked_to() -> None:
    assert verify("PUT", link("put_object", Key=KEY)).operation.name == "PutObject"
    assert verify("DELETE", link("delete_object", Key=KEY)).operation.name == "DeleteObject"
    assert verify("GET", link("list_objects_v2", Prefix="a b/")).operation.name == "ListObjectsV2"
    part = link("upload_part", Key=KEY, UploadId="id+/=", PartNumber=3)
    assert verify("PUT", part).operation.name == "UploadPart"
    answer = link("get_object", Key=KEY, ResponseContentDisposition='attachment; filename="x y"')
    assert verify("GET", answer).query["response-content-disposition"] == 'attachment; filename="x y"'


def test_signed_headers_count_wherever_they_stand() -> None:
    url = link("put_object", Key=KEY, ContentType="text/x", Metadata={"a": "b c"})
    assert verify("PUT", url).headers["x-amz-meta-a"] == "b c"
    assert verify("PUT", url, content_type="text/x", x_amz_meta_a="b c").headers["x-amz-meta-a"] == "b c"
    assert refusal("PUT", url, content_type="text/html") == "SignatureDoesNotMatch"
    assert refusal("PUT", url, x_amz_meta_a="other") == "SignatureDoesNotMatch"
    assert refusal("PUT", url, x_amz_copy_source="/b/other") == "SignatureDoesNotMatch"
    assert refusal("PUT", link("put_object", Key=KEY), content_type="text/html") == "SignatureDoesNotMatch"


def test_virtual_host_links_name_their_bucket() -> None:
    s3 = client("http://store.test:9000", s3={"addressing_style": "virtual"})
    url = link("get_object", s3=s3, Bucket="bucket", Key=KEY)
    assert urlsplit(url).netloc == "bucket.store.test:9000"
    verified = verify("GET", url, domains=("store.test",))
    assert (verified.bucket, verified.key) == ("bucket", KEY)
    with pytest.raises(S3Error):
        verify("GET", url.replace("//bucket.", "//other."), domains=("store.test",))


def test_a_link_to_a_folder_is_none_to_the_object_of_its_name() -> None:
    s3 = client("http://store.test:9000", s3={"addressing_style": "virtual"})
    url = link("get_object", s3=s3, Bucket="bucket", Key="name/").replace("/name/?", "/name?")
    with pytest.raises(S3Error):
        verify("GET", url, domains=("store.test",))
    assert refusal("GET", link("get_object", Key="name/").replace("/name/?", "/name?")) == "SignatureDoesNotMatch"


def test_s3cmds_links_are_accepted() -> None:
    """Its signurl: seconds since the epoch, the resource quoted as s3cmd quotes it."""
    expires = str(NOW_MS // 1000 + 600)
    text = f"GET\n\n\n{expires}\n/b/{quote(KEY, safe='/~')}"
    signature = base64.b64encode(hmac.digest(b"secret", text.encode(), "sha1")).decode()
    query = urlencode({"AWSAccessKeyId": "AKID", "Expires": expires, "Signature": signature})
    assert verify("GET", f"http://store.test/b/{quote(KEY, safe='/~')}?{query}").key == KEY


@pytest.mark.parametrize("parameter", ["uploads", "acl", "attributes", "tagging", "uploadId=1", "response-expires=1"])
def test_a_link_cannot_be_turned_into_another_operation(parameter: str) -> None:
    assert refusal("GET", link("get_object", Key=KEY) + "&" + parameter) == "SignatureDoesNotMatch"


def test_a_link_holds_for_its_method_and_key_alone() -> None:
    url = link("get_object", Key="k")
    assert refusal("PUT", url) == "SignatureDoesNotMatch"
    assert refusal("GET", url.replace("/b/k?", "/b/l?")) == "SignatureDoesNotMatch"
    assert refusal("GET", url.replace("/b/k?", "/c/k?")) == "SignatureDoesNotMatch"


def test_a_link_ends_when_it_says() -> None:
    url = link("get_object", seconds=60, Key="k")
    verify("GET", url, NOW_MS + 59_000)
    assert refusal("GET", url, NOW_MS + 62_000) == "AccessDenied"
    longer = url.replace(dict(parse_qsl(urlsplit(url).query))["Expires"], "9999999999")
    assert refusal("GET", longer) == "SignatureDoesNotMatch"


@pytest.mark.parametrize("expires", ["", "soon", "-1", "1e9", "٣", "9" * 40])
def test_an_expiry_that_is_no_time_is_refused(expires: str) -> None:
    assert refusal("GET", f"http://store.test/b/k?AWSAccessKeyId=AKID&Signature=x&Expires={expires}") == "AccessDenied"


def test_unknown_keys_bad_tokens_and_two_mechanisms_are_refused() -> None:
    assert refusal("GET", link("get_object", s3=client(access_key="NOBODY"), Key="k")) == "InvalidAccessKeyId"
    assert refusal("GET", link("get_object", s3=client(access_key="TEMP"), Key="k")) == "InvalidToken"
    verify("GET", link("get_object", s3=client(access_key="TEMP", token="token/1"), Key="k"))
    url = link("get_object", Key="k")
    assert refusal("GET", url, authorization="AWS4-HMAC-SHA256 x") == "InvalidArgument"
    assert refusal("GET", url + "&X-Amz-Algorithm=AWS4-HMAC-SHA256") == "InvalidArgument"


def test_version_2_in_a_header_stays_refused() -> None:
    assert refusal("GET", "http://store.test/b/k", authorization="AWS AKID:c2ln", date="x") == "InvalidRequest"
