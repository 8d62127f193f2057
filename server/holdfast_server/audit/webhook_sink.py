"""Audit lines to an HTTP endpoint: a POST per batch, one JSON document per line (application/x-ndjson).

A 2xx is taken for a receipt.  A time-out, a broken connection, a 5xx, 408 and 429 are tried again; any other answer
says that this batch will never be taken, and it is given up.  Redirects are not followed: the token is meant for the
endpoint that was configured.  The token is read anew for every batch, so that it may be exchanged.  An answer that
gets lost makes a batch come twice: lines carry the request id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from holdfast_server.audit.outlet import DeliveryError

TIMEOUT_SECONDS = 10.0
CONTENT_TYPE = "application/x-ndjson"
MAX_TOKEN_SIZE_BYTES = 8 << 10
_TRIED_AGAIN = (408, 429)


class WebhookSink:
    name = "webhook"

    def __init__(self, url: str, token_file: Path | None) -> None:
        self._url, self._token_file = url, token_file
        self._session: aiohttp.ClientSession | None = None

    async def deliver(self, lines: Sequence[bytes]) -> None:
        headers = {"Content-Type": CONTENT_TYPE, **await self._authorization()}
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS))
        try:
            async with self._session.post(
                self._url, data=b"".join(lines), headers=headers, allow_redirects=False
            ) as answer:
                status = answer.status
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise DeliveryError(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__) from error
        if not 200 <= status < 300:
            raise DeliveryError(f"answered {status}", permanent=status < 500 and status not in _TRIED_AGAIN)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _authorization(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        try:
            token = await asyncio.to_thread(_read_token, self._token_file)
        except (OSError, UnicodeDecodeError) as error:
            raise DeliveryError(f"the token cannot be read: {error}") from error
        return {"Authorization": f"Bearer {token}"}


def _read_token(path: Path) -> str:
    with path.open("rb") as file:
        token = file.read(MAX_TOKEN_SIZE_BYTES).decode("ascii").strip()
    if not token or not token.isprintable():
        raise OSError(f"{path} holds no token")
    return token
