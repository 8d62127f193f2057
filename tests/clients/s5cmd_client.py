"""s5cmd: `go install github.com/peak/s5cmd/v2@v2.3.0`, then on the PATH or named by HOLDFAST_S5CMD."""

import os

from driver import ENDPOINT, run, serve, write

S5CMD = (os.environ.get("HOLDFAST_S5CMD", "s5cmd"), "--endpoint-url", ENDPOINT)


class Client:
    def version(self) -> str:
        return os.environ.get("HOLDFAST_S5CMD_VERSION") or run(S5CMD[0], "version").decode().split()[0].lstrip("v")

    def put(self, bucket: str, key: str, path: str) -> None:
        run(*S5CMD, "cp", path, f"s3://{bucket}/{key}")

    def multipart(self, bucket: str, key: str, path: str) -> None:
        run(*S5CMD, "cp", "--part-size", "5", path, f"s3://{bucket}/{key}")

    def get(self, bucket: str, key: str, path: str) -> None:
        run(*S5CMD, "cp", "--raw", f"s3://{bucket}/{key}", path)

    def list(self, bucket: str, prefix: str) -> list[str]:
        lines = run(*S5CMD, "ls", "--show-fullpath", f"s3://{bucket}/{prefix}*").decode().splitlines()
        return [line.partition(f"s3://{bucket}/")[2] for line in lines]

    def copy(self, bucket: str, key: str, to: str) -> None:
        run(*S5CMD, "cp", "--raw", f"s3://{bucket}/{key}", f"s3://{bucket}/{to}")

    def delete(self, bucket: str, key: str) -> None:
        run(*S5CMD, "rm", "--raw", f"s3://{bucket}/{key}")

    def sign_get(self, bucket: str, key: str) -> str:
        return run(*S5CMD, "presign", f"s3://{bucket}/{key}").decode().strip()

    def get_former(self, bucket: str, key: str, path: str) -> None:
        """The versions of a key are listed the newest first."""
        lines = run(*S5CMD, "ls", "--all-versions", f"s3://{bucket}/{key}").decode().splitlines()
        former = lines[1].split()[-1]
        write(path, run(*S5CMD, "cat", "--version-id", former, f"s3://{bucket}/{key}"))


serve(Client())
