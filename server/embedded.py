"""A Triton of our own on this machine: started, watched, restarted and stopped.

Knows processes and ports; knows no gRPC, no models and nothing of the server but how a Triton is put together.
`assemble` makes the installation that `EmbeddedTriton` starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .triton_installation import (
    SHARED_MEMORY,
    EmbeddedError,
    EmbeddedUnavailable,
    TritonInstallation,
    assemble,
)

__all__ = [
    "EmbeddedError",
    "EmbeddedTriton",
    "EmbeddedUnavailable",
    "Ports",
    "TritonInstallation",
    "TritonStartError",
    "assemble",
]

_LOOPBACK = "127.0.0.1"
_EXIT_TIMEOUT_SECONDS = 5
_FIRST_RESTART_SECONDS = 0.2
_LONGEST_RESTART_SECONDS = 5.0
_RESTART_READY_SECONDS = 300.0
_START_ATTEMPTS = 3
_POLL_SECONDS = 0.05
_LAST_LINES = 20

# Runs between fork and exec, in a process of its own: ties Triton's life to ours, then becomes Triton. The parent may
# have died before the tie was made, which the second line notices.
_TIE_TO_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # 1 = PR_SET_PDEATHSIG; it outlives exec
if os.getppid() != int(sys.argv[1]): sys.exit("the parent has gone")
os.execv(sys.argv[2], sys.argv[2:])
"""

_logger = logging.getLogger(__name__)


class TritonStartError(EmbeddedError):
    """Triton ended before it was ready, or was not ready in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Triton's three ports, all on the loopback interface."""

    grpc: int
    http: int
    metrics: int


class EmbeddedTriton:
    """One Triton process that is kept alive until `stop`.

    It listens on 127.0.0.1 only, on ports that stay the same over restarts, and ends when this process ends, however
    that happens. Start it from the main thread: Linux ties its life to the thread that starts it.
    """

    def __init__(self, installation: TritonInstallation, *, log_path: Path) -> None:
        """`log_path` receives what Triton and its models print (errors, mostly); it is emptied at start."""
        self._installation = installation
        self._log_path = log_path
        self._shared_memory_prefix = f"llamarpc_{os.getpid()}_{secrets.token_hex(4)}_"
        self._ports: Ports | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._model_repository = Path()
        self._stopping = False
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
        return f"{_LOOPBACK}:{self.ports.grpc}"

    @property
    def metrics_url(self) -> str:
        """Prometheus metrics of Triton and its models."""
        return f"http://{_LOOPBACK}:{self.ports.metrics}/metrics"

    @property
    def pid(self) -> int | None:
        """Triton's process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(
        self,
        model_repository: Path,
        *,
        timeout_seconds: float = 120.0,
        on_progress: Callable[[float], None] | None = None,
    ) -> None:
        """Start Triton and return when all models are ready; from then on it is restarted whenever it dies.

        `on_progress` is called with the seconds waited so far, many times a second.

        Raises:
            TritonStartError: it ended, or was not ready within `timeout_seconds`; nothing of it is left running.
        """
        self._model_repository = model_repository
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        self._log_path.write_bytes(b"")
        for attempt in range(1, _START_ATTEMPTS + 1):
            self._ports = _free_ports()
            try:
                await self._launch()
                await self._wait_ready(timeout_seconds, on_progress)
                break
            except TritonStartError:
                await self._end(grace_seconds=0)
                if attempt == _START_ATTEMPTS or not _any_in_use(self._ports):
                    raise  # with a port that was taken between our choice and Triton's start, others may do
            except BaseException:
                await self._end(grace_seconds=0)
                raise
        self._watcher = asyncio.get_running_loop().create_task(self._watch(), name="embedded-triton")

    async def stop(self, grace_seconds: float = 10.0) -> None:
        """End Triton: ask, wait up to `grace_seconds`, then kill. Safe to call twice and before `start`."""
        self._stopping = True
        if self._watcher:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None
        await self._end(grace_seconds)

    async def _launch(self) -> None:
        program = os.fspath(self._installation.program)
        command = [sys.executable, "-I", "-S", "-c", _TIE_TO_PARENT, str(os.getpid()), program, *self._arguments()]
        with self._log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(self._installation, os.environ),
                start_new_session=True,  # Ctrl-C in a terminal goes to us alone, and we stop it in good order
            )

    def _arguments(self) -> list[str]:
        ports = self.ports
        return [
            f"--model-repository={self._model_repository}",
            f"--backend-directory={self._installation.backend_directory}",
            f"--backend-config=python,shm-region-prefix-name={self._shared_memory_prefix}",
            "--model-control-mode=none",
            f"--http-address={_LOOPBACK}",
            f"--grpc-address={_LOOPBACK}",
            f"--metrics-address={_LOOPBACK}",
            f"--http-port={ports.http}",
            f"--grpc-port={ports.grpc}",
            f"--metrics-port={ports.metrics}",
            f"--exit-timeout-secs={_EXIT_TIMEOUT_SECONDS}",
            "--disable-auto-complete-config",  # config.pbtxt says all; saves starting the model's process twice
            "--allow-gpu-metrics=false",
            "--pinned-memory-pool-byte-size=0",
            "--log-info=false",
            "--log-warning=false",
        ]

    async def _wait_ready(self, timeout_seconds: float, on_progress: Callable[[float], None] | None = None) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        assert self._process is not None
        while not await _is_ready(self.ports.http):
            waited = loop.time() - started
            if self._process.returncode is not None:
                raise TritonStartError(
                    f"Triton ended with {_exit_reason(self._process.returncode)}{self._last_words()}"
                )
            if waited > timeout_seconds:
                raise TritonStartError(f"Triton was not ready within {timeout_seconds:g} s{self._last_words()}")
            if on_progress:
                on_progress(waited)
            await asyncio.sleep(_POLL_SECONDS)

    async def _watch(self) -> None:
        """Restart Triton each time it dies, until cancelled."""
        delay = _FIRST_RESTART_SECONDS
        while True:
            assert self._process is not None
            code = await self._process.wait()
            _logger.error("Triton ended with %s; starting it again%s", _exit_reason(code), self._last_words())
            await self._end(grace_seconds=0)  # what is left of it, such as its models' processes
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LONGEST_RESTART_SECONDS)
            self.restarts += 1
            try:
                await self._launch()
                await self._wait_ready(_RESTART_READY_SECONDS)
            except TritonStartError as error:
                _logger.error("%s", error)
                await self._end(grace_seconds=0)
            except OSError as error:
                _logger.error("cannot start Triton: %s", error)
            else:
                _logger.warning("Triton is back")
                delay = _FIRST_RESTART_SECONDS

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
        self._remove_shared_memory()

    def _remove_shared_memory(self) -> None:
        """A killed Triton leaves its regions behind; the prefix is ours alone."""
        for region in SHARED_MEMORY.glob(f"{self._shared_memory_prefix}*"):
            with contextlib.suppress(OSError):
                region.unlink()

    def _last_words(self) -> str:
        try:
            lines = self._log_path.read_text("utf-8", "replace").splitlines()[-_LAST_LINES:]
        except OSError:
            lines = []
        return f"; the end of {self._log_path}:\n  " + "\n  ".join(lines) if lines else f"; see {self._log_path}"


def _environment(installation: TritonInstallation, base: Mapping[str, str]) -> dict[str, str]:
    """Ours, with Triton's libraries, no GPU, and this Python first: that is how the backend finds our packages."""
    libraries = [os.fspath(directory) for directory in installation.library_directories]
    inherited = [base["LD_LIBRARY_PATH"]] if base.get("LD_LIBRARY_PATH") else []
    environment = {
        **base,
        "LD_LIBRARY_PATH": os.pathsep.join(libraries + inherited),
        "PATH": os.pathsep.join([os.path.dirname(sys.executable), base.get("PATH", os.defpath)]),
        "CUDA_VISIBLE_DEVICES": "",
    }
    environment.pop("PYTHONHOME", None)
    return environment


def _free_ports() -> Ports:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for each in sockets:
            each.bind((_LOOPBACK, 0))
        grpc, http, metrics = (each.getsockname()[1] for each in sockets)
    return Ports(grpc=grpc, http=http, metrics=metrics)


def _any_in_use(ports: Ports) -> bool:
    for port in (ports.grpc, ports.http, ports.metrics):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # remains of old connections don't count
            try:
                probe.bind((_LOOPBACK, port))
            except OSError:
                return True
    return False


async def _is_ready(http_port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection(_LOOPBACK, http_port)
    except OSError:
        return False
    try:
        writer.write(b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        status_line = await asyncio.wait_for(reader.readline(), 2.0)
    except (OSError, asyncio.TimeoutError):
        return False
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return status_line.split()[1:2] == [b"200"]


def _exit_reason(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
