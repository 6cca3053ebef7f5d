"""Ten times more calls than the engine can take: those that are accepted are answered in time, the rest at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from pathlib import Path

import grpc
import grpc.aio
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from llamarpc.v1 import text_generation_pb2 as pb

from server.bundle import Bundle
from tests.end_to_end.conftest import run_service
from tests.triton_fixtures import run_triton, scripted_repository

PLACES, DEADLINE_SECONDS, OVERLOAD = 4, 6.0, 10
TOKENS, TOKEN_SECONDS = 20, 0.05
SECONDS = 12.0


async def test_overload_leaves_the_capacity_to_answers_in_time(numbers_bundle: Bundle, tmp_path: Path) -> None:
    repository = scripted_repository(tmp_path / "repository", delay_microseconds=round(TOKEN_SECONDS * 1e6))
    answered: list[float] = []
    refused: list[float] = []

    async with run_triton(repository, tmp_path / "triton.log") as triton:
        async with run_service(numbers_bundle, triton.grpc_address, max_running=PLACES) as service:
            await service.server.wait_until_serving()

            async def call(number: int) -> None:
                start = time.monotonic()
                request = pb.GenerateRequest(prompt="1", max_tokens=TOKENS, seed=1 + number)
                error = await _error_of(service.generation.Generate(request, timeout=DEADLINE_SECONDS))
                (answered if error is None else refused).append(time.monotonic() - start)
                assert error is None or error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error
                assert error is None or _retry_seconds(error) > 0

            # What one place does in a second, measured here and now: the machine may be busy.
            await call(0)
            each_seconds = answered.pop()
            calls = []
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                calls.append(asyncio.create_task(call(len(calls))))
                await asyncio.sleep(each_seconds / PLACES / OVERLOAD)
            await asyncio.gather(*calls)
            assert service.server.load.requests_running == 0

    capacity = PLACES * (SECONDS + max(answered)) / each_seconds
    assert len(answered) > 0.75 * capacity, f"{len(answered)} of {capacity:.0f} answers"
    assert max(answered) < DEADLINE_SECONDS
    assert sorted(refused)[len(refused) // 2] < 0.5, "those who are refused are told at once"


async def _error_of(call: Awaitable[pb.GenerateResponse]) -> grpc.aio.AioRpcError | None:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error
    return None


def _retry_seconds(error: grpc.aio.AioRpcError) -> float:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    for detail in status.details:
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(retry):
            return float(retry.retry_delay.ToTimedelta().total_seconds())
    return 0.0
