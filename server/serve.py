"""THE wiring, on one page: build, start, wait, drain.

Knows every part and no details of any.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from importlib import metadata

from prometheus_client import CollectorRegistry

from .bundle import Bundle, read_bundle
from .config import Settings
from .default_bundle import build_default_bundle
from .embedded import EmbeddedTriton
from .grpc_server import Server
from .metrics import Metrics
from .metrics_endpoint import MetricsEndpoint
from .security import load_security
from .tracing import open_tracing
from .triton.engine import TritonEngine
from .triton.resume import ResumingEngine
from .triton_installation import assemble

_PROGRESS_SECONDS = 10.0

OnServing = Callable[[str, Bundle], None]

log = logging.getLogger(__name__)


async def serve(settings: Settings, *, on_serving: OnServing, shares_port: bool = False) -> None:
    """Serves until SIGTERM or SIGINT, then drains. A second signal, or one during the start, stops at once.

    `on_serving` is called with the address and the bundle when the first calls can be answered. Raises BundleError,
    TokenizerError, ListenError or EmbeddedError where the server can't start.
    """
    stop = StopSignals()
    security = load_security(settings)
    tracing = open_tracing(os.environ, version=_version())
    async with AsyncExitStack() as stack:
        if tracing is not None:
            stack.push_async_callback(tracing.aclose)
        bundle, triton_address = await start_engine(settings, stack)
        metrics = Metrics(model=bundle.model_id, version=_version(), label_callers=settings.metrics_callers)
        triton = TritonEngine(
            triton_address,
            model_name=settings.triton_model,
            context_length=bundle.context_length,
            stall_seconds=settings.engine_stall_seconds,
        )
        engine = ResumingEngine(triton, on_resume=metrics.resumed)
        stack.push_async_callback(engine.aclose)
        server = Server(
            settings, bundle, engine, security=security, metrics=metrics, tracing=tracing, shares_port=shares_port
        )
        await open_metrics(settings, metrics.registry, stack)
        address = await server.start()
        stack.push_async_callback(server.drain, 0)
        log.info("listening on %s for %s; engine at %s", address, bundle.model_id, triton_address)
        stop.drain_first()
        if await stop.unless(server.wait_until_serving()):
            on_serving(address, bundle)
        await stop.wait()
        log.info("draining: running calls may finish within %g s", settings.drain_seconds)
        await server.drain(settings.drain_seconds)


async def start_engine(settings: Settings, stack: AsyncExitStack) -> tuple[Bundle, str]:
    """The model to serve, and the address of its Triton: somebody else's, or one of our own that ends with `stack`."""
    # First what can't be helped: a machine that can't run Triton is told so before anything is fetched for it.
    installation = assemble(settings.cache_dir) if settings.embedded else None
    bundle = read_bundle(settings.bundle or await build_default_bundle(settings.cache_dir))
    if installation is None:
        return bundle, settings.triton_address
    # Servers of one user share the folder; a log for each address lets them tell their own troubles.
    log_path = settings.cache_dir / "logs" / f"triton-{re.sub(r'[^a-z0-9]+', '-', settings.address)}.log"
    triton = EmbeddedTriton(installation, log_path=log_path)
    stack.push_async_callback(triton.stop)
    print(f"starting Triton with {bundle.display_name}; its log is {log_path} ...", file=sys.stderr, flush=True)
    await triton.start(bundle.model_repository, on_progress=_Progress())
    return bundle, triton.grpc_address


async def open_metrics(settings: Settings, registry: CollectorRegistry, stack: AsyncExitStack) -> None:
    """Serves the metrics where settings ask for it. Raises MetricsListenError."""
    if settings.metrics_address is not None:
        endpoint = await stack.enter_async_context(MetricsEndpoint(settings.metrics_address, registry))
        log.info("metrics on http://%s/metrics", endpoint.address)


def _version() -> str:
    try:
        return metadata.version("llamarpc")
    except metadata.PackageNotFoundError:  # run from a folder that nobody installed
        return "unknown"


class _Progress:
    """Says now and then that Triton is still starting: a large model takes minutes to load."""

    def __init__(self) -> None:
        self._next_seconds = _PROGRESS_SECONDS

    def __call__(self, waited_seconds: float) -> None:
        if waited_seconds >= self._next_seconds:
            print(f"  still loading after {waited_seconds:.0f} s ...", file=sys.stderr, flush=True)
            self._next_seconds += _PROGRESS_SECONDS


class StopSignals:
    """SIGTERM and SIGINT: at first they cancel the main task, after `drain_first()` the first one only asks to stop."""

    def __init__(self) -> None:
        main = asyncio.current_task()
        assert main is not None
        self._stop_now = main.cancel
        self._asked = asyncio.Event()
        self._on_signal(self._stop_now)

    def drain_first(self) -> None:
        """From now on the first signal lets `wait` return."""
        self._on_signal(self._ask)

    async def wait(self) -> None:
        """Returns when a signal has come."""
        await self._asked.wait()

    async def unless(self, coming: Coroutine[None, None, None]) -> bool:
        """Waits for something, but not longer than until a signal; whether it came. Raises what it raised."""
        waiting = [asyncio.ensure_future(coming), asyncio.ensure_future(self._asked.wait())]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
        if came := waiting[0].done() and not waiting[0].cancelled():
            waiting[0].result()
        return came

    def _ask(self) -> None:
        self._asked.set()
        self._on_signal(self._stop_now)

    @staticmethod
    def _on_signal(handler: Callable[[], object]) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, handler)
