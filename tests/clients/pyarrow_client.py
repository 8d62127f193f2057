"""pyarrow's S3FileSystem, on the AWS SDK for C++."""

import pyarrow
from driver import ACCESS_KEY, HOST, REGION, SECRET_KEY, read, serve, write
from pyarrow import fs

MIB = 1 << 20


class Client:
    def __init__(self) -> None:
        self.files = fs.S3FileSystem(
            access_key=ACCESS_KEY, secret_key=SECRET_KEY, endpoint_override=HOST, scheme="http", region=REGION
        )

    def version(self) -> str:
        return pyarrow.__version__

    def put(self, bucket: str, key: str, path: str) -> None:
        with self.files.open_output_stream(f"{bucket}/{key}") as file:
            file.write(read(path))

    def get(self, bucket: str, key: str, path: str) -> None:
        with self.files.open_input_stream(f"{bucket}/{key}") as file:
            write(path, file.read())

    def range(self, bucket: str, key: str, first: int, last: int, path: str) -> None:
        with self.files.open_input_file(f"{bucket}/{key}") as file:
            write(path, file.read_at(last + 1 - first, first))

    def list(self, bucket: str, prefix: str) -> list[str]:
        found = self.files.get_file_info(fs.FileSelector(f"{bucket}/{prefix.rstrip('/')}", recursive=True))
        return [entry.path.removeprefix(f"{bucket}/") for entry in found if entry.type == fs.FileType.File]

    def multipart(self, bucket: str, key: str, path: str) -> None:
        body = read(path)
        with self.files.open_output_stream(f"{bucket}/{key}", buffer_size=5 * MIB) as file:
            for start in range(0, len(body), 6 * MIB):
                file.write(body[start : start + 6 * MIB])

    def copy(self, bucket: str, key: str, to: str) -> None:
        self.files.copy_file(f"{bucket}/{key}", f"{bucket}/{to}")

    def delete(self, bucket: str, key: str) -> None:
        self.files.delete_file(f"{bucket}/{key}")


serve(Client())
