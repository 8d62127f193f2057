"""s3fs, the file system of fsspec (and with it pandas, dask, xarray …)."""

import s3fs
from driver import ACCESS_KEY, ENDPOINT, REGION, SECRET_KEY, read, serve, write

MIB = 1 << 20


class Client:
    def __init__(self) -> None:
        options = {"endpoint_url": ENDPOINT, "region_name": REGION}
        self.files = s3fs.S3FileSystem(
            key=ACCESS_KEY, secret=SECRET_KEY, client_kwargs=options, use_listings_cache=False
        )
        self.versions = s3fs.S3FileSystem(
            key=ACCESS_KEY, secret=SECRET_KEY, client_kwargs=options, use_listings_cache=False, version_aware=True
        )

    def version(self) -> str:
        return s3fs.__version__

    def put(self, bucket: str, key: str, path: str) -> None:
        self.files.pipe_file(f"{bucket}/{key}", read(path))

    def get(self, bucket: str, key: str, path: str) -> None:
        with self.files.open(f"{bucket}/{key}", "rb") as file:
            write(path, file.read())

    def range(self, bucket: str, key: str, first: int, last: int, path: str) -> None:
        write(path, self.files.cat_file(f"{bucket}/{key}", start=first, end=last + 1))

    def list(self, bucket: str, prefix: str) -> list[str]:
        return [path.removeprefix(f"{bucket}/") for path in self.files.find(f"{bucket}/{prefix}")]

    def multipart(self, bucket: str, key: str, path: str) -> None:
        with self.files.open(f"{bucket}/{key}", "wb", block_size=5 * MIB) as file, open(path, "rb") as body:
            while piece := body.read(MIB):
                file.write(piece)

    def copy(self, bucket: str, key: str, to: str) -> None:
        self.files.cp_file(f"{bucket}/{key}", f"{bucket}/{to}")

    def delete(self, bucket: str, key: str) -> None:
        self.files.rm_file(f"{bucket}/{key}")

    def sign_get(self, bucket: str, key: str) -> str:
        return self.files.sign(f"{bucket}/{key}", expiration=600)

    def sign_put(self, bucket: str, key: str) -> str:
        return self.files.url(f"{bucket}/{key}", expires=600, client_method="put_object")

    def get_former(self, bucket: str, key: str, path: str) -> None:
        found = self.versions.object_version_info(f"{bucket}/{key}")
        former = next(entry["VersionId"] for entry in found if not entry["IsLatest"])
        write(path, self.versions.cat_file(f"{bucket}/{key}", version_id=former))


serve(Client())
