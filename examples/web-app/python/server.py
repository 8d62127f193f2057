"""The back end in Python: boto3 and the standard library.

It lists, signs and deletes; the bytes of files never pass through it.  Everything it needs to know of the store is in
the Secret of the Tenant's user, as environment variables: AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_REGION, and AWS_CA_BUNDLE where the store has TLS of its own.

    BUCKET          uploads
    PUBLIC_S3_URL   the store as browsers reach it, where that is another address than the back end's
    PORT            8080
"""

import json
import os
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

BUCKET = os.environ.get("BUCKET", "uploads")
LINK_SECONDS = 600
MAX_REQUEST_BYTES = 64 << 10
PAGE = Path(os.environ.get("PAGE", Path(__file__).parents[1] / "page"))
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript"}
FILE = re.compile(r"/api/files/([^/]+)(/link)?")


def client(endpoint: str):
    # Links of signature version 4, and addresses that need no name per bucket.
    config = Config(signature_version="s3v4", s3={"addressing_style": "path"})
    return boto3.client(
        "s3", endpoint_url=endpoint, region_name=os.environ.get("AWS_REGION", "us-east-1"), config=config
    )


STORE = client(os.environ["AWS_ENDPOINT_URL_S3"])
SIGNER = client(os.environ.get("PUBLIC_S3_URL") or os.environ["AWS_ENDPOINT_URL_S3"])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path == "/api/about":
            self.answer(200, {"backend": "Python, boto3", "bucket": BUCKET})
        elif address.path == "/api/files":
            self.through_store(self.list_files)
        elif (found := FILE.fullmatch(address.path)) and found[2]:
            save = "save" in parse_qs(address.query)
            self.through_store(lambda: self.link(unquote(found[1]), save))
        else:
            self.page(address.path)

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        if self.path != "/api/uploads" or not 0 < length <= MAX_REQUEST_BYTES:
            self.close_connection = True
            return self.answer(404 if self.path != "/api/uploads" else 400, {"error": "no such request"})
        try:
            wanted = json.loads(self.rfile.read(length))
            name, kind = str(wanted["name"]), str(wanted["type"])
        except (ValueError, KeyError, TypeError):
            return self.answer(400, {"error": "name and type of the file are missing"})
        if not 1 <= len(name.encode()) <= 1024 or "/" in name:
            return self.answer(400, {"error": "that is no name for a file"})
        # The type is signed, so the browser must send this very one.
        parameters = {"Bucket": BUCKET, "Key": name, "ContentType": kind}
        return self.answer(200, {"url": SIGNER.generate_presigned_url("put_object", parameters, LINK_SECONDS)})

    def do_DELETE(self) -> None:
        found = FILE.fullmatch(urlsplit(self.path).path)
        if found is None or found[2]:
            return self.answer(404, {"error": "no such request"})
        return self.through_store(lambda: (204, STORE.delete_object(Bucket=BUCKET, Key=unquote(found[1])) and None))

    def list_files(self):
        pages = STORE.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        files = [
            {"name": entry["Key"], "size": entry["Size"], "modified": entry["LastModified"].isoformat()}
            for page in pages
            for entry in page.get("Contents", [])
        ]
        return 200, sorted(files, key=lambda file: file["modified"], reverse=True)

    def link(self, name: str, save: bool):
        parameters = {"Bucket": BUCKET, "Key": name}
        if save:
            parameters["ResponseContentDisposition"] = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
        return 200, {"url": SIGNER.generate_presigned_url("get_object", parameters, LINK_SECONDS)}

    def through_store(self, work) -> None:
        try:
            self.answer(*work())
        except (BotoCoreError, ClientError) as error:
            self.answer(502, {"error": f"the store: {error}"})

    def page(self, path: str) -> None:
        file = (PAGE / (path.lstrip("/") or "index.html")).resolve()
        if file.parent != PAGE.resolve() or file.suffix not in TYPES or not file.is_file():
            return self.answer(404, {"error": "no such page"})
        return self.send(200, file.read_bytes(), TYPES[file.suffix])

    def answer(self, status: int, value: object) -> None:
        self.send(status, b"" if status == 204 else json.dumps(value).encode(), "application/json")

    def send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form: str, *values: object) -> None:
        print(form % values, flush=True)


if __name__ == "__main__":
    with ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Handler) as server:
        print(f"http://localhost:{server.server_port}", flush=True)
        server.serve_forever()
