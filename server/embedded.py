"""A Triton of our own on this machine: started, watched, restarted and stopped.

Knows processes and ports; knows no gRPC, no models and nothing of the server but how a Triton is put together
(`triton_installation.assemble` makes what `EmbeddedTriton` starts).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
from collections.abc import Callable
from pathlib import Path

from .triton_installation import SHARED_MEMORY, EmbeddedError, TritonInstallation
from .triton_ports import LOOPBACK, Ports, any_in_use, free_ports, is_ready
from .triton_processes import children, exit_reason, lost, tied_to_us

START_SECONDS = 600.0
"""For the first start and every restart: reading a model of many gigabytes from a slow disk takes minutes."""

_EXIT_TIMEOUT_SECONDS = 5
# Our channel pings every 10 s; by default Triton takes that for an attack where a stream says nothing for 40 s.
_LEAST_PING_INTERVAL_MILLISECONDS = 5_000
_FIRST_RESTART_SECONDS = 0.2
_LONGEST_RESTART_SECONDS = 5.0
_START_ATTEMPTS = 3
_POLL_SECONDS = 0.05
_LOOK_SECONDS = 0.1
_LAST_LINES = 20

_logger = logging.getLogger(__name__)


class TritonStartError(EmbeddedError):
    """Triton ended before it was ready, or was not ready in time."""


class EmbeddedTriton:
    """One Triton process that is kept alive until `stop`.

    It listens on 127.0.0.1 only, on ports that stay the same over restarts, and ends when this process ends, however
    that happens. Start it from the main thread: Linux ties its life to the thread that starts it.
    """

    def __init__(self, installation: TritonInstallation, *, log_path: Path) -> None:
        """`log_path` receives what Triton and its models print (errors, mostly).

        What a run before left there is kept under the name with `.1` added, one run back.
        """
        self._installation = installation
        self._log_path = log_path
        self._shared_memory_prefix = f"llamarpc_{os.getpid()}_{secrets.token_hex(4)}_"
        self._ports: Ports | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._model_repository = Path()
        self._start_seconds = START_SECONDS
        self.restarts = 0

    @property
    def ports(self) -> Ports:
        """The ports, known once `start` has been called."""
        if self._ports is None:
            raise RuntimeError("the embedded Triton has not been started")
        return self._ports

    @property
    def grpc_address(self) -> str:
        """Where clients connect, as host:port."""
        return f"{LOOPBACK}:{self.ports.grpc}"

    @property
    def metrics_url(self) -> str:
        """Prometheus metrics of Triton and its models."""
        return f"http://{LOOPBACK}:{self.ports.metrics}/metrics"

    @property
    def pid(self) -> int | None:
        """Triton's process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(
        self,
        model_repository: Path,
        *,
        ports: Ports | None = None,
        timeout_seconds: float = START_SECONDS,
        on_progress: Callable[[float], None] | None = None,
    ) -> None:
        """Start Triton and return when all models are ready; from then on it is restarted whenever it dies.

        `ports`: where to listen; free ones where none are given. `timeout_seconds` holds for restarts too.
        `on_progress` is called with the seconds waited so far, many times a second.

        Raises:
            TritonStartError: it ended, or was not ready within `timeout_seconds`; nothing of it is left running.
        """
        self._model_repository, self._start_seconds = model_repository, timeout_seconds
        self._begin_log()
        for attempts_left in range(0 if ports else _START_ATTEMPTS - 1, -1, -1):
            self._ports = ports or free_ports()
            try:
                await self._launch_until_ready(on_progress)
                break
            except TritonStartError:
                if not attempts_left or not any_in_use(self._ports):
                    raise  # with a port that was taken between our choice and Triton's start, others may do
        self._watcher = asyncio.get_running_loop().create_task(self._watch(), name="embedded-triton")

    async def stop(self, grace_seconds: float = 10.0) -> None:
        """End Triton: ask, wait up to `grace_seconds`, then kill. Safe to call twice and before `start`."""
        if self._watcher:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None
        await self._end(grace_seconds)

    async def _launch_until_ready(self, on_progress: Callable[[float], None] | None = None) -> None:
        """Leaves nothing running where it does not get there."""
        try:
            await self._launch()
            await self._wait_ready(on_progress)
        except BaseException:
            await self._end(grace_seconds=0)
            raise

    async def _launch(self) -> None:
        with self._log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *tied_to_us([os.fspath(self._installation.program), *self._arguments()]),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._installation.environment(os.environ),
                start_new_session=True,  # Ctrl-C in a terminal goes to us alone, and we stop it in good order
            )

    def _arguments(self) -> list[str]:
        ports = self.ports
        return [
            f"--model-repository={self._model_repository}",
            f"--backend-directory={self._installation.backend_directory}",
            f"--backend-config=python,shm-region-prefix-name={self._shared_memory_prefix}",
            "--model-control-mode=none",
            f"--http-address={LOOPBACK}",
            f"--grpc-address={LOOPBACK}",
            f"--metrics-address={LOOPBACK}",
            f"--http-port={ports.http}",
            f"--grpc-port={ports.grpc}",
            f"--metrics-port={ports.metrics}",
            f"--exit-timeout-secs={_EXIT_TIMEOUT_SECONDS}",
            f"--grpc-http2-min-recv-ping-interval-without-data={_LEAST_PING_INTERVAL_MILLISECONDS}",
            "--disable-auto-complete-config",  # config.pbtxt says all; saves starting the model's process twice
            "--allow-gpu-metrics=false",
            "--pinned-memory-pool-byte-size=0",
            "--log-info=false",
            "--log-warning=false",
        ]

    async def _wait_ready(self, on_progress: Callable[[float], None] | None) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        assert self._process is not None
        while not await is_ready(self.ports.http):
            waited = loop.time() - started
            if self._process.returncode is not None:
                raise TritonStartError(f"Triton ended with {exit_reason(self._process.returncode)}{self._last_words()}")
            if waited > self._start_seconds:
                raise TritonStartError(f"Triton was not ready within {self._start_seconds:g} s{self._last_words()}")
            if on_progress:
                on_progress(waited)
            await asyncio.sleep(_POLL_SECONDS)

    async def _watch(self) -> None:
        """Restart Triton each time it or a process of its models dies, until cancelled."""
        while True:
            _logger.error("%s; starting Triton again%s", await self._death(), self._last_words())
            await self._end(grace_seconds=0)  # all of it: without its model's process Triton is of no use any more
            delay = _FIRST_RESTART_SECONDS
            while not await self._restarted(delay):
                delay = min(2 * delay, _LONGEST_RESTART_SECONDS)
            _logger.warning("Triton is back")

    async def _death(self) -> str:
        """Wait until Triton or one of its children dies; says which."""
        process = self._process
        assert process is not None
        known = children(process.pid)
        ended = asyncio.ensure_future(process.wait())
        try:
            while not ended.done():
                gone = lost(process.pid, known)
                await asyncio.wait([ended], timeout=_LOOK_SECONDS)
                if gone and not ended.done():  # else Triton itself died, and they with it
                    numbers = ", ".join(map(str, sorted(gone)))
                    return f"a process of Triton's models has died (pid {numbers}), perhaps for want of memory"
            return f"Triton ended with {exit_reason(ended.result())}"
        finally:
            ended.cancel()

    async def _restarted(self, delay: float) -> bool:
        await asyncio.sleep(delay)
        self.restarts += 1
        try:
            await self._launch_until_ready()
        except (TritonStartError, OSError) as error:
            _logger.error("cannot start Triton: %s", error)
            return False
        return True

    async def _end(self, grace_seconds: float) -> None:
        process = self._process
        if process is None:
            return
        if process.returncode is None and grace_seconds > 0:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), grace_seconds)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # its models' processes are in the same group
        await process.wait()
        self._process = None
        self._remove_shared_memory()

    def _remove_shared_memory(self) -> None:
        """A killed Triton leaves its regions behind; the prefix is ours alone."""
        for region in SHARED_MEMORY.glob(f"{self._shared_memory_prefix}*"):
            with contextlib.suppress(OSError):
                region.unlink()

    def _begin_log(self) -> None:
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.replace(self._log_path, self._log_path.with_name(f"{self._log_path.name}.1"))
        self._log_path.touch()

    def _last_words(self) -> str:
        try:
            lines = self._log_path.read_text("utf-8", "replace").splitlines()[-_LAST_LINES:]
        except OSError:
            lines = []
        return f"; the end of {self._log_path}:\n  " + "\n  ".join(lines) if lines else f"; see {self._log_path}"
