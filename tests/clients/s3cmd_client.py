"""s3cmd.  It asks for ranges to go on with a file of which it has the beginning."""

import sys
import time
from pathlib import Path

from driver import ACCESS_KEY, HOST, SECRET_KEY, read, run, serve, write

S3CMD = (
    str(Path(sys.executable).parent / "s3cmd"), "--config=/dev/null", "--no-ssl", f"--host={HOST}", "--encoding=UTF-8",
    f"--host-bucket={HOST}", f"--access_key={ACCESS_KEY}", f"--secret_key={SECRET_KEY}", "--no-progress",
)  # fmt: skip


class Client:
    def version(self) -> str:
        return run(*S3CMD, "--version").decode().split()[-1]

    def put(self, bucket: str, key: str, path: str) -> None:
        run(*S3CMD, "put", path, f"s3://{bucket}/{key}")

    def multipart(self, bucket: str, key: str, path: str) -> None:
        run(*S3CMD, "--multipart-chunk-size-mb=5", "put", path, f"s3://{bucket}/{key}")

    def get(self, bucket: str, key: str, path: str) -> None:
        run(*S3CMD, "get", f"s3://{bucket}/{key}", path)

    def range(self, bucket: str, key: str, first: int, last: int, path: str) -> None:
        """From `first` to the end, into a file whose beginning is made up: only the rest can come from the store."""
        write(path, b"?" * first)
        run(*S3CMD, "get", "--continue", f"s3://{bucket}/{key}", path)
        write(path, read(path)[first : last + 1])

    def list(self, bucket: str, prefix: str) -> list[str]:
        lines = run(*S3CMD, "ls", "--recursive", f"s3://{bucket}/{prefix}").decode().splitlines()
        return [line.partition(f"s3://{bucket}/")[2] for line in lines]

    def copy(self, bucket: str, key: str, to: str) -> None:
        run(*S3CMD, "cp", f"s3://{bucket}/{key}", f"s3://{bucket}/{to}")

    def delete(self, bucket: str, key: str) -> None:
        run(*S3CMD, "del", f"s3://{bucket}/{key}")

    def sign_get(self, bucket: str, key: str) -> str:
        return run(*S3CMD, "signurl", f"s3://{bucket}/{key}", str(int(time.time()) + 600)).decode().strip()


serve(Client())
