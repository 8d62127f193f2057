"""The log subresource of pods: a plain file that the kubelet names in an annotation, followed as it grows.

The kubelet sets `holdfast.dev/log-path` (one container) or `holdfast.dev/log-path.<container>` to the log's path on
this machine; `<path>.previous` is the log of the container's last run. Lines are sent as they are; `timestamps` is
not supported because processes write to the file directly.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from holdfast_local.apiserver import errors
from holdfast_local.apiserver.resources import Object

LOG_PATH_ANNOTATION = "holdfast.dev/log-path"
FOLLOW_INTERVAL_SECONDS = 0.25
CHUNK_SIZE_BYTES = 256 * 1024


def log_path(pod: Object, container: str) -> Path:
    """Where the container's log is. Raises StatusError 400 as a real server does."""
    name = pod["metadata"]["name"]
    containers = [entry["name"] for entry in pod["spec"].get("containers") or ()]
    if not container:
        if len(containers) > 1:
            choices = " ".join(containers)
            raise errors.bad_request(f"a container name must be specified for pod {name}, choose one of: [{choices}]")
        container = containers[0] if containers else ""
    if container not in containers:
        raise errors.bad_request(f"container {container} is not valid for pod {name}")
    annotations = pod["metadata"].get("annotations") or {}
    path = annotations.get(f"{LOG_PATH_ANNOTATION}.{container}") or annotations.get(LOG_PATH_ANNOTATION)
    if not path:
        message = f'container "{container}" in pod "{name}" is waiting to start: ContainerCreating'
        raise errors.bad_request(message)
    return Path(path)


async def serve_log(request: web.Request, pod: Object, is_over: Callable[[], bool]) -> web.StreamResponse:
    """Streams the log from `tailLines` before the end on; with `follow`, until `is_over` says that no more comes."""
    query = request.query
    path = log_path(pod, query.get("container", ""))
    if query.get("previous") in ("true", "1"):
        path = path.with_name(path.name + ".previous")
        if not path.exists():
            raise errors.bad_request("previous terminated container not found")
    tail = _number(query.get("tailLines"), "tailLines")
    limit = _number(query.get("limitBytes"), "limitBytes")
    follow = query.get("follow") in ("true", "1")
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    response.enable_chunked_encoding()
    position = await asyncio.to_thread(_start_of_tail, path, tail)
    await response.prepare(request)
    try:
        while True:
            # Asked before reading, so that what was written last is still sent.
            last_round = not follow or is_over()
            data = await asyncio.to_thread(_read, path, position, CHUNK_SIZE_BYTES)
            if limit is not None:
                data = data[:limit]
                limit -= len(data)
            if data:
                position += len(data)
                await response.write(data)
            if limit == 0 or request.transport is None:
                break
            if not data:
                if last_round:
                    break
                position = min(position, await asyncio.to_thread(_size, path))
                await asyncio.sleep(FOLLOW_INTERVAL_SECONDS)
    except ConnectionError:
        pass
    return response


def _number(text: str | None, name: str) -> int | None:
    if text is None:
        return None
    if not text.isdecimal():
        raise errors.bad_request(f"{name} must be a number that is not negative")
    return int(text)


def _start_of_tail(path: Path, lines: int | None) -> int:
    """The offset of the line that is `lines` before the end; 0 for None."""
    if lines is None or not path.exists():
        return 0
    with path.open("rb") as file:
        position = end = file.seek(0, os.SEEK_END)
        if lines == 0:
            return end
        found = 0
        while position > 0:
            size = min(CHUNK_SIZE_BYTES, position)
            position -= size
            file.seek(position)
            block = file.read(size)
            index = len(block)
            while (index := block.rfind(b"\n", 0, index)) != -1:
                # The newline that ends the last line does not begin one.
                if position + index != end - 1:
                    found += 1
                if found == lines:
                    return position + index + 1
    return 0


def _size(path: Path) -> int:
    """0 for an absent file, so that a log that was replaced is followed from its beginning."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _read(path: Path, position: int, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(position)
            return file.read(size)
    except FileNotFoundError:
        return b""
