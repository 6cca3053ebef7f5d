"""Health of the services (grpc.health.v1): follows the engine's readiness and logs every change with its reason.

Polls, because Triton has no health `Watch`. Knows of the engine only whether it is ready and what does not fit.

The servicer is our own because the one of grpcio-health-checking 1.81 forgets all watchers of a service when one of
them leaves, lets a watcher that stops reading block every later change, and keeps a draining server waiting for its
watchers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol, TypeAlias

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from .errors import EngineUnavailable

# Together they bound how long a change goes unnoticed: less than two seconds.
POLL_SECONDS = 0.5
TIMEOUT_SECONDS = 1.0

OVERALL = ""

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

log = logging.getLogger(__name__)


class HealthService(health_pb2_grpc.HealthServicer):
    """Tells one status for the server as a whole and for each of its services. NOT_SERVING until set otherwise."""

    def __init__(self, services: Sequence[str]) -> None:
        self._services = (OVERALL, *services)
        self._serving = False
        self._draining = False
        self._changed = asyncio.Event()

    def set_serving(self, serving: bool) -> None:
        """Changes the status of all services, unless the server is draining."""
        self._serving = serving and not self._draining
        self._notify()

    def drain(self) -> None:
        """NOT_SERVING for good. Watchers are told, then their calls end so that nothing waits for them."""
        self._serving, self._draining = False, True
        self._notify()

    async def wait_until_serving(self) -> None:
        """Returns at once where the services are SERVING, else when they come to be."""
        while not self._serving:
            await self._changed.wait()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: _Context) -> health_pb2.HealthCheckResponse:
        """The status now; NOT_FOUND for a service that is not here."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service[:100]!r} here")
        return health_pb2.HealthCheckResponse(status=self._status(request.service))

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> AsyncGenerator[health_pb2.HealthCheckResponse, None]:
        """The status now and after every change."""
        last = None
        while True:
            changed = self._changed
            status = self._status(request.service)
            if status != last:
                yield health_pb2.HealthCheckResponse(status=status)
                last = status
            elif self._draining:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
            else:
                await changed.wait()

    def _status(self, service: str) -> int:
        if service not in self._services:
            return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        return _SERVING if self._serving else _NOT_SERVING

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class WatchedEngine(Protocol):
    """What health needs of an engine."""

    @property
    def address(self) -> str:
        """Where it is, for messages."""
        ...

    async def is_ready(self, *, timeout_seconds: float) -> bool:
        """Whether it serves; never raises."""
        ...

    async def contract_differences(self, *, timeout_seconds: float) -> list[str]:
        """Why requests would fail, none where the model fits. Raises EngineUnavailable."""
        ...


class HealthMonitor:
    """Keeps the health service up to date while `run()` runs."""

    def __init__(self, engine: WatchedEngine, service: HealthService) -> None:
        self._engine = engine
        self._service = service
        self._problem: str | None = "not asked yet"

    @property
    def ready(self) -> bool:
        """Whether the engine was ready when it was asked last."""
        return self._problem is None

    async def run(self) -> None:
        """Polls until cancelled."""
        while True:
            await self.poll()
            await asyncio.sleep(POLL_SECONDS)

    async def poll(self) -> None:
        """Asks the engine once and passes a change on."""
        try:
            problem = await self._ask()
        except Exception as error:  # a defect, but health must not stay what it was for ever
            problem = f"its health could not be told: {error!r}"
        if problem == self._problem:
            return
        self._problem = problem
        self._service.set_serving(problem is None)
        if problem is None:
            log.info("engine at %s is ready", self._engine.address)
        else:
            log.warning("engine at %s is not ready: %s", self._engine.address, problem)

    async def _ask(self) -> str | None:
        """What keeps the engine from serving; None if nothing does."""
        if not await self._engine.is_ready(timeout_seconds=TIMEOUT_SECONDS):
            return "it does not answer, or has not loaded the model"
        if self._problem is None:
            return None  # compared when it became ready
        try:
            differences = await self._engine.contract_differences(timeout_seconds=TIMEOUT_SECONDS)
        except EngineUnavailable as error:
            return str(error)
        return f"the served model does not fit this server: {'; '.join(differences)}" if differences else None
