"""Cancelled and expired calls free their slots; Triton gone and back; all on the real Triton with the real model."""

from __future__ import annotations

import asyncio
import os
import signal
import time
import urllib.request
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from llamarpc.v1 import text_generation_pb2 as pb

from server.bundle import Bundle
from server.embedded import EmbeddedTriton
from server.triton_installation import assemble
from server.triton_ports import free_ports
from tests.end_to_end.conftest import Service, run_service
from tests.triton_fixtures import cache_dir, run_triton
from tests.waiting import until

LONG = pb.GenerateRequest(prompt="Write a very long story about the sea.", max_tokens=4_000, temperature=1.0)
FLIP_SECONDS = 2.0


async def active_slots(triton: EmbeddedTriton) -> int:
    """Requests that hold a slot, as the engine itself tells on Triton's metrics port."""

    def read() -> str:
        with urllib.request.urlopen(triton.metrics_url, timeout=5) as answer:
            return str(answer.read().decode())

    for line in (await asyncio.to_thread(read)).splitlines():
        if line.startswith("nv_trt_llm_request_metrics") and 'request_type="active"' in line:
            return round(float(line.rpartition(" ")[2]))
    raise AssertionError("the engine tells no slots")


async def begun(service: Service, request: pb.GenerateRequest, **options: float) -> grpc.aio.UnaryStreamCall:
    """A stream that has given text."""
    call = service.generation.StreamGenerate(request, **options)
    while not (await call.read()).response:
        pass
    return call


async def read_to_the_end(call: grpc.aio.UnaryStreamCall) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_a_cancelled_call_frees_its_slot(real: Service, real_triton: EmbeddedTriton) -> None:
    call = await begun(real, LONG)
    assert await active_slots(real_triton) == 1
    call.cancel()
    took = await until(lambda: _idle(real_triton), seconds=5, what="the slot is free")
    assert took < 0.5, f"the slot was freed after {took:.3f} s"


async def test_an_expired_call_frees_its_slot(real: Service, real_triton: EmbeddedTriton) -> None:
    start = time.monotonic()
    call = await begun(real, LONG, timeout=1.5)
    assert await active_slots(real_triton) == 1
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await read_to_the_end(call)
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 1.4 < time.monotonic() - start < 2.0
    took = await until(lambda: _idle(real_triton), seconds=5, what="the slot is free")
    assert took < 0.5, f"the slot was freed after {took:.3f} s"


async def test_a_stop_string_frees_the_slot(real: Service, real_triton: EmbeddedTriton) -> None:
    request = pb.GenerateRequest(prompt="Count: 1, 2, 3", max_tokens=4_000, temperature=0.0, stop=["e", "1", "2", " "])
    answer = await real.generation.Generate(request)
    assert answer.finish_reason == pb.FINISH_REASON_STOP_SEQUENCE
    took = await until(lambda: _idle(real_triton), seconds=5, what="the slot is free")
    assert took < 0.5, f"the slot was freed after {took:.3f} s"


async def _idle(triton: EmbeddedTriton) -> bool:
    return await active_slots(triton) == 0


async def test_64_streams_at_once_all_complete(real: Service) -> None:
    """More than there are slots: the others wait for theirs."""

    async def run(number: int) -> pb.Finished:
        request = pb.GenerateRequest(prompt=f"Say something about the number {number}.", max_tokens=12, seed=1 + number)
        messages = [message async for message in real.generation.StreamGenerate(request)]
        return messages[-1].finished

    ends = await asyncio.gather(*(run(number) for number in range(64)))
    assert {end.finish_reason for end in ends} <= {pb.FINISH_REASON_STOP, pb.FINISH_REASON_MAX_TOKENS}
    assert all(0 < end.usage.completion_tokens <= 12 for end in ends)


async def test_kill_9_of_triton_gives_unavailable_and_service_returns(default_bundle: Bundle, tmp_path: Path) -> None:
    async with run_triton(default_bundle.model_repository, tmp_path / "triton.log") as triton:
        async with run_service(default_bundle, triton.grpc_address) as service:
            await service.server.wait_until_serving()
            health = health_pb2_grpc.HealthStub(service.channel)
            call = await begun(service, LONG)

            assert triton.pid is not None
            os.kill(triton.pid, signal.SIGKILL)
            killed = time.monotonic()
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await read_to_the_end(call)
            assert time.monotonic() - killed < 5
            assert_unavailable_with_retry(failure.value)
            await until(lambda: _health_is(health, "NOT_SERVING"), seconds=FLIP_SECONDS, what="NOT_SERVING")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await asyncio.wait_for(service.generation.Generate(pb.GenerateRequest(prompt="hi")), 10)
            assert_unavailable_with_retry(refused.value)

            await until(lambda: triton.restarts > 0 and triton.pid is not None, seconds=30, what="Triton restarts")
            await until(lambda: _health_is(health, "SERVING"), seconds=60, what="SERVING again")
            answer = await service.generation.Generate(pb.GenerateRequest(prompt="hi", max_tokens=5))
            assert answer.usage.completion_tokens > 0


async def test_a_hung_triton_shows_in_health(default_bundle: Bundle, tmp_path: Path) -> None:
    async with run_triton(default_bundle.model_repository, tmp_path / "triton.log") as triton:
        async with run_service(default_bundle, triton.grpc_address) as service:
            health = health_pb2_grpc.HealthStub(service.channel)
            await service.server.wait_until_serving()
            os.kill(triton.pid or 0, signal.SIGSTOP)
            try:
                await until(lambda: _health_is(health, "NOT_SERVING"), seconds=FLIP_SECONDS, what="a hung Triton shows")
            finally:
                os.kill(triton.pid or 0, signal.SIGCONT)
            await until(lambda: _health_is(health, "SERVING"), seconds=FLIP_SECONDS, what="SERVING again")


async def test_a_server_that_is_there_before_triton_works_when_it_comes(default_bundle: Bundle, tmp_path: Path) -> None:
    ports = free_ports()
    async with run_service(default_bundle, f"127.0.0.1:{ports.grpc}") as service:
        health = health_pb2_grpc.HealthStub(service.channel)
        request = pb.GenerateRequest(prompt="hi", max_tokens=5)
        assert await _health_is(health, "NOT_SERVING")
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await service.generation.Generate(request, timeout=30)
        assert_unavailable_with_retry(failure.value)
        triton = EmbeddedTriton(assemble(cache_dir()), log_path=tmp_path / "triton.log")
        await triton.start(default_bundle.model_repository, ports=ports)
        try:
            await until(
                lambda: _health_is(health, "SERVING"), seconds=FLIP_SECONDS, what="SERVING once Triton is there"
            )
            assert (await service.generation.Generate(request)).usage.completion_tokens > 0
        finally:
            await triton.stop()


async def test_nothing_there_is_not_serving_and_unavailable(default_bundle: Bundle) -> None:
    async with run_service(default_bundle, "127.0.0.1:9") as service:
        health = health_pb2_grpc.HealthStub(service.channel)
        assert await _health_is(health, "NOT_SERVING")
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await service.generation.Generate(pb.GenerateRequest(prompt="hi"), timeout=30)
        assert_unavailable_with_retry(failure.value)
        counted = await service.generation.CountTokens(
            pb.CountTokensRequest(generate_request=pb.GenerateRequest(prompt="hi"))
        )
        assert counted.prompt_tokens > 0


async def _health_is(health: health_pb2_grpc.HealthStub, wanted: str) -> bool:
    answers = [
        await health.Check(health_pb2.HealthCheckRequest(service=service))
        for service in ("", "llamarpc.v1.TextGenerationService", "llamarpc.v1.ModelService")
    ]
    return all(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status) == wanted for answer in answers)


def assert_unavailable_with_retry(error: grpc.aio.AioRpcError) -> None:
    assert error.code() is grpc.StatusCode.UNAVAILABLE, error
    status = rpc_status.from_call(error)
    assert status is not None
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.ToMilliseconds() > 0
