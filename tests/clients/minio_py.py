"""minio-py."""

import minio
from driver import ACCESS_KEY, HOST, REGION, SECRET_KEY, serve, write
from minio.commonconfig import CopySource

MIB = 1 << 20


class Client:
    def __init__(self) -> None:
        self.s3 = minio.Minio(HOST, access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION, secure=False)

    def version(self) -> str:
        return minio.__version__

    def _read(self, path: str, *arguments: object, **options: object) -> None:
        answer = self.s3.get_object(*arguments, **options)
        try:
            write(path, answer.read())
        finally:
            answer.close()
            answer.release_conn()

    def put(self, bucket: str, key: str, path: str) -> None:
        self.s3.fput_object(bucket, key, path)

    def get(self, bucket: str, key: str, path: str) -> None:
        self._read(path, bucket, key)

    def range(self, bucket: str, key: str, first: int, last: int, path: str) -> None:
        self._read(path, bucket, key, offset=first, length=last + 1 - first)

    def list(self, bucket: str, prefix: str) -> list[str]:
        return [entry.object_name for entry in self.s3.list_objects(bucket, prefix=prefix, recursive=True)]

    def multipart(self, bucket: str, key: str, path: str) -> None:
        self.s3.fput_object(bucket, key, path, part_size=5 * MIB)

    def copy(self, bucket: str, key: str, to: str) -> None:
        self.s3.copy_object(bucket, to, CopySource(bucket, key))

    def delete(self, bucket: str, key: str) -> None:
        self.s3.remove_object(bucket, key)

    def sign_get(self, bucket: str, key: str) -> str:
        return self.s3.presigned_get_object(bucket, key)

    def sign_put(self, bucket: str, key: str) -> str:
        return self.s3.presigned_put_object(bucket, key)

    def get_former(self, bucket: str, key: str, path: str) -> None:
        found = list(self.s3.list_objects(bucket, prefix=key, include_version=True))
        former = next(entry for entry in found if entry.is_latest != "true")
        self._read(path, bucket, key, version_id=former.version_id)


serve(Client())
