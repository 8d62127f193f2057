"""examples/web-app in a real browser: a file is chosen, sent by a presigned URL, shown, downloaded, deleted.

The whole stack is there: the stand-in cluster with the example's Tenant, the keys of its user's Secret, a back end as
its README starts it, and Chromium without a window, driven by its DevTools protocol.  Skipped where there is no
Chromium; the back end in Node where minio-js is not installed (`npm install --prefix examples/web-app/node`).

HOLDFAST_SCREENSHOTS names a folder for pictures of the page.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import websocket

from holdfast_operator.testing.processes import free_port
from holdfast_server.testing.answers import answers
from holdfast_server.testing.standin import StandIn, parse_exports

ROOT = Path(__file__).parents[2]
APP = ROOT / "examples/web-app"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WAIT_SECONDS = 90.0
BUCKET = "uploads"

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.timeout(600),
]


def wait_for(what: str, found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT_SECONDS
    while not (value := found()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.1)
    return value


class Browser:
    """Chromium with one page, by the DevTools protocol."""

    def __init__(self, folder: Path) -> None:
        self.downloads = folder / "downloads"
        self.downloads.mkdir()
        profile = folder / "profile"
        command = [
            CHROMIUM,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ]
        command += ["--remote-debugging-port=0", f"--user-data-dir={profile}", "--window-size=1100,900", "about:blank"]
        with (folder / "chromium.log").open("ab") as log:
            self._process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)
        port_file = profile / "DevToolsActivePort"
        wait_for("Chromium", lambda: port_file.exists() and port_file.read_text().count("\n"))
        port = port_file.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
            target = next(entry for entry in json.load(answer) if entry["type"] == "page")
        self._socket = websocket.create_connection(
            target["webSocketDebuggerUrl"], timeout=WAIT_SECONDS, suppress_origin=True
        )
        self._numbers = itertools.count(1)
        self.do("Page.enable")
        self.do("DOM.enable")
        self.do("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))

    def do(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def evaluate(self, expression: str) -> Any:
        found = self.do("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, url: str) -> None:
        self.do("Page.navigate", url=url)
        wait_for("the page", lambda: self.evaluate("document.readyState") == "complete")

    def choose(self, files: list[Path]) -> None:
        """As if a person had picked them."""
        root = self.do("DOM.getDocument")["root"]["nodeId"]
        node = self.do("DOM.querySelector", nodeId=root, selector="#chooser")["nodeId"]
        self.do("DOM.setFileInputFiles", files=[str(file) for file in files], nodeId=node)

    def names(self) -> list[str]:
        """Of the files that the page shows."""
        return self.evaluate("[...document.querySelectorAll('#files li')].map((row) => row.dataset.name)")

    def press(self, name: str, kind: str) -> None:
        self.evaluate(
            f"[...document.querySelectorAll('#files li')].find((row) => row.dataset.name === {json.dumps(name)})"
            f".querySelector('button.{kind}').click()"
        )

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.do("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    standin = StandIn(tmp_path_factory.mktemp("standin") / "state", APP / "tenant.yaml")
    try:
        standin.start()
        yield standin
    finally:
        standin.stop()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    browser = Browser(tmp_path)
    yield browser
    browser.close()


def back_end_command(kind: str) -> list[str]:
    if kind == "python":
        return [sys.executable, str(APP / "python/server.py")]
    if shutil.which("node") is None or not (APP / "node/node_modules/minio").is_dir():
        pytest.skip("Node or minio-js is not installed")
    return ["node", str(APP / "node/server.mjs")]


def user_keys(standin: StandIn) -> dict[str, str]:
    """Of the Tenant's user, who may use this bucket and nothing else."""
    command = [sys.executable, str(APP / "keys.py"), str(standin.kubeconfig)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=WAIT_SECONDS)
    keys = parse_exports(done.stdout)
    assert keys["AWS_ACCESS_KEY_ID"] != standin.environment["AWS_ACCESS_KEY_ID"]
    return keys


@contextlib.contextmanager
def back_end(kind: str, standin: StandIn, log_file: Path) -> Iterator[int]:
    """Its port."""
    port = free_port()
    environment = {**os.environ, **standin.environment, **user_keys(standin), "PORT": str(port)}
    with log_file.open("ab") as log:
        process = subprocess.Popen(back_end_command(kind), env=environment, stdout=log, stderr=log)

    def up() -> bool:
        assert process.poll() is None, log_file.read_text()
        return answers(f"http://localhost:{port}/api/about", timeout_seconds=5)

    try:
        wait_for("the back end", up)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def picture(width: int, height: int) -> bytes:
    """A PNG: a sunset."""
    rows = b"".join(
        b"\0"
        + b"".join(bytes((255 - y * 120 // height, 90 + x * 100 // width, y * 200 // height)) for x in range(width))
        for y in range(height)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def files_in(folder: Path) -> dict[str, bytes]:
    contents = {
        "sunset.png": picture(160, 120),
        "Bericht über Größen + 1.pdf": random.Random(1).randbytes(3_000_000),
        "empty.txt": b"",
        "100% sure?#.bin": random.Random(2).randbytes(70_000),
    }
    folder.mkdir()
    for name, body in contents.items():
        (folder / name).write_bytes(body)
    return contents


@pytest.mark.parametrize("kind", ["python", "node"])
def test_files_go_up_are_listed_come_down_and_are_deleted(
    kind: str, standin: StandIn, browser: Browser, tmp_path: Path
) -> None:
    contents = files_in(tmp_path / "chosen")
    keys = standin.environment
    s3 = boto3.client("s3", endpoint_url=keys["AWS_ENDPOINT_URL_S3"], region_name=keys["AWS_REGION"],
                      aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
                      aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"])  # fmt: skip
    with back_end(kind, standin, tmp_path / "log") as port:
        browser.open(f"http://localhost:{port}/")
        wait_for("an empty list", lambda: browser.evaluate("!document.getElementById('empty').hidden"))
        browser.choose([tmp_path / "chosen" / name for name in contents])
        wait_for("all files", lambda: sorted(browser.names()) == sorted(contents))
        for name, body in contents.items():
            assert s3.get_object(Bucket=BUCKET, Key=name)["Body"].read() == body
        loaded = "[...document.images].length && [...document.images].every((image) => image.naturalWidth === 160)"
        wait_for("the picture", lambda: browser.evaluate(loaded))
        if folder := os.environ.get("HOLDFAST_SCREENSHOTS"):
            browser.picture(Path(folder) / f"{kind}.png")
        for name, body in contents.items():
            browser.press(name, "download")
            down = wait_for(name, lambda body=body: same_file(browser.downloads, body))
            down.unlink()
        for name in contents:
            browser.press(name, "delete")
            wait_for("its end", lambda name=name: name not in browser.names())
        assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)
        assert browser.evaluate("document.getElementById('problem').textContent") == ""
    s3.close()


def same_file(folder: Path, body: bytes) -> Path | None:
    """A finished download with this content; browsers change names that file systems would not have."""
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.suffix != ".crdownload" and path.read_bytes() == body:
                return path
    return None


def test_a_page_from_elsewhere_is_kept_out_by_the_bucket(standin: StandIn, browser: Browser, tmp_path: Path) -> None:
    """The same page under another origin: the rules of the Tenant's bucket name http://localhost alone."""
    (tmp_path / "secret.txt").write_bytes(b"x")
    with back_end("python", standin, tmp_path / "log") as port:
        browser.open(f"http://127.0.0.1:{port}/")
        wait_for("an empty list", lambda: browser.evaluate("!document.getElementById('empty').hidden"))
        browser.choose([tmp_path / "secret.txt"])
        told = "document.querySelector('#uploads .failed')?.textContent"
        assert "CORS" in wait_for("the refusal", lambda: browser.evaluate(told))
        assert browser.names() == []
