"""Callers that vanish from a `python -m server` process: what it holds afterwards, as the operating system sees it."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from llamarpc.v1 import text_generation_pb2_grpc

from tests.fakes import FakeTriton, Final, eventually, running_triton, write_bundle
from tests.server.test_fuzz import FACTOR, SHORT, WAVE, recorded_stream, vanish
from tests.soak.memory import MEGABYTE
from tests.soak.server_process import ServerProcess, gauges, open_files, resident_bytes, running_process
from tests.wire import answer_to

pytestmark = pytest.mark.real_parts

# What the allocator may still take when most of its pools are full; 1 KB kept for each of 8,000 callers would be 8 MB.
_MOST_GROWTH_BYTES = 6 * MEGABYTE
_LOAD = ("llamarpc_calls_in_flight", "llamarpc_requests_running", "llamarpc_requests_waiting")


async def answers(address: str) -> bool:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = text_generation_pb2_grpc.TextGenerationServiceStub(channel)
        return bool((await stub.Generate(SHORT, timeout=20)).response)


async def is_idle(server: ServerProcess, triton: FakeTriton, *, files: int) -> bool:
    if triton.running or open_files(server.pid) > files:
        return False
    now = await gauges(server.metrics_url)
    return not any(now[name] for name in _LOAD)


async def test_callers_that_vanish_leave_nothing_in_the_process(tmp_path: Path) -> None:
    source = random.Random(4)
    gate = asyncio.Event()
    triton = FakeTriton(b"a", gate, Final(b"b"))
    async with running_triton(triton) as triton_address:
        where = ("--bundle", str(write_bundle(tmp_path / "bundle")), "--triton-address", triton_address)
        async with running_process(tmp_path, *where, "--max-running", "64") as server:
            whole = await recorded_stream(server.address)
            files, resident = open_files(server.pid), [resident_bytes(server.pid)]
            for wave in range(10 * FACTOR):
                await asyncio.gather(*(vanish(server.address, whole, source.random()) for _ in range(WAVE)))
                await answer_to(server.address, source.randbytes(500), quiet_seconds=0.1)
                if wave % 20 == 19 or wave == 10 * FACTOR - 1:
                    resident.append(resident_bytes(server.pid))
            await eventually(lambda: is_idle(server, triton, files=files), what="nothing is left")
            gate.set()
            assert await answers(server.address)
            print(f"MB after each 2,000 callers: {[round(each / MEGABYTE, 1) for each in resident]}")
            assert resident[-1] - resident[1] <= _MOST_GROWTH_BYTES
            assert await server.stop(patience_seconds=20) == 0
            assert server.complaints() == []
    assert len(triton.requests) > FACTOR * WAVE
