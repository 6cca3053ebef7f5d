"""Health follows the engine: Check and Watch over the wire, every change passed on and logged once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.errors import EngineUnavailable
from server.health import POLL_SECONDS, TIMEOUT_SECONDS, HealthMonitor, HealthService
from tests.fakes import PATIENCE_SECONDS, ScriptedEngine

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@asynccontextmanager
async def running_health(service: HealthService) -> AsyncIterator[Any]:
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield health_pb2_grpc.HealthStub(channel)
    await server.stop(None)


def watch(stub: Any, service: str = "") -> Any:
    return stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE_SECONDS)


async def check(stub: Any, service: str = "") -> int:
    return int((await stub.Check(health_pb2.HealthCheckRequest(service=service))).status)


async def test_check_follows_the_status() -> None:
    service = HealthService(["a.A", "b.B"])
    async with running_health(service) as stub:
        for serving, status in [(False, NOT_SERVING), (True, SERVING), (False, NOT_SERVING)]:
            service.set_serving(serving)
            assert [await check(stub, name) for name in ("", "a.A", "b.B")] == [status] * 3
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await check(stub, "c.C")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_watchers_see_every_change_also_when_one_leaves() -> None:
    service = HealthService(["a.A"])
    async with running_health(service) as stub:
        watchers = [watch(stub), watch(stub, "a.A"), watch(stub)]
        assert [(await each.read()).status for each in watchers] == [NOT_SERVING] * 3
        service.set_serving(True)
        assert [(await each.read()).status for each in watchers] == [SERVING] * 3
        watchers.pop(0).cancel()
        service.set_serving(False)
        assert [(await each.read()).status for each in watchers] == [NOT_SERVING] * 2
        service.set_serving(True)
        assert [(await each.read()).status for each in watchers] == [SERVING] * 2
        for each in watchers:
            each.cancel()


async def test_watcher_that_does_not_read_holds_up_nobody() -> None:
    service = HealthService([])
    async with running_health(service) as stub:
        lazy, eager = watch(stub), watch(stub)
        for serving in [True, False] * 20:
            service.set_serving(serving)
            expected = SERVING if serving else NOT_SERVING
            while (await eager.read()).status != expected:
                pass
        lazy.cancel()
        eager.cancel()


async def test_unknown_service_is_watched_as_unknown() -> None:
    service = HealthService([])
    async with running_health(service) as stub:
        watcher = watch(stub, "c.C")
        assert (await watcher.read()).status == UNKNOWN
        watcher.cancel()


async def test_drain_ends_watchers_and_stays() -> None:
    service = HealthService(["a.A"])
    service.set_serving(True)
    async with running_health(service) as stub:
        watchers = [watch(stub), watch(stub, "a.A"), watch(stub, "c.C")]
        assert [(await each.read()).status for each in watchers] == [SERVING, SERVING, UNKNOWN]
        service.drain()
        assert [(await each.read()).status for each in watchers[:2]] == [NOT_SERVING] * 2
        for each in watchers:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await each.read()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        service.set_serving(True)
        assert await check(stub) == NOT_SERVING


async def test_wait_until_serving() -> None:
    service = HealthService([])
    waiting = asyncio.create_task(service.wait_until_serving())
    await asyncio.sleep(0)
    service.set_serving(False)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    service.set_serving(True)
    await asyncio.wait_for(waiting, PATIENCE_SECONDS)
    await service.wait_until_serving()


class Engine(ScriptedEngine):
    """Counts the comparisons, and may be away while it is compared."""

    def __init__(self) -> None:
        super().__init__()
        self.compared = 0
        self.away = False

    async def contract_differences(self, *, timeout_seconds: float) -> list[str]:
        self.compared += 1
        if self.away:
            raise EngineUnavailable("gone again")
        return self.differences


class Polled:
    """A monitor that is polled by hand."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, logger="server.health")
        self._caplog = caplog
        self.engine = Engine()
        self._service = HealthService([])
        self._monitor = HealthMonitor(self.engine, self._service)

    async def poll(self) -> tuple[int, list[str]]:
        """The status after one poll, and what it logged."""
        self._caplog.clear()
        await self._monitor.poll()
        response = await self._service.Check(health_pb2.HealthCheckRequest(), None)  # type: ignore[arg-type]
        return response.status, [record.getMessage() for record in self._caplog.records]


@pytest.fixture
def polled(caplog: pytest.LogCaptureFixture) -> Polled:
    return Polled(caplog)


READY = "engine at script is ready"
NOT_READY = "engine at script is not ready: "


async def test_monitor_passes_changes_on_and_logs_each_once(polled: Polled) -> None:
    assert await polled.poll() == (SERVING, [READY])
    assert await polled.poll() == (SERVING, [])
    polled.engine.ready = False
    away = "it does not answer, or has not loaded the model"
    assert await polled.poll() == (NOT_SERVING, [NOT_READY + away])
    assert await polled.poll() == (NOT_SERVING, [])
    polled.engine.ready = True
    assert await polled.poll() == (SERVING, [READY])


async def test_monitor_compares_when_the_engine_becomes_ready(polled: Polled) -> None:
    polled.engine.differences = ["a is missing", "b is FP32"]
    problem = "the served model does not fit this server: a is missing; b is FP32"
    assert await polled.poll() == (NOT_SERVING, [NOT_READY + problem])
    polled.engine.differences = []
    assert await polled.poll() == (SERVING, [READY])
    await polled.poll()
    assert polled.engine.compared == 2
    polled.engine.ready = False
    await polled.poll()
    polled.engine.ready = True
    await polled.poll()
    assert polled.engine.compared == 3


async def test_monitor_survives_an_engine_that_leaves_while_compared(polled: Polled) -> None:
    polled.engine.away = True
    assert await polled.poll() == (NOT_SERVING, [NOT_READY + "the engine is not available: gone again"])
    polled.engine.away = False
    assert await polled.poll() == (SERVING, [READY])


async def test_monitor_survives_a_defect(polled: Polled, monkeypatch: pytest.MonkeyPatch) -> None:
    async def defect(*, timeout_seconds: float) -> bool:
        raise RuntimeError("boom")

    assert await polled.poll() == (SERVING, [READY])
    with monkeypatch.context() as patched:
        patched.setattr(polled.engine, "is_ready", defect)
        problem = "its health could not be told: RuntimeError('boom')"
        assert await polled.poll() == (NOT_SERVING, [NOT_READY + problem])
    assert await polled.poll() == (SERVING, [READY])


async def test_monitor_runs_until_cancelled() -> None:
    service = HealthService([])
    running = asyncio.create_task(HealthMonitor(ScriptedEngine(), service).run())
    await asyncio.wait_for(service.wait_until_serving(), PATIENCE_SECONDS)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


def test_changes_are_noticed_within_two_seconds() -> None:
    assert POLL_SECONDS + TIMEOUT_SECONDS < 2
