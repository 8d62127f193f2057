"""rclone.  Former versions show as files of their own, with the time of the version in their names."""

from driver import HOST, run, serve, write

RCLONE = (
    "rclone", "--config", "/dev/null", "--s3-provider", "Minio", "--s3-env-auth", "--s3-force-path-style",
    "--s3-endpoint", f"http://{HOST}",
)  # fmt: skip


class Client:
    def version(self) -> str:
        return run("rclone", "version").decode().split()[1].removeprefix("v")

    def put(self, bucket: str, key: str, path: str) -> None:
        run(*RCLONE, "copyto", "--ignore-times", path, f":s3:{bucket}/{key}")

    def multipart(self, bucket: str, key: str, path: str) -> None:
        run(*RCLONE, "copyto", "--s3-upload-cutoff", "5M", "--s3-chunk-size", "5M", path, f":s3:{bucket}/{key}")

    def get(self, bucket: str, key: str, path: str) -> None:
        run(*RCLONE, "copyto", f":s3:{bucket}/{key}", path)

    def range(self, bucket: str, key: str, first: int, last: int, path: str) -> None:
        count = str(last + 1 - first)
        write(path, run(*RCLONE, "cat", "--offset", str(first), "--count", count, f":s3:{bucket}/{key}"))

    def list(self, bucket: str, prefix: str) -> list[str]:
        lines = run(*RCLONE, "lsf", "--recursive", "--files-only", f":s3:{bucket}/{prefix}").decode().splitlines()
        return [prefix + line for line in lines]

    def copy(self, bucket: str, key: str, to: str) -> None:
        run(*RCLONE, "copyto", f":s3:{bucket}/{key}", f":s3:{bucket}/{to}")

    def delete(self, bucket: str, key: str) -> None:
        run(*RCLONE, "deletefile", f":s3:{bucket}/{key}")

    def sign_get(self, bucket: str, key: str) -> str:
        return run(*RCLONE, "link", "--expire", "10m", f":s3:{bucket}/{key}").decode().strip()

    def get_former(self, bucket: str, key: str, path: str) -> None:
        names = run(*RCLONE, "--s3-versions", "lsf", f":s3:{bucket}").decode().splitlines()
        former = next(name for name in names if name.startswith(f"{key}-v"))
        write(path, run(*RCLONE, "--s3-versions", "cat", f":s3:{bucket}/{former}"))


serve(Client())
