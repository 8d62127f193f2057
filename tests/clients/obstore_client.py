"""obstore, the Rust object_store for Python."""

import datetime
import importlib.metadata

import obstore
from driver import ACCESS_KEY, ENDPOINT, REGION, SECRET_KEY, read, serve, write

MIB = 1 << 20
AN_HOUR = datetime.timedelta(hours=1)


class Client:
    def version(self) -> str:
        return importlib.metadata.version("obstore")

    def _store(self, bucket: str) -> obstore.store.S3Store:
        return obstore.store.S3Store(
            bucket, endpoint=ENDPOINT, region=REGION, client_options={"allow_http": True},
            access_key_id=ACCESS_KEY, secret_access_key=SECRET_KEY,
        )  # fmt: skip

    def put(self, bucket: str, key: str, path: str) -> None:
        obstore.put(self._store(bucket), key, read(path))

    def get(self, bucket: str, key: str, path: str) -> None:
        write(path, bytes(obstore.get(self._store(bucket), key).bytes()))

    def range(self, bucket: str, key: str, first: int, last: int, path: str) -> None:
        write(path, bytes(obstore.get_range(self._store(bucket), key, start=first, end=last + 1)))

    def list(self, bucket: str, prefix: str) -> list[str]:
        return [entry["path"] for batch in obstore.list(self._store(bucket), prefix) for entry in batch]

    def multipart(self, bucket: str, key: str, path: str) -> None:
        with open(path, "rb") as body:
            obstore.put(self._store(bucket), key, body, use_multipart=True, chunk_size=5 * MIB)

    def copy(self, bucket: str, key: str, to: str) -> None:
        obstore.copy(self._store(bucket), key, to)

    def delete(self, bucket: str, key: str) -> None:
        obstore.delete(self._store(bucket), key)

    def sign_get(self, bucket: str, key: str) -> str:
        return obstore.sign(self._store(bucket), "GET", key, AN_HOUR)

    def sign_put(self, bucket: str, key: str) -> str:
        return obstore.sign(self._store(bucket), "PUT", key, AN_HOUR)


serve(Client())
