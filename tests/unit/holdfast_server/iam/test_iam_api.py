"""The IAM API with boto3: users, keys, groups, roles and policies of an account, and who may."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast_server.admin.client import AdminClient
from holdfast_server.auth.principal import account_id
from holdfast_server.contract.admin import UserSpec
from holdfast_server.s3.signing import KeyPair
from holdfast_server.testing import boto
from holdfast_server.testing.boto import refusal
from holdfast_server.testing.memory_services import Endpoint, memory_services, served

SECRET = "a-secret-of-enough-length"
LOKI = "loki-key-of-16-or-more"
S3_FULL = "arn:aws:iam::aws:policy/AmazonS3FullAccess"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """With two accounts, each with its root user."""
    with served(memory_services()) as found:
        admin = AdminClient(found.url, KeyPair(found.access_key, found.secret_key))
        for account in ("main", "alt"):
            admin.put_user(
                f"{account}-root-key",
                UserSpec(secret_key=SECRET, name=f"{account}-root", account=account, account_root=True),
            )
        yield found


def client(endpoint: Endpoint, service: str, access_key: str, secret_key: str = SECRET, token: str = "") -> Any:
    return boto.client_of(endpoint, access_key, secret_key, service=service, session_token=token)


def allow(action: str | list[str], resource: str = "*", effect: str = "Allow") -> str:
    statement = {"Effect": effect, "Action": action, "Resource": resource}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def trust(principal: str) -> str:
    statement = {"Effect": "Allow", "Principal": {"AWS": principal}, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def test_a_user_gets_keys_and_may_what_its_policies_and_groups_allow(endpoint: Endpoint) -> None:
    iam = client(endpoint, "iam", "main-root-key")
    user = iam.create_user(UserName="Ann", Path="/staff/", Tags=[{"Key": "team", "Value": "a b"}])["User"]
    assert user["Arn"] == f"arn:aws:iam::{account_id('main')}:user/staff/Ann"
    assert refusal(iam.create_user, UserName="ann") == "EntityAlreadyExists"
    assert iam.get_user(UserName="ANN")["User"] == user
    key = iam.create_access_key(UserName="Ann")["AccessKey"]
    s3 = client(endpoint, "s3", key["AccessKeyId"], key["SecretAccessKey"])
    assert refusal(s3.create_bucket, Bucket="mine-1") == "AccessDenied"
    iam.put_user_policy(UserName="Ann", PolicyName="make", PolicyDocument=allow("s3:CreateBucket"))
    s3.create_bucket(Bucket="mine-1")
    assert refusal(s3.put_object, Bucket="mine-1", Key="k", Body=b"") == "AccessDenied"
    iam.create_group(GroupName="Writers")
    iam.attach_group_policy(GroupName="Writers", PolicyArn="arn:aws:iam::aws:policy/writeonly")
    iam.add_user_to_group(GroupName="writers", UserName="ann")
    s3.put_object(Bucket="mine-1", Key="k", Body=b"")
    assert [one["UserName"] for one in iam.get_group(GroupName="Writers")["Users"]] == ["Ann"]
    iam.put_user_policy(UserName="Ann", PolicyName="no", PolicyDocument=allow("s3:PutObject", effect="Deny"))
    assert refusal(s3.put_object, Bucket="mine-1", Key="k", Body=b"") == "AccessDenied"
    iam.delete_user_policy(UserName="Ann", PolicyName="no")
    iam.update_user(UserName="Ann", NewUserName="Bea", NewPath="/")
    s3.put_object(Bucket="mine-1", Key="k", Body=b"")
    assert refusal(iam.get_user, UserName="Ann") == "NoSuchEntity"
    iam.update_access_key(UserName="Bea", AccessKeyId=key["AccessKeyId"], Status="Inactive")
    assert refusal(s3.list_buckets) == "InvalidAccessKeyId"
    assert refusal(iam.delete_user, UserName="Bea") == "DeleteConflict"
    iam.delete_access_key(UserName="Bea", AccessKeyId=key["AccessKeyId"])
    iam.remove_user_from_group(GroupName="Writers", UserName="Bea")
    iam.delete_user_policy(UserName="Bea", PolicyName="make")
    iam.delete_user(UserName="Bea")
    assert iam.list_users()["Users"] == []


def test_a_user_does_not_become_root_by_its_name(endpoint: Endpoint) -> None:
    """Declared later under the name of a user that clients made: the two stay two."""
    root = client(endpoint, "iam", "main-root-key")
    root.create_user(UserName="ann")
    key = root.create_access_key(UserName="ann")["AccessKey"]
    root.put_user_policy(UserName="ann", PolicyName="keys", PolicyDocument=allow("iam:CreateAccessKey"))
    admin = AdminClient(endpoint.url, KeyPair(endpoint.access_key, endpoint.secret_key))
    admin.put_user("second-root-key", UserSpec(secret_key=SECRET, name="ann", account="main", account_root=True))
    ann = client(endpoint, "iam", key["AccessKeyId"], key["SecretAccessKey"])
    more = ann.create_access_key(UserName="ann")["AccessKey"]
    assert refusal(client(endpoint, "iam", more["AccessKeyId"], more["SecretAccessKey"]).list_users) == "AccessDenied"


def test_policies_see_the_tags_that_are_put(endpoint: Endpoint) -> None:
    root, main = client(endpoint, "iam", "main-root-key"), client(endpoint, "s3", "main-root-key")
    main.create_bucket(Bucket="tagged")
    main.put_object(Bucket="tagged", Key="k", Body=b"")
    root.create_user(UserName="ann")
    key = root.create_access_key(UserName="ann")["AccessKey"]
    wanted = {"StringEquals": {"s3:RequestObjectTag/kind": "public"}, "Null": {"s3:RequestObjectTagKeys": "false"}}
    row = {"Effect": "Allow", "Action": "s3:PutObjectTagging", "Resource": "*", "Condition": wanted}
    document = json.dumps({"Version": "2012-10-17", "Statement": [row]})
    root.put_user_policy(UserName="ann", PolicyName="tag", PolicyDocument=document)
    ann = client(endpoint, "s3", key["AccessKeyId"], key["SecretAccessKey"])

    def tagging(kind: str) -> dict[str, Any]:
        return {"Bucket": "tagged", "Key": "k", "Tagging": {"TagSet": [{"Key": "kind", "Value": kind}]}}

    ann.put_object_tagging(**tagging("public"))
    assert refusal(ann.put_object_tagging, **tagging("secret")) == "AccessDenied"
    ann.meta.events.register("before-call.s3.PutObjectTagging", _say_otherwise)
    assert refusal(ann.put_object_tagging, **tagging("secret")) == "AccessDenied"
    assert main.get_object_tagging(Bucket="tagged", Key="k")["TagSet"] == [{"Key": "kind", "Value": "public"}]


def test_policies_see_no_tags_where_a_copy_takes_those_of_its_source(endpoint: Endpoint) -> None:
    """The header says nothing without the directive REPLACE."""
    root, main = client(endpoint, "iam", "main-root-key"), client(endpoint, "s3", "main-root-key")
    main.create_bucket(Bucket="tagged")
    main.put_object(Bucket="tagged", Key="k", Body=b"", Tagging="kind=secret")
    root.create_user(UserName="ann")
    key = root.create_access_key(UserName="ann")["AccessKey"]
    reads = ["s3:GetObject", "s3:GetObjectTagging", "s3:PutObject"]
    wanted = {"StringEquals": {"s3:RequestObjectTag/kind": "public"}}
    rows = [
        {"Effect": "Allow", "Action": reads, "Resource": "*"},
        {"Effect": "Allow", "Action": "s3:PutObjectTagging", "Resource": "*", "Condition": wanted},
    ]
    document = json.dumps({"Version": "2012-10-17", "Statement": rows})
    root.put_user_policy(UserName="ann", PolicyName="tag", PolicyDocument=document)
    ann = client(endpoint, "s3", key["AccessKeyId"], key["SecretAccessKey"])
    copy = {"Bucket": "tagged", "Key": "copy", "CopySource": "tagged/k", "Tagging": "kind=public"}
    assert refusal(ann.copy_object, **copy) == "AccessDenied"
    ann.copy_object(**copy, TaggingDirective="REPLACE")
    assert main.get_object_tagging(Bucket="tagged", Key="copy")["TagSet"] == [{"Key": "kind", "Value": "public"}]


def _say_otherwise(params: dict[str, Any], **_: Any) -> None:
    params["headers"]["x-amz-tagging"] = "kind=public"


def test_buckets_are_listed_to_who_may_list_them(endpoint: Endpoint) -> None:
    root = client(endpoint, "iam", "main-root-key")
    client(endpoint, "s3", "main-root-key").create_bucket(Bucket="of-main")
    client(endpoint, "s3", "alt-root-key").create_bucket(Bucket="of-alt")
    root.create_user(UserName="ann")
    key = root.create_access_key(UserName="ann")["AccessKey"]
    ann = client(endpoint, "s3", key["AccessKeyId"], key["SecretAccessKey"])
    assert refusal(ann.list_buckets) == "AccessDenied"
    for policy in (allow("s3:ListAllMyBuckets"), allow("s3:ListBucket", "arn:aws:s3:::of-main")):
        root.put_user_policy(UserName="ann", PolicyName="may", PolicyDocument=policy)
        assert [bucket["Name"] for bucket in ann.list_buckets()["Buckets"]] == ["of-main"]
    root.put_user_policy(UserName="ann", PolicyName="no", PolicyDocument=allow("s3:ListAllMyBuckets", effect="Deny"))
    assert refusal(ann.list_buckets) == "AccessDenied"


def test_what_is_made_again_under_an_old_name_is_another(endpoint: Endpoint) -> None:
    iam = client(endpoint, "iam", "main-root-key")
    iam.create_user(UserName="ann")
    policy = iam.create_policy(PolicyName="all", PolicyDocument=allow("s3:*"))["Policy"]["Arn"]
    iam.attach_user_policy(UserName="ann", PolicyArn=policy)
    assert refusal(iam.delete_policy, PolicyArn=policy) == "DeleteConflict"
    iam.detach_user_policy(UserName="ann", PolicyArn=policy)
    iam.delete_policy(PolicyArn=policy)
    iam.delete_user(UserName="ann")
    again = iam.create_user(UserName="ann")["User"]
    assert iam.list_attached_user_policies(UserName="ann")["AttachedPolicies"] == []
    assert iam.list_access_keys(UserName="ann")["AccessKeyMetadata"] == []
    assert again["UserId"].startswith("AIDA")


def test_versions_of_a_policy(endpoint: Endpoint) -> None:
    iam = client(endpoint, "iam", "main-root-key")
    iam.create_user(UserName="ann")
    key = iam.create_access_key(UserName="ann")["AccessKey"]
    s3 = client(endpoint, "s3", key["AccessKeyId"], key["SecretAccessKey"])
    arn = iam.create_policy(PolicyName="may", PolicyDocument=allow("s3:GetObject"), Description="x")["Policy"]["Arn"]
    iam.attach_user_policy(UserName="ann", PolicyArn=arn)
    assert refusal(s3.create_bucket, Bucket="by-ann") == "AccessDenied"
    iam.create_policy_version(PolicyArn=arn, PolicyDocument=allow("s3:*"))
    assert refusal(s3.create_bucket, Bucket="by-ann") == "AccessDenied"
    iam.set_default_policy_version(PolicyArn=arn, VersionId="v2")
    s3.create_bucket(Bucket="by-ann")
    assert refusal(iam.delete_policy_version, PolicyArn=arn, VersionId="v2") == "DeleteConflict"
    iam.delete_policy_version(PolicyArn=arn, VersionId="v1")
    for number in range(3, 7):
        assert iam.create_policy_version(PolicyArn=arn, PolicyDocument=allow("s3:*"))["PolicyVersion"]["VersionId"] == (
            f"v{number}"
        )
    assert refusal(iam.create_policy_version, PolicyArn=arn, PolicyDocument=allow("s3:*")) == "LimitExceeded"
    assert iam.get_policy(PolicyArn=arn)["Policy"]["AttachmentCount"] == 1
    assert iam.list_entities_for_policy(PolicyArn=arn)["PolicyUsers"][0]["UserName"] == "ann"
    assert iam.get_policy_version(PolicyArn=S3_FULL, VersionId="v1")["PolicyVersion"]["Document"]["Statement"]


def test_pages(endpoint: Endpoint) -> None:
    iam = client(endpoint, "iam", "main-root-key")
    names = ["a", "B", "c", "D"]
    for name in reversed(names):
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName="D", PolicyName=name, PolicyDocument=allow("s3:*"))
    pages = list(iam.get_paginator("list_users").paginate(PaginationConfig={"PageSize": 1}))
    assert [user["UserName"] for page in pages for user in page["Users"]] == names
    pages = list(iam.get_paginator("list_user_policies").paginate(UserName="D", PaginationConfig={"PageSize": 3}))
    assert sorted(name for page in pages for name in page["PolicyNames"]) == sorted(names)
    assert refusal(iam.list_users, Marker="!") == "ValidationError"


@pytest.mark.parametrize(
    ("call", "arguments", "code"),
    [
        ("create_user", {"UserName": "a/b"}, "ValidationError"),
        ("create_user", {"UserName": "a", "Path": "x"}, "ValidationError"),
        ("create_user", {"UserName": "a", "PermissionsBoundary": S3_FULL}, "ValidationError"),
        ("get_user", {"UserName": "nobody"}, "NoSuchEntity"),
        ("attach_user_policy", {"UserName": "nobody", "PolicyArn": S3_FULL}, "NoSuchEntity"),
        ("create_policy", {"PolicyName": "p", "PolicyDocument": "{"}, "MalformedPolicyDocument"),
        ("create_policy", {"PolicyName": "p", "PolicyDocument": allow("s3:*") + " " * 9000}, ""),
        ("create_policy", {"PolicyName": "p", "PolicyDocument": allow(["s3:GetObject"] * 600)}, "LimitExceeded"),
        ("create_policy", {"PolicyName": "p", "PolicyDocument": trust("*")}, "MalformedPolicyDocument"),
        ("create_role", {"RoleName": "r", "AssumeRolePolicyDocument": allow("s3:*")}, "MalformedPolicyDocument"),
        ("create_virtual_mfa_device", {"VirtualMFADeviceName": "x"}, "InvalidAction"),
    ],
)
def test_what_cannot_be_is_refused(endpoint: Endpoint, call: str, arguments: dict[str, Any], code: str) -> None:
    iam = client(endpoint, "iam", "main-root-key")
    if code:
        assert refusal(getattr(iam, call), **arguments) == code
    else:
        getattr(iam, call)(**arguments)


def test_accounts_do_not_see_or_touch_each_other(endpoint: Endpoint) -> None:
    main, alt = client(endpoint, "iam", "main-root-key"), client(endpoint, "iam", "alt-root-key")
    main.create_user(UserName="ann")
    arn = main.create_policy(PolicyName="p", PolicyDocument=allow("s3:*"))["Policy"]["Arn"]
    assert alt.list_users()["Users"] == []
    assert refusal(alt.get_user, UserName="ann") == "NoSuchEntity"
    assert refusal(alt.get_policy, PolicyArn=arn) == "AccessDenied"
    alt.create_user(UserName="bob")
    assert refusal(alt.attach_user_policy, UserName="bob", PolicyArn=arn) in ("NoSuchEntity", "AccessDenied")
    assert refusal(alt.delete_policy, PolicyArn=S3_FULL) == "AccessDenied"
    client(endpoint, "s3", "main-root-key").create_bucket(Bucket="of-main")
    assert refusal(client(endpoint, "s3", "alt-root-key").list_objects_v2, Bucket="of-main") == "AccessDenied"


def test_a_user_may_call_iam_only_as_its_policies_say(endpoint: Endpoint) -> None:
    root = client(endpoint, "iam", "main-root-key")
    root.create_user(UserName="ann")
    key = root.create_access_key(UserName="ann")["AccessKey"]
    ann = client(endpoint, "iam", key["AccessKeyId"], key["SecretAccessKey"])
    everything = allow("*")
    assert refusal(ann.put_user_policy, UserName="ann", PolicyName="x", PolicyDocument=everything) == "AccessDenied"
    assert refusal(ann.create_access_key) == "AccessDenied"
    own = f"arn:aws:iam::{account_id('main')}:user/${{aws:username}}"
    root.put_user_policy(UserName="ann", PolicyName="own", PolicyDocument=allow("iam:*AccessKey*", own))
    ann.create_access_key()
    root.create_user(UserName="bob")
    assert refusal(ann.create_access_key, UserName="bob") == "AccessDenied"
    assert refusal(ann.create_access_key, UserName="main-root") in ("AccessDenied", "NoSuchEntity")
    assert refusal(ann.list_users) == "AccessDenied"


def test_nobody_becomes_administrator_of_the_store_or_root_through_iam(endpoint: Endpoint) -> None:
    root = client(endpoint, "iam", "main-root-key")
    root.create_user(UserName="ann")
    for arn in ("arn:aws:iam::aws:policy/consoleAdmin", "arn:aws:iam::aws:policy/AdministratorAccess"):
        root.attach_user_policy(UserName="ann", PolicyArn=arn)
    root.put_user_policy(UserName="ann", PolicyName="all", PolicyDocument=allow("*"))
    key = root.create_access_key(UserName="ann")["AccessKey"]
    for pair in (KeyPair(key["AccessKeyId"], key["SecretAccessKey"]), KeyPair("main-root-key", SECRET)):
        with pytest.raises(Exception, match="AccessDenied"):
            AdminClient(endpoint.url, pair).users()
    ann = client(endpoint, "iam", key["AccessKeyId"], key["SecretAccessKey"])
    ann.list_users()
    assert refusal(ann.create_access_key, UserName="main-root") == "NoSuchEntity"
    assert refusal(ann.put_user_policy, UserName="main-root", PolicyName="x", PolicyDocument=allow("*")) == (
        "NoSuchEntity"
    )
    assert refusal(ann.delete_user, UserName="main-root") == "NoSuchEntity"


def test_a_declared_user_is_shown_and_given_more_but_not_taken_apart(endpoint: Endpoint) -> None:
    admin = AdminClient(endpoint.url, KeyPair(endpoint.access_key, endpoint.secret_key))
    spec = UserSpec(secret_key=SECRET, name="loki", account="main", policies=["readonly"])
    admin.put_user(LOKI, spec)
    root = client(endpoint, "iam", "main-root-key")
    assert [user["UserName"] for user in root.list_users()["Users"]] == ["loki"]
    assert refusal(root.delete_user, UserName="loki") == "UnmodifiableEntity"
    assert refusal(root.create_user, UserName="Loki") == "EntityAlreadyExists"
    assert refusal(root.delete_access_key, UserName="loki", AccessKeyId=LOKI) == "UnmodifiableEntity"
    declared = "arn:aws:iam::aws:policy/readonly"
    assert refusal(root.detach_user_policy, UserName="loki", PolicyArn=declared) == "UnmodifiableEntity"
    s3 = client(endpoint, "s3", LOKI)
    assert refusal(s3.create_bucket, Bucket="chunks") == "AccessDenied"
    root.attach_user_policy(UserName="loki", PolicyArn="arn:aws:iam::aws:policy/readwrite")
    s3.create_bucket(Bucket="chunks")
    names = [one["PolicyName"] for one in root.list_attached_user_policies(UserName="loki")["AttachedPolicies"]]
    assert names == ["readonly", "readwrite"]
    key = root.create_access_key(UserName="loki")["AccessKey"]
    more = client(endpoint, "s3", key["AccessKeyId"], key["SecretAccessKey"])
    more.list_objects_v2(Bucket="chunks")
    admin.remove_user(LOKI)
    assert refusal(more.list_buckets) == "InvalidAccessKeyId"
    admin.put_user(LOKI, spec)
    assert refusal(s3.create_bucket, Bucket="chunks-2") == "AccessDenied", "what clients gave it went with it"
    assert len(root.list_access_keys(UserName="loki")["AccessKeyMetadata"]) == 1


def test_roots_key_of_an_account_is_its_own_to_make(endpoint: Endpoint) -> None:
    root = client(endpoint, "iam", "main-root-key")
    assert root.get_user()["User"]["Arn"] == f"arn:aws:iam::{account_id('main')}:root"
    key = root.create_access_key()["AccessKey"]
    another = client(endpoint, "iam", key["AccessKeyId"], key["SecretAccessKey"])
    assert another.get_user()["User"]["Arn"].endswith(":root")
    another.delete_access_key(AccessKeyId=key["AccessKeyId"])
    assert refusal(another.get_user) == "InvalidClientTokenId"


def test_users_and_roles_are_deleted_as_awss_guide_has_it(endpoint: Endpoint) -> None:
    """What never exists here is asked for first; Terraform deletes no role without."""
    iam = client(endpoint, "iam", "main-root-key")
    iam.create_user(UserName="ann")
    iam.create_role(RoleName="reader", AssumeRolePolicyDocument=trust("*"))
    none = {
        "InstanceProfiles": iam.list_instance_profiles_for_role(RoleName="reader"),
        "MFADevices": iam.list_mfa_devices(UserName="ann"),
        "VirtualMFADevices": iam.list_virtual_mfa_devices(AssignmentStatus="Assigned"),
        "SSHPublicKeys": iam.list_ssh_public_keys(UserName="ann"),
        "Certificates": iam.list_signing_certificates(UserName="ann"),
        "ServiceSpecificCredentials": iam.list_service_specific_credentials(UserName="ann"),
    }
    assert all(answer[name] == [] and not answer["IsTruncated"] for name, answer in none.items())
    assert refusal(iam.get_login_profile, UserName="ann") == "NoSuchEntity"
    assert refusal(iam.delete_login_profile, UserName="ann") == "NoSuchEntity"
    iam.delete_user(UserName="ann")
    iam.delete_role(RoleName="reader")
    assert refusal(iam.list_instance_profiles_for_role, RoleName="reader") == "NoSuchEntity"
    assert refusal(iam.list_mfa_devices, UserName="ann") == "NoSuchEntity"


def test_policies_see_the_tags_of_who_asks(endpoint: Endpoint) -> None:
    """As variables and as conditions, of users and of roles, without regard to case; and a tag that goes is gone."""
    root, main = client(endpoint, "iam", "main-root-key"), client(endpoint, "s3", "main-root-key")
    main.create_bucket(Bucket="teams")
    root.create_user(UserName="ann", Tags=[{"Key": "Team", "Value": "red"}])
    key = root.create_access_key(UserName="ann")["AccessKey"]
    document = allow("s3:PutObject", "arn:aws:s3:::teams/${aws:PrincipalTag/team}/*")
    root.put_user_policy(UserName="ann", PolicyName="own", PolicyDocument=document)
    ann = client(endpoint, "s3", key["AccessKeyId"], key["SecretAccessKey"])
    ann.put_object(Bucket="teams", Key="red/k", Body=b"")
    assert refusal(ann.put_object, Bucket="teams", Key="blue/k", Body=b"") == "AccessDenied"
    root.tag_user(UserName="ann", Tags=[{"Key": "TEAM", "Value": "blue"}])
    assert root.list_user_tags(UserName="ann")["Tags"] == [{"Key": "TEAM", "Value": "blue"}]
    ann.put_object(Bucket="teams", Key="blue/k", Body=b"")
    assert refusal(ann.put_object, Bucket="teams", Key="red/k", Body=b"") == "AccessDenied"
    root.untag_user(UserName="ann", TagKeys=["team"])
    assert refusal(ann.put_object, Bucket="teams", Key="blue/k", Body=b"") == "AccessDenied"

    wanted = {"StringEquals": {"aws:PrincipalTag/team": "red"}}
    row = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*", "Condition": wanted}
    ann_arn = root.get_user(UserName="ann")["User"]["Arn"]
    root.create_role(RoleName="reader", AssumeRolePolicyDocument=trust(ann_arn), Tags=[{"Key": "team", "Value": "red"}])
    root.put_role_policy(RoleName="reader", PolicyName="p", PolicyDocument=json.dumps({"Statement": [row]}))
    sts = client(endpoint, "sts", key["AccessKeyId"], key["SecretAccessKey"])
    arn = root.get_role(RoleName="reader")["Role"]["Arn"]
    given = sts.assume_role(RoleArn=arn, RoleSessionName="tags")["Credentials"]
    reader = client(endpoint, "s3", given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
    reader.get_object(Bucket="teams", Key="red/k")
    root.tag_role(RoleName="reader", Tags=[{"Key": "team", "Value": "blue"}])
    assert refusal(reader.get_object, Bucket="teams", Key="red/k") == "AccessDenied"


def test_tags_of_users_have_names_without_regard_to_case(endpoint: Endpoint) -> None:
    root = client(endpoint, "iam", "main-root-key")
    twice = [{"Key": "team", "Value": "red"}, {"Key": "Team", "Value": "blue"}]
    assert refusal(root.create_user, UserName="ann", Tags=twice) == "InvalidInput"


def test_the_stores_root_manages_the_tenants_own_account(endpoint: Endpoint) -> None:
    iam = client(endpoint, "iam", endpoint.access_key, endpoint.secret_key)
    iam.create_user(UserName="ann")
    key = iam.create_access_key(UserName="ann")["AccessKey"]
    iam.attach_user_policy(UserName="ann", PolicyArn=S3_FULL)
    client(endpoint, "s3", key["AccessKeyId"], key["SecretAccessKey"]).create_bucket(Bucket="by-ann")
    assert refusal(iam.create_access_key) == "ValidationError"


def test_a_wrong_signature_or_service_is_refused_as_iam_refuses(endpoint: Endpoint) -> None:
    assert refusal(client(endpoint, "iam", "main-root-key", "wrong-secret").list_users) == "SignatureDoesNotMatch"
    assert refusal(client(endpoint, "iam", "nobody").list_users) == "InvalidClientTokenId"


def test_a_key_with_a_policy_of_its_own_and_an_end(endpoint: Endpoint) -> None:
    admin = AdminClient(endpoint.url, KeyPair(endpoint.access_key, endpoint.secret_key))
    policy = json.loads(allow(["s3:ListBucket", "s3:CreateBucket"]))
    admin.put_user("limited", UserSpec(secret_key=SECRET, policies=["readwrite"], policy=policy))
    s3 = client(endpoint, "s3", "limited")
    s3.create_bucket(Bucket="some-bucket")
    s3.list_objects_v2(Bucket="some-bucket")
    assert refusal(s3.put_object, Bucket="some-bucket", Key="k", Body=b"") == "AccessDenied"
    admin.put_user("ended", UserSpec(secret_key=SECRET, policies=["readwrite"], expires_ms=1))
    assert refusal(client(endpoint, "s3", "ended").list_buckets) == "InvalidAccessKeyId"
    told = {user.access_key: user for user in admin.users()}
    assert (told["limited"].limited, told["ended"].expires_ms) == (True, 1)
