"""Whether a Tenant really serves: its own health, asked through its Service's address.

The status in the API may be left over from an earlier run, until the operator has looked again.
"""

from __future__ import annotations

import aiohttp

from holdfast_local.kubelet.client import SERVICES, ApiClient
from holdfast_local.kubelet.manifests import Key

HEALTH_PATH = "/health/cluster"
"""200 while every erasure set takes writes."""
ANSWER_TIMEOUT_SECONDS = 2.0


async def service_address(client: ApiClient, key: Key) -> tuple[str, int] | None:
    """Loopback address and port of the Tenant's Service, once it has them."""
    service = await client.get(SERVICES, *key)
    spec = (service or {}).get("spec") or {}
    ports = spec.get("ports") or []
    if not ports or not spec.get("clusterIP"):
        return None
    return str(spec["clusterIP"]), int(ports[0]["port"])


async def is_serving(client: ApiClient, key: Key) -> bool:
    """One question through the Service; False for any other answer and for none."""
    address = await service_address(client, key)
    if address is None:
        return False
    timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        for scheme in ("http", "https"):
            url = f"{scheme}://{address[0]}:{address[1]}{HEALTH_PATH}"
            try:
                async with session.get(url, ssl=False, allow_redirects=False) as response:
                    if response.status == 200:
                        return True
            except (aiohttp.ClientError, TimeoutError, OSError):
                continue
    return False
