"""boto3, with its transfer manager for uploads in parts."""

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from driver import ENDPOINT, REGION, serve, write

MIB = 1 << 20


class Client:
    def __init__(self) -> None:
        config = Config(s3={"addressing_style": "path"}, signature_version="s3v4")
        self.s3 = boto3.client("s3", endpoint_url=ENDPOINT, region_name=REGION, config=config)

    def version(self) -> str:
        return boto3.__version__

    def put(self, bucket: str, key: str, path: str) -> None:
        with open(path, "rb") as body:
            self.s3.put_object(Bucket=bucket, Key=key, Body=body)

    def get(self, bucket: str, key: str, path: str) -> None:
        self.s3.download_file(bucket, key, path)

    def range(self, bucket: str, key: str, first: int, last: int, path: str) -> None:
        write(path, self.s3.get_object(Bucket=bucket, Key=key, Range=f"bytes={first}-{last}")["Body"].read())

    def list(self, bucket: str, prefix: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=prefix, PaginationConfig={"PageSize": 5}
        )
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def multipart(self, bucket: str, key: str, path: str) -> None:
        self.s3.upload_file(path, bucket, key, Config=TransferConfig(5 * MIB, multipart_chunksize=5 * MIB))

    def copy(self, bucket: str, key: str, to: str) -> None:
        self.s3.copy_object(Bucket=bucket, Key=to, CopySource={"Bucket": bucket, "Key": key})

    def delete(self, bucket: str, key: str) -> None:
        self.s3.delete_object(Bucket=bucket, Key=key)

    def sign_get(self, bucket: str, key: str) -> str:
        return self.s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key})

    def sign_put(self, bucket: str, key: str) -> str:
        return self.s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": key})

    def get_former(self, bucket: str, key: str, path: str) -> None:
        found = self.s3.list_object_versions(Bucket=bucket, Prefix=key)["Versions"]
        former = next(entry["VersionId"] for entry in found if not entry["IsLatest"])
        write(path, self.s3.get_object(Bucket=bucket, Key=key, VersionId=former)["Body"].read())


serve(Client())
