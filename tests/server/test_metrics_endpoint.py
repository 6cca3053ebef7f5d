"""The metrics' page, as Prometheus and people without manners ask for it."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from server.metrics_endpoint import MetricsEndpoint, MetricsListenError

LOCAL = "127.0.0.1:0"


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("things", "Things that were counted.", registry=registry).inc(3)
    return registry


async def ask(
    address: str, path: str = "/metrics", *, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    def fetch() -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(address, timeout=10)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    return await asyncio.to_thread(fetch)


async def test_prometheus_text(registry: CollectorRegistry) -> None:
    async with MetricsEndpoint(LOCAL, registry) as endpoint:
        status, headers, body = await ask(endpoint.address)
    assert (status, headers["Content-Type"].split(";")[0]) == (200, "text/plain")
    (family, *_) = text_string_to_metric_families(body.decode())
    assert ("things_total", 3) in [(sample.name, sample.value) for sample in family.samples]


async def test_openmetrics_where_accepted(registry: CollectorRegistry) -> None:
    async with MetricsEndpoint(LOCAL, registry) as endpoint:
        _, headers, body = await ask(endpoint.address, Accept="application/openmetrics-text;version=1.0.0")
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert [family.name for family in openmetrics_families(body.decode())] == ["things"]


async def test_compressed_where_accepted(registry: CollectorRegistry) -> None:
    async with MetricsEndpoint(LOCAL, registry) as endpoint:
        _, headers, body = await ask(endpoint.address, **{"Accept-Encoding": "gzip"})
    assert headers["Content-Encoding"] == "gzip"
    assert b"things_total 3" in gzip.decompress(body)


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/healthz", 200, b"ok\n"),
        ("GET", "/metrics?name[]=things_total", 200, b"things_total 3"),
        ("GET", "/", 404, b"404 there are /metrics and /healthz\n"),
        ("GET", "/metrics/more", 404, b"404"),
        ("POST", "/metrics", 405, b"405 use GET\n"),
        ("DELETE", "/", 405, b"405"),
        ("HEAD", "/metrics", 405, b""),
        ("MAKEUP", "/metrics", 501, b"501"),
    ],
)
async def test_paths_and_methods(registry: CollectorRegistry, method: str, path: str, status: int, text: bytes) -> None:
    async with MetricsEndpoint(LOCAL, registry) as endpoint:
        got, headers, body = await ask(endpoint.address, path, method=method)
    assert got == status
    assert text in body
    if got == 405:
        assert headers["Allow"] == "GET"


async def test_a_port_in_use_is_told(registry: CollectorRegistry) -> None:
    async with MetricsEndpoint(LOCAL, registry) as endpoint:
        with pytest.raises(MetricsListenError, match=r"metrics on .*in use; choose HOST:PORT with --metrics-address"):
            async with MetricsEndpoint(endpoint.address, registry):
                pass


@pytest.mark.parametrize("address", ["unix:/tmp/metrics", "192.0.2.1:0"])
async def test_an_impossible_address_is_told(registry: CollectorRegistry, address: str) -> None:
    with pytest.raises(MetricsListenError, match=address):
        await MetricsEndpoint(address, registry).__aenter__()


async def test_the_port_is_free_afterwards(registry: CollectorRegistry) -> None:
    async with MetricsEndpoint(LOCAL, registry) as first:
        address = first.address
        await ask(address)
    async with MetricsEndpoint(address, registry) as second:
        assert second.address == address
    assert not [thread for thread in threading.enumerate() if thread.name == "metrics" and thread.is_alive()]


async def test_ipv6(registry: CollectorRegistry) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    try:
        async with MetricsEndpoint("[::1]:0", registry) as endpoint:
            assert endpoint.address.startswith("[::1]:")
            assert (await ask(endpoint.address, "/healthz"))[0] == 200
    except MetricsListenError:
        pytest.skip("IPv6 is off on this machine")


async def test_a_silent_client_holds_up_nobody(registry: CollectorRegistry) -> None:
    async with MetricsEndpoint(LOCAL, registry) as endpoint:
        host, _, port = endpoint.address.rpartition(":")
        with socket.create_connection((host, int(port))):
            assert (await ask(endpoint.address))[0] == 200


class BrokenRegistry(CollectorRegistry):
    def collect(self) -> Iterator[Metric]:
        raise RuntimeError("broken collector")


async def test_a_defect_is_logged_and_not_the_end(caplog: pytest.LogCaptureFixture) -> None:
    async with MetricsEndpoint(LOCAL, BrokenRegistry()) as endpoint:
        with pytest.raises(http.client.HTTPException):
            await ask(endpoint.address)
        assert (await ask(endpoint.address, "/healthz"))[0] == 200
    assert "broken collector" in caplog.text


_ABANDONED = """
import asyncio
from prometheus_client import CollectorRegistry
from server.metrics_endpoint import MetricsEndpoint
asyncio.run(MetricsEndpoint("127.0.0.1:0", CollectorRegistry()).__aenter__())
"""


def test_an_abandoned_endpoint_does_not_keep_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", _ABANDONED], timeout=30, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
