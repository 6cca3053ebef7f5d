"""THE wiring, on one page: build, start, wait, drain.

Knows every part and no details of any.
"""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack

from .bundle import Bundle, read_bundle
from .config import Settings
from .default_bundle import build_default_bundle
from .embedded import EmbeddedTriton
from .grpc_server import Server
from .triton.engine import TritonEngine
from .triton_installation import TritonInstallation, assemble

_PROGRESS_SECONDS = 10.0

log = logging.getLogger(__name__)


async def serve(settings: Settings, *, on_serving: Callable[[str, Bundle], None]) -> None:
    """Serves until SIGTERM or SIGINT, then drains. A second signal, or one during the start, stops at once.

    `on_serving` is called with the address and the bundle when the first calls can be answered. Raises BundleError,
    TokenizerError, ListenError or EmbeddedError where the server can't start.
    """
    stop = _StopSignals()
    async with AsyncExitStack() as stack:
        # First what can't be helped: a machine that can't run Triton is told so before anything is fetched for it.
        installation = assemble(settings.cache_dir) if settings.embedded else None
        bundle = read_bundle(settings.bundle or await build_default_bundle(settings.cache_dir))
        triton_address = settings.triton_address
        if installation is not None:
            triton_address = await _start_embedded(installation, settings, bundle, stack)
        engine = TritonEngine(triton_address, model_name=settings.triton_model, context_length=bundle.context_length)
        stack.push_async_callback(engine.aclose)
        server = Server(settings, bundle, engine)
        address = await server.start()
        stack.push_async_callback(server.drain, 0)
        log.info("listening on %s for %s; engine at %s", address, bundle.model_id, triton_address)
        stop.drain_first()
        if await stop.unless(server.wait_until_serving()):
            on_serving(address, bundle)
        await stop.wait()
        log.info("draining: running calls may finish within %g s", settings.drain_seconds)
        await server.drain(settings.drain_seconds)


async def _start_embedded(
    installation: TritonInstallation, settings: Settings, bundle: Bundle, stack: AsyncExitStack
) -> str:
    # Servers of one user share the folder; a log for each address lets them tell their own troubles.
    log_path = settings.cache_dir / "logs" / f"triton-{re.sub(r'[^a-z0-9]+', '-', settings.address)}.log"
    triton = EmbeddedTriton(installation, log_path=log_path)
    stack.push_async_callback(triton.stop)
    print(f"starting Triton with {bundle.display_name}; its log is {log_path} ...", file=sys.stderr, flush=True)
    await triton.start(bundle.model_repository, on_progress=_Progress())
    return triton.grpc_address


class _Progress:
    """Says now and then that Triton is still starting: a large model takes minutes to load."""

    def __init__(self) -> None:
        self._next_seconds = _PROGRESS_SECONDS

    def __call__(self, waited_seconds: float) -> None:
        if waited_seconds >= self._next_seconds:
            print(f"  still loading after {waited_seconds:.0f} s ...", file=sys.stderr, flush=True)
            self._next_seconds += _PROGRESS_SECONDS


class _StopSignals:
    """SIGTERM and SIGINT: at first they cancel the main task, after `drain_first()` the first one only asks to stop."""

    def __init__(self) -> None:
        main = asyncio.current_task()
        assert main is not None
        self._stop_now = main.cancel
        self._asked = asyncio.Event()
        self._on_signal(self._stop_now)

    def drain_first(self) -> None:
        self._on_signal(self._ask)

    async def wait(self) -> None:
        await self._asked.wait()

    async def unless(self, coming: Coroutine[None, None, None]) -> bool:
        """Waits for something, but not longer than until a signal; whether it came."""
        waiting = [asyncio.ensure_future(coming), asyncio.ensure_future(self._asked.wait())]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        came = waiting[0].done()
        for each in waiting:
            each.cancel()
        return came

    def _ask(self) -> None:
        self._asked.set()
        self._on_signal(self._stop_now)

    @staticmethod
    def _on_signal(handler: Callable[[], object]) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, handler)
