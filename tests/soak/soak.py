"""A soak: a real server process before a real Triton, under a mix of all callers, watched for what it keeps.

The engine is the scripted one, so that the server and not a model sets the pace. Raises AssertionError for what is not
as it should be; prints as it goes.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from server.embedded import EmbeddedTriton
from server.triton_processes import children
from tests.end_to_end.numbers_tokenizer import write_numbers_bundle
from tests.soak.load import STALL_SECONDS, Load, new_load
from tests.soak.memory import MemoryCurve
from tests.soak.server_process import ServerProcess, gauges, open_files, page, resident_bytes, running_process, threads
from tests.triton_fixtures import run_triton, scripted_repository
from tests.waiting import until

_CALLERS = 24
_ROOM = {"--max-running": "16", "--max-waiting": "64", "--stall-seconds": f"{STALL_SECONDS:g}"}
_SAMPLE_SECONDS = 1.0
_PROGRESS_SECONDS = 10.0
_SETTLE_SECONDS = 30.0
_GAUGES = ("llamarpc_calls_in_flight", "llamarpc_requests_running", "llamarpc_requests_waiting")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much memory of the server and the engine may grow, in MB (10^6 bytes) a minute; how often Triton may die.

    The embedded Triton (2.51) crashes now and then when streams are cancelled while others run; it is started again,
    and its streams go on. Then its memory is another process's, and is not judged.
    """

    server: float
    engine: float
    restarts: int


async def soak(folder: Path, *, seconds: float, limits: Limits) -> None:
    """Runs the load for so long, then checks everything. `folder` takes logs and the model repository."""
    async with _stage(folder) as (triton, server), grpc.aio.insecure_channel(server.address) as channel:
        load = await new_load(server.address, channel)
        curves = Curves(triton, server)
        files, server_threads = open_files(server.pid), threads(server.pid)
        await _under_load(load, curves, server, seconds)
        print(f"threads of the server: {server_threads} before, {threads(server.pid)} after; files: {files} before")
        print(_table(load, curves, seconds))
        print(f"Triton died {triton.restarts} times")
        assert triton.restarts <= limits.restarts, f"Triton died {triton.restarts} times under this load"
        assert (wrong := _wrong_ends(load, restarts=triton.restarts)) == [], wrong[:20]
        await _check_nothing_is_left(triton, server, files=files)
        _check_slope(curves.of["server"], limits.server)
        for engine in list(curves.of.values())[1:] if triton.restarts == 0 else []:
            _check_slope(engine, limits.engine)
        await channel.close()
        assert await server.stop(patience_seconds=40) == 0
        assert server.complaints() == []


@asynccontextmanager
async def _stage(folder: Path) -> AsyncIterator[tuple[EmbeddedTriton, ServerProcess]]:
    write_numbers_bundle(folder, guided_decoding=["ebnf_grammar"])
    # Greedy, so that what an answer must be does not depend on whether its stream went on at another Triton.
    repository = scripted_repository(folder / "repository", greedy=1)
    async with run_triton(repository, folder / "triton.log") as triton:
        where = ("--bundle", str(folder), "--triton-address", triton.grpc_address)
        room = [text for setting in _ROOM.items() for text in setting]
        async with running_process(folder, *where, *room) as server:
            yield triton, server


class Curves:
    """The memory of the server, of Triton and of its model's process."""

    def __init__(self, triton: EmbeddedTriton, server: ServerProcess) -> None:
        self._triton = triton
        self._server = server
        self.of = {name: MemoryCurve(name=name) for name in ("server", "Triton", "Triton's model")}

    def sample(self, seconds: float) -> None:
        """A sample of each; of a Triton that is being started again there is none."""
        pids = [self._server.pid]
        if self._triton.pid is not None:
            pids += [self._triton.pid, *children(self._triton.pid)]
        for curve, pid in zip(self.of.values(), pids, strict=False):
            if resident := resident_bytes(pid):
                curve.add(seconds, resident)


async def _under_load(load: Load, curves: Curves, server: ServerProcess, seconds: float) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(load.run(_CALLERS, stop))
    start = time.monotonic()
    told = start
    while (elapsed := time.monotonic() - start) < seconds:
        await asyncio.wait([running], timeout=_SAMPLE_SECONDS)
        assert not running.done(), running.result()
        curves.sample(elapsed)
        if time.monotonic() - told >= _PROGRESS_SECONDS:
            told = time.monotonic()
            print(await _progress(load, curves, server, elapsed), flush=True)
    stop.set()
    await running


async def _progress(load: Load, curves: Curves, server: ServerProcess, elapsed: float) -> str:
    now = await gauges(server.metrics_url)
    memory = ", ".join(f"{curve.name} {curve.latest_megabytes:.1f} MB" for curve in curves.of.values())
    in_flight = ", ".join(f"{now[name]:.0f} {name.rpartition('_')[2]}" for name in _GAUGES)
    return f"{elapsed:4.0f} s: {load.calls} calls, {load.tokens} tokens judged, {in_flight}; {memory}"


async def _check_nothing_is_left(triton: EmbeddedTriton, server: ServerProcess, *, files: int) -> None:
    """No call in flight, no slot of the engine taken, no socket more than before; seconds later at the latest."""

    async def idle() -> bool:
        now = await gauges(server.metrics_url)
        return not any(now[name] for name in _GAUGES)

    async def engine_idle() -> bool:
        active = re.search(r'^nv_trt_llm_request_metrics\{.*"active".*\} (\d+)', await page(triton.metrics_url), re.M)
        assert active, "the engine's gauge is not among Triton's metrics"
        return int(active[1]) == 0

    await until(idle, seconds=_SETTLE_SECONDS, what="no call in flight, by the server's metrics")
    await until(engine_idle, seconds=_SETTLE_SECONDS, what="no slot taken, by the engine's gauge")
    await until(lambda: open_files(server.pid) <= files, seconds=_SETTLE_SECONDS, what=f"at most {files} files open")


def _wrong_ends(load: Load, *, restarts: int) -> list[str]:
    """Ends that no caller should see. Without a Triton for some seconds, callers are told to come back."""
    away = " UNAVAILABLE:" if restarts else None
    return [each for each in load.surprises if away is None or away not in each]


def _check_slope(curve: MemoryCurve, limit: float) -> None:
    grown = curve.megabytes_per_minute()
    assert grown <= limit, f"{curve.name} grows by {grown:.2f} MB a minute; {limit:g} are allowed"


def _table(load: Load, curves: Curves, seconds: float) -> str:
    rows = ["| callers | end | calls |", "| --- | --- | ---: |"]
    rows += [f"| {kind} | {end} | {count} |" for (kind, end), count in sorted(load.ends.items())]
    rows += [
        f"| all | {load.calls / seconds:.0f} calls/s, {load.tokens / seconds:.0f} tokens/s judged | {load.calls} |"
    ]
    rows += [
        "",
        "| process | MB at the end | MB at most | MB per minute, second half |",
        "| --- | ---: | ---: | ---: |",
    ]
    rows += [
        f"| {curve.name} | {curve.latest_megabytes:.1f} | {curve.highest_megabytes:.1f} "
        f"| {curve.megabytes_per_minute():+.2f} |"
        for curve in curves.of.values()
    ]
    return "\n".join(rows)
