"""Several server processes on one address: started, watched, replaced when they die, drained together.

The supervisor answers no calls. It starts what the workers share (the embedded Triton), keeps the port, and is the one
that signals are sent to. A worker is `python -m server` with settings that the supervisor has completed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client.multiprocess import mark_process_dead

from .config import PREFIX, Settings, environment_of
from .grpc_server import ListenError
from .metrics import merged_registry
from .security import load_security
from .serve import OnServing, StopSignals, open_metrics, start_engine
from .shared_port import shared_port
from .triton_processes import exit_reason, tied_to_us

WORKER_VARIABLE = "LLAMARPC_WORKER"
READY_VARIABLE = "LLAMARPC_READY_FD"
# prometheus_client's own: processes that have it keep their numbers in files there.
_METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

_FIRST_RESTART_SECONDS = 0.2
_LONGEST_RESTART_SECONDS = 5.0
_STEADY_SECONDS = 30.0
"""A worker that lived so long is started again without a longer wait than the first."""
_KILL_SECONDS = 5.0

log = logging.getLogger(__name__)


class WorkerError(Exception):
    """A worker could not start; what it printed says why."""


async def supervise(settings: Settings, *, on_serving: OnServing) -> None:
    """Serves with `settings.workers` processes until SIGTERM or SIGINT, as `serve.serve` does with one.

    Raises what `serve.serve` raises, and WorkerError.
    """
    stop = StopSignals()
    load_security(settings)  # what is wrong with it is told once, and not by each worker
    async with AsyncExitStack() as stack:
        address = _keep_port(settings, stack)
        bundle, triton_address = await start_engine(settings, stack)
        theirs = replace(
            settings,
            address=address,
            workers=1,
            bundle=bundle.path,
            embedded=False,
            triton_address=triton_address,
            metrics_address=None,
        )
        metrics_folder = Path(stack.enter_context(TemporaryDirectory(prefix="llamarpc-metrics-")))
        await open_metrics(settings, merged_registry(metrics_folder), stack)
        team = Team(settings.workers, theirs, metrics_folder)
        stack.push_async_callback(team.drain, 0)
        stop.drain_first()
        team.start()
        log.info("%d workers for %s on %s; engine at %s", settings.workers, bundle.model_id, address, triton_address)
        if await stop.unless(team.wait_until_serving()):
            on_serving(address, bundle)
        await stop.unless(team.wait_for_failure())
        log.info("draining: running calls may finish within %g s", settings.drain_seconds)
        await team.drain(settings.drain_seconds)


def _keep_port(settings: Settings, stack: AsyncExitStack) -> str:
    if settings.address.startswith("unix:"):
        raise ListenError(f"several workers can't share {settings.address}; choose HOST:PORT with --address")
    try:
        return stack.enter_context(shared_port(settings.address))
    except OSError as error:
        reason = f"{error.strerror}; is another server running there? Choose with --address"
        raise ListenError(f"can't listen on {settings.address}: {reason}") from error


class Team:
    """The worker processes. `start` is for the main thread: Linux ties their lives to the thread that starts them."""

    def __init__(self, size: int, settings: Settings, metrics_folder: Path) -> None:
        """`settings` are each worker's; their metrics are kept in files in `metrics_folder`."""
        self._workers = [_Worker(index, settings, metrics_folder) for index in range(size)]
        self._keepers: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Starts all of them; from now on each is replaced when it dies."""
        self._keepers = [asyncio.create_task(worker.keep()) for worker in self._workers]

    async def wait_until_serving(self) -> None:
        """Returns when every worker has said that it answers calls. Raises WorkerError."""
        waiting = [asyncio.create_task(self._all_serving()), asyncio.create_task(self.wait_for_failure())]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        for task in done:
            task.result()

    async def wait_for_failure(self) -> None:
        """Raises WorkerError when a worker can't start, and returns only when all places are given up."""
        done, _ = await asyncio.wait(self._keepers, return_when=asyncio.FIRST_EXCEPTION)
        for keeper in done:
            keeper.result()

    async def _all_serving(self) -> None:
        for worker in self._workers:
            await worker.serving.wait()

    async def drain(self, seconds: float) -> None:
        """Asks all to finish their calls and end, waits so long and a little more, then kills the rest."""
        for worker in self._workers:
            worker.ask_to_end()
        keepers = [keeper for keeper in self._keepers if not keeper.done()]
        if keepers:
            await asyncio.wait(keepers, timeout=seconds + _KILL_SECONDS)
        for worker in self._workers:
            worker.kill()
        await asyncio.gather(*self._keepers, return_exceptions=True)


class _Worker:
    """One place in the team, and the process that fills it now."""

    def __init__(self, index: int, settings: Settings, metrics_folder: Path) -> None:
        self._index = index
        self._settings = settings
        self._metrics_folder = metrics_folder
        self._ending = False
        self.process: asyncio.subprocess.Process | None = None
        self.serving = asyncio.Event()

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def keep(self) -> None:
        """Fills the place until the end. Raises WorkerError where a worker ends before the first one ever served."""
        wait_seconds = _FIRST_RESTART_SECONDS
        served_once = False
        loop = asyncio.get_running_loop()
        while not self._ending:
            started = loop.time()
            try:
                reason, code = "", await self._run()
            except OSError as error:  # no memory or no process to be had: maybe later
                reason, code = str(error), None
            served_once |= self.serving.is_set()
            self.serving.clear()
            if self._ending:
                return
            if code == _CANNOT_START and not served_once:
                raise WorkerError("a worker could not start; what it printed above says why")
            wait_seconds = _FIRST_RESTART_SECONDS if loop.time() - started > _STEADY_SECONDS else wait_seconds
            log.error("worker %d ended (%s); starting another", self._index, reason or exit_reason(code or 0))
            await asyncio.sleep(wait_seconds)
            wait_seconds = min(2 * wait_seconds, _LONGEST_RESTART_SECONDS)

    async def _run(self) -> int:
        """One process from start to end; its exit code."""
        reader, writer = os.pipe()
        loop = asyncio.get_running_loop()
        try:
            self.process = await self._start(writer)
            loop.add_reader(reader, self._read_ready, reader)
            if self._ending:  # asked to while it was being started
                self.ask_to_end()
            code = await self.process.wait()
            mark_process_dead(self.process.pid, str(self._metrics_folder))  # its gauges count no more, its counters do
            return code
        finally:
            loop.remove_reader(reader)
            os.close(reader)

    async def _start(self, writer: int) -> asyncio.subprocess.Process:
        """A process that writes to the pipe when it serves; our end of the pipe is closed."""
        environment = {**_others_of(os.environ), **environment_of(self._settings)}
        environment |= {WORKER_VARIABLE: str(self._index), READY_VARIABLE: str(writer)}
        environment[_METRICS_VARIABLE] = str(self._metrics_folder)
        try:
            return await asyncio.create_subprocess_exec(
                *tied_to_us([sys.executable, "-m", "server"]),
                env=environment,
                pass_fds=(writer,),
                start_new_session=True,  # Ctrl-C in a terminal is for the supervisor, which passes it on once
                stdin=asyncio.subprocess.DEVNULL,
            )
        finally:
            os.close(writer)

    def _read_ready(self, reader: int) -> None:
        if os.read(reader, 1):
            self.serving.set()
        asyncio.get_running_loop().remove_reader(reader)

    def ask_to_end(self) -> None:
        self._ending = True
        if self.is_running and self.process:
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        if self.is_running and self.process:
            self.process.kill()


_CANNOT_START = 2


def _others_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that are not ours: ours come from the settings, where flags have won over variables."""
    return {name: value for name, value in environment.items() if not name.startswith(PREFIX)}


def tell_supervisor(environment: Mapping[str, str]) -> None:
    """In a worker: says that it answers calls."""
    descriptor = int(environment[READY_VARIABLE])
    os.write(descriptor, b"1")
    os.close(descriptor)
