"""`python -m server` as a process that logs to a file, however much it says. Knows nothing of what it serves."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import until

_ROOT = Path(__file__).parents[2]
_START_SECONDS = 60.0
_SERIES = re.compile(r"^(\w+)(?:\{.*\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerProcess:
    """A server that serves. `metrics_url` is where its metrics are."""

    process: asyncio.subprocess.Process
    address: str
    metrics_url: str
    log_path: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def complaints(self) -> list[str]:
        """What it has logged that only defects or a sick engine give."""
        lines = self.log_path.read_text("utf-8", "replace").splitlines()
        return [line for line in lines if " ERROR " in line or line.startswith("Traceback")]

    async def stop(self, *, patience_seconds: float) -> int:
        """Asks it to stop; its exit status. Raises TimeoutError."""
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), patience_seconds)


@asynccontextmanager
async def running_process(folder: Path, *arguments: str) -> AsyncIterator[ServerProcess]:
    """Starts a server with these arguments on a free port; kills it at the end of the block if it still runs."""
    log_path = folder / "server.log"
    ports = ("--address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0")
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "server", *ports, *arguments), stdout=log, stderr=log, cwd=_ROOT
        )
    try:
        await until(
            lambda: " serving " in log_path.read_text() or process.returncode is not None,
            seconds=_START_SECONDS,
            what="the server serves",
        )
        said = log_path.read_text()
        assert process.returncode is None, f"the server ended: {said}"
        address, metrics_url = _found(r"listening on (\S+)", said), _found(r"metrics on (\S+)", said)
        yield ServerProcess(process=process, address=address, metrics_url=metrics_url, log_path=log_path)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match, f"{pattern} is not in the server's log: {text}"
    return match[1]


async def gauges(url: str) -> dict[str, float]:
    """The last value of every metric of a Prometheus page; of those with labels one is as good as another."""
    return {name: float(value) for name, value in _SERIES.findall(await page(url))}


async def page(url: str) -> str:
    """A page over HTTP."""

    def read() -> str:
        with urllib.request.urlopen(url, timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    return await asyncio.to_thread(read)


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM; 0 of one that has gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def open_files(pid: int) -> int:
    """How many files and sockets a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    """How many threads a process has."""
    return len(os.listdir(f"/proc/{pid}/task"))
