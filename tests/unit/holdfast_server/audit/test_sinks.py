"""Where audit lines end up: a pipe, a file that grows too large or is taken away, an endpoint that has bad days."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from holdfast_server.audit import outlet, webhook_sink
from holdfast_server.audit.file_sink import FileSink
from holdfast_server.audit.log import AuditLog, sink_maker
from holdfast_server.audit.outlet import DeliveryError
from holdfast_server.audit.stdout_sink import StdoutSink
from holdfast_server.audit.webhook_sink import WebhookSink
from holdfast_server.contract.config import AuditConfig, AuditFile, AuditWebhook


async def test_a_pipe_that_nobody_reads_stalls_neither_the_loop_nor_the_end() -> None:
    reader, writer = os.pipe()
    sink = StdoutSink(writer)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await sink.deliver([b"x" * (1 << 20)])  # far more than a pipe holds
    await sink.close()
    os.close(reader)
    # Its thread still writes: to whoever is given the descriptor next, if it were closed under it.
    await asyncio.to_thread(sink._thread._thread.join)
    os.close(writer)


async def test_a_pipe_gets_every_byte_also_when_it_does_not_block() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    sink = StdoutSink(writer)
    data = [b"%d\n" % number * 100 for number in range(1000)]
    delivery = asyncio.create_task(sink.deliver(data))
    taken = b""
    while len(taken) < sum(map(len, data)):
        taken += await asyncio.to_thread(os.read, reader, 1 << 16)
    await delivery
    await sink.close()
    os.close(reader)
    os.close(writer)
    assert taken == b"".join(data)


async def test_a_closed_pipe_is_a_failure_that_is_told() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    sink = StdoutSink(writer)
    with pytest.raises(DeliveryError, match="Broken pipe") as failed:
        await sink.deliver([b"x"])
    assert not failed.value.permanent
    await sink.close()
    os.close(writer)


async def test_a_file_is_rotated_by_size_and_no_line_is_lost_or_torn(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    sink = FileSink(path, max_size_bytes=100, keep=2)
    for number in range(8):
        await sink.deliver([b"%d" % number * 39 + b"\n"])
    await sink.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["audit.log", "audit.log.1", "audit.log.2"]
    texts = [path.with_name(name).read_text() for name in ("audit.log.2", "audit.log.1", "audit.log")]
    assert [line[0] for text in texts for line in text.splitlines()] == ["2", "3", "4", "5", "6", "7"]
    assert all(len(line) == 39 for text in texts for line in text.splitlines())
    assert path.stat().st_mode & 0o777 == 0o640 & ~_umask()


async def test_a_file_without_room_for_old_ones_begins_anew(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "audit.log", max_size_bytes=10, keep=0)
    await sink.deliver([b"12345678\n"])
    await sink.deliver([b"abc\n"])
    await sink.close()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("audit.log", "abc\n")]


async def test_a_file_that_was_renamed_or_removed_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    sink = FileSink(path, max_size_bytes=1 << 20, keep=1)
    await sink.deliver([b"one\n"])
    path.rename(tmp_path / "taken-away")
    await sink.deliver([b"two\n"])
    path.unlink()
    await sink.deliver([b"three\n"])
    await sink.close()
    assert (path.read_text(), (tmp_path / "taken-away").read_text()) == ("three\n", "one\n")


async def test_half_a_batch_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.log"
    sink = FileSink(path, max_size_bytes=1 << 20, keep=1)
    await sink.deliver([b"whole\n"])
    write, room = os.write, [3]

    def nearly_full(descriptor: int, data: bytes) -> int:
        if not room:
            raise OSError(28, "No space left on device")
        return write(descriptor, bytes(data[: room.pop()]))

    monkeypatch.setattr(os, "write", nearly_full)
    with pytest.raises(DeliveryError, match=r"audit\.log: No space left"):
        await sink.deliver([b"more\n"])
    monkeypatch.setattr(os, "write", write)
    await sink.deliver([b"more\n"])
    await sink.close()
    assert path.read_text() == "whole\nmore\n"


class Endpoint:
    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.seen: list[tuple[bytes, str, str]] = []
        self.hangs = False

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.seen.append((body, request.headers["Content-Type"], request.headers.get("Authorization", "")))
        if self.hangs:
            await asyncio.sleep(60)
        status = self.statuses.pop(0) if self.statuses else 204
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 302 else {})

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        application = web.Application()
        application.router.add_post("/{path:.*}", self.answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/in"
        finally:
            await runner.cleanup()


async def test_a_webhook_gets_lines_and_its_token_as_it_is_now(tmp_path: Path) -> None:
    endpoint, token = Endpoint(), tmp_path / "token"
    token.write_text("first\n")
    async with endpoint.serving() as url:
        sink = WebhookSink(url, token)
        await sink.deliver([b"{}\n", b"{}\n"])
        token.write_text("second\n")
        await sink.deliver([b"[]\n"])
        token.unlink()
        with pytest.raises(DeliveryError, match="token cannot be read"):
            await sink.deliver([b"x"])
        await sink.close()
    assert endpoint.seen == [
        (b"{}\n{}\n", "application/x-ndjson", "Bearer first"),
        (b"[]\n", "application/x-ndjson", "Bearer second"),
    ]


@pytest.mark.parametrize(
    ("status", "permanent"), [(500, False), (503, False), (429, False), (408, False), (400, True), (302, True)]
)
async def test_answers_of_a_webhook(status: int, permanent: bool) -> None:
    endpoint = Endpoint()
    endpoint.statuses = [status]
    async with endpoint.serving() as url:
        sink = WebhookSink(url, None)
        with pytest.raises(DeliveryError, match=str(status)) as failed:
            await sink.deliver([b"x"])
        await sink.close()
    assert failed.value.permanent is permanent
    assert len(endpoint.seen) == 1, "no redirect is followed"


async def test_a_webhook_that_hangs_or_is_away_fails_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_sink, "TIMEOUT_SECONDS", 0.05)
    endpoint = Endpoint()
    endpoint.hangs = True
    async with endpoint.serving() as url:
        sink = WebhookSink(url, None)
        with pytest.raises(DeliveryError, match="Timeout") as failed:
            await sink.deliver([b"x"])
        assert not failed.value.permanent
        await sink.close()
    sink = WebhookSink("http://127.0.0.1:9/", None)
    with pytest.raises(DeliveryError) as failed:
        await sink.deliver([b"x"])
    assert not failed.value.permanent
    await sink.close()


async def test_a_log_follows_its_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "FLUSH_SECONDS", 60.0)  # how long is another test's: here all must get away
    endpoint = Endpoint()
    log = AuditLog(sink_maker(lambda path: tmp_path / path.lstrip("/")))
    work = asyncio.create_task(log.run())
    log.offer(b"nobody listens\n")
    async with endpoint.serving() as url:
        assert not log.active
        log.configure(AuditConfig(file=AuditFile(path="/one.log")))
        assert log.active
        log.offer(b"1\n")
        log.configure(AuditConfig(file=AuditFile(path="/two.log"), webhook=AuditWebhook(url=url)))
        log.offer(b"2\n")
        log.configure(AuditConfig(file=AuditFile(path="/two.log")))
        log.offer(b"3\n")
        await log.close()
        assert not log.active
        log.offer(b"too late\n")
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    counts = {count.sink: (count.written, count.dropped, count.waiting_bytes) for count in log.counts()}
    assert (tmp_path / "two.log").read_text() == "2\n3\n"
    assert counts["stdout"] == (0, 0, 0)
    assert (counts["file"], counts["webhook"]) == ((3, 0, 0), (1, 0, 0)), "those that were replaced ran to their end"
    assert (tmp_path / "one.log").read_text() == "1\n"
    assert [body for body, _, _ in endpoint.seen] == [b"2\n"]


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
