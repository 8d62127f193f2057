"""awscli, `aws s3` where it has the operation and `aws s3api` where not."""

import json
import sys
from pathlib import Path

from driver import run, serve

AWS = str(Path(sys.executable).parent / "aws")


class Client:
    def version(self) -> str:
        return run(AWS, "--version").decode().split()[0].removeprefix("aws-cli/")

    def put(self, bucket: str, key: str, path: str) -> None:
        run(AWS, "s3", "cp", path, f"s3://{bucket}/{key}")

    multipart = put  # above 8 MB by itself

    def get(self, bucket: str, key: str, path: str) -> None:
        run(AWS, "s3", "cp", f"s3://{bucket}/{key}", path)

    def range(self, bucket: str, key: str, first: int, last: int, path: str) -> None:
        run(AWS, "s3api", "get-object", "--bucket", bucket, "--key", key, "--range", f"bytes={first}-{last}", path)

    def list(self, bucket: str, prefix: str) -> list[str]:
        found = run(
            AWS, "s3api", "list-objects-v2", "--bucket", bucket, "--prefix", prefix, "--query", "Contents[].Key"
        )
        return json.loads(found)

    def copy(self, bucket: str, key: str, to: str) -> None:
        run(AWS, "s3", "cp", f"s3://{bucket}/{key}", f"s3://{bucket}/{to}")

    def delete(self, bucket: str, key: str) -> None:
        run(AWS, "s3", "rm", f"s3://{bucket}/{key}")

    def sign_get(self, bucket: str, key: str) -> str:
        return run(AWS, "s3", "presign", f"s3://{bucket}/{key}").decode().strip()

    def get_former(self, bucket: str, key: str, path: str) -> None:
        query = "Versions[?IsLatest==`false`].VersionId"
        found = run(AWS, "s3api", "list-object-versions", "--bucket", bucket, "--prefix", key, "--query", query)
        former = json.loads(found)[0]
        run(AWS, "s3api", "get-object", "--bucket", bucket, "--key", key, "--version-id", former, path)


serve(Client())
