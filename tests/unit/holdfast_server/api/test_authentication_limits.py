"""Too many failed authentications of one source are refused unseen, in S3's head and form, in IAM and the admin API."""

from __future__ import annotations

import urllib.error
import urllib.request

from holdfast_server.auth.failure_limits import SOURCE_BURST
from holdfast_server.clock.system import SystemClock
from holdfast_server.s3.signing import KeyPair, sign_headers
from holdfast_server.testing.memory_services import ROOT_PASSWORD, ROOT_USER, Endpoint, memory_services, served


def status_of(endpoint: Endpoint, pair: KeyPair) -> tuple[int, str | None]:
    host = endpoint.url.removeprefix("http://")
    headers = sign_headers(pair, "GET", "/", "", {"host": host}, SystemClock().now_ms())
    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint.url + "/", headers=headers)) as response:
            return response.status, None
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get("retry-after")


def test_guesses_end_in_503_and_who_is_known_goes_on() -> None:
    services = memory_services()
    good, guesser = KeyPair(ROOT_USER, ROOT_PASSWORD), KeyPair("guessed", "guessed-secret")
    with served(services) as endpoint:
        assert status_of(endpoint, good)[0] == 200
        assert status_of(endpoint, guesser) == (403, None)
        for number in range(int(SOURCE_BURST) + 5):
            services.failures.failed("127.0.0.1", f"guess-{number}", services.clock.monotonic_seconds() + 3600)
        assert status_of(endpoint, guesser) == (503, "1")
        assert status_of(endpoint, good)[0] == 200
        told = services.metrics.render().decode()
    assert 'holdfast_s3_authentication_failures_total{code="InvalidAccessKeyId"} 1.0' in told
    assert "holdfast_s3_authentication_throttled_total 1.0" in told
