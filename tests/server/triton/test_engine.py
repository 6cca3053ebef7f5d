"""The engine against a fake Triton on a real socket: ids, errors with their statuses, cancelling, coming back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import pytest
from tritonclient.grpc import service_pb2

from server.chat.engine import EngineRequest
from server.chat.model import Sampling
from server.errors import DeadlineExceeded, EngineBusy, EngineFailed, EngineUnavailable, GuideRefused, ServiceError
from server.triton.engine import STALL_SECONDS, TritonEngine, error_from_status
from tests.fakes import PATIENCE_SECONDS, Abort, FakeTriton, Final, InBandError, eventually, running_triton

REQUEST = EngineRequest(
    request_id="r-1",
    prompt_ids=[1, 2, 3],
    max_tokens=50,
    end_id=9,
    pad_id=9,
    stop_ids=(),
    sampling=Sampling(
        temperature=1.0, top_p=1.0, top_k=0, seed=7, repetition_penalty=1.0, frequency_penalty=0, presence_penalty=0
    ),
    timeout_seconds=PATIENCE_SECONDS,
)


@asynccontextmanager
async def open_engine(
    address: str, *, model_name: str = "tensorrt_llm", stall_seconds: float = STALL_SECONDS
) -> AsyncIterator[TritonEngine]:
    engine = TritonEngine(address, model_name=model_name, context_length=8192, stall_seconds=stall_seconds)
    try:
        yield engine
    finally:
        await engine.aclose()


@asynccontextmanager
async def engine_at(triton: FakeTriton) -> AsyncIterator[TritonEngine]:
    async with running_triton(triton) as address, open_engine(address) as engine:
        yield engine


async def ids_of(engine: TritonEngine, request: EngineRequest = REQUEST) -> list[list[int]]:
    async with aclosing(engine.stream(request)) as stream:
        return [list(ids) async for ids in stream]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param(([5], [6, 7], Final([8])), [[5], [6, 7], [8]], id="ids_in_the_last_response"),
        pytest.param(([5], Final()), [[5], []], id="empty_last_response"),
        pytest.param((Final(),), [[]], id="nothing_at_all"),
        pytest.param(([5], Final([6]), [7]), [[5], [6]], id="nothing_is_read_after_the_last"),
    ],
)
async def test_ids_come_as_triton_sends_them(script: Any, expected: list[list[int]]) -> None:
    async with engine_at(FakeTriton(*script)) as engine:
        assert await ids_of(engine) == expected


async def test_ids_come_at_once() -> None:
    gate = asyncio.Event()
    async with engine_at(FakeTriton([5], gate, Final([6]))) as engine, aclosing(engine.stream(REQUEST)) as stream:
        assert list(await anext(stream)) == [5]
        gate.set()
        assert list(await anext(stream)) == [6]


async def test_one_call_with_statuses_asked_for() -> None:
    triton = FakeTriton(Final())
    async with engine_at(triton) as engine:
        await ids_of(engine)
    assert triton.metadata[0]["triton_grpc_error"] == "true"
    assert (triton.requests[0].model_name, triton.requests[0].id) == ("tensorrt_llm", "r-1")
    await eventually(lambda: triton.running == 0, what="the call has ended")


# Status, details as Triton writes them, our error.
STATUSES = [
    (grpc.StatusCode.UNAVAILABLE, "Socket closed", EngineUnavailable),
    (grpc.StatusCode.UNAVAILABLE, "Request for unknown model: 'tensorrt_llm' is not found", EngineUnavailable),
    (grpc.StatusCode.UNAVAILABLE, "", EngineUnavailable),
    (grpc.StatusCode.UNAVAILABLE, "[request id: 1] Exceeds maximum queue size", EngineBusy),
    (grpc.StatusCode.INTERNAL, "Exceeds maximum queue size", EngineBusy),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "full", EngineBusy),
    (grpc.StatusCode.NOT_FOUND, "no such model", EngineUnavailable),
    (grpc.StatusCode.INVALID_ARGUMENT, "Request for unknown model: 'x' is not found", EngineUnavailable),
    (grpc.StatusCode.INTERNAL, "model 'x' is not ready", EngineUnavailable),
    (grpc.StatusCode.INTERNAL, "out of memory", EngineFailed),
    (grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape for input", EngineFailed),
    (grpc.StatusCode.UNKNOWN, "", EngineFailed),
    (grpc.StatusCode.CANCELLED, "", EngineUnavailable),
    (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", DeadlineExceeded),
    (grpc.StatusCode.INVALID_ARGUMENT, "guided_decoding_guide: it can be read in too many ways at once", GuideRefused),
    (grpc.StatusCode.INTERNAL, "the guide cannot be followed further: too many ways", GuideRefused),
]


@pytest.mark.parametrize(("code", "details", "kind"), STATUSES)
def test_every_status_is_one_of_our_errors(code: grpc.StatusCode, details: str, kind: type[ServiceError]) -> None:
    error = error_from_status(code, details)
    assert type(error) is kind
    if kind is not DeadlineExceeded:
        assert (details or code.name) in str(error)


@pytest.mark.parametrize(("code", "details", "kind"), STATUSES)
async def test_statuses_mid_stream(code: grpc.StatusCode, details: str, kind: type[ServiceError]) -> None:
    async with engine_at(FakeTriton([5], [6], Abort(code, details))) as engine:
        stream = engine.stream(REQUEST)
        assert [list(await anext(stream)) for _ in range(2)] == [[5], [6]]
        with pytest.raises(ServiceError) as caught:
            await anext(stream)
    assert type(caught.value) is kind


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE])
async def test_statuses_before_the_first_id(code: grpc.StatusCode) -> None:
    async with engine_at(FakeTriton(Abort(code))) as engine:
        with pytest.raises(type(error_from_status(code, "no reason")), match="no reason"):
            await ids_of(engine)


async def test_error_message_in_the_stream_is_an_error() -> None:
    async with engine_at(FakeTriton([5], InBandError("tensor is wrong"), Final())) as engine:
        with pytest.raises(EngineFailed, match="tensor is wrong"):
            await ids_of(engine)


async def test_stream_without_a_last_response_is_an_error() -> None:
    async with engine_at(FakeTriton([5])) as engine:
        with pytest.raises(EngineFailed, match="without a final response"):
            await ids_of(engine)


async def test_closing_the_generator_cancels_the_call() -> None:
    triton = FakeTriton([5], asyncio.Event())
    async with engine_at(triton) as engine:
        async with aclosing(engine.stream(REQUEST)) as stream:
            await anext(stream)
        await eventually(lambda: triton.cancelled == 1, what="Triton sees the cancellation")


async def test_cancelling_the_reader_cancels_the_call() -> None:
    triton = FakeTriton(asyncio.Event())
    async with engine_at(triton) as engine:
        reading = asyncio.create_task(ids_of(engine))
        await eventually(lambda: len(triton.requests) == 1, what="Triton has the request")
        reading.cancel()
        await asyncio.wait([reading])
        assert reading.cancelled()
        await eventually(lambda: triton.cancelled == 1, what="Triton sees the cancellation")


async def test_deadline() -> None:
    triton = FakeTriton([5], asyncio.Event())
    async with engine_at(triton) as engine:
        with pytest.raises(DeadlineExceeded):
            await ids_of(engine, replace(REQUEST, timeout_seconds=0.2))
        await eventually(lambda: triton.running == 0, what="Triton's slot is free")


async def test_deadline_at_any_moment_of_the_start_is_no_defect() -> None:
    """grpc.aio raises errors of several kinds where a call dies while its request is being written."""
    async with engine_at(FakeTriton(Final())) as engine:
        for microseconds in range(0, 3_000, 20):
            try:
                ids = await ids_of(engine, replace(REQUEST, timeout_seconds=microseconds / 1e6))
            except ServiceError:
                continue
            assert ids == [[]]


async def test_nobody_there_is_no_hang() -> None:
    async with running_triton(FakeTriton()) as address:
        pass
    async with open_engine(address) as engine:
        with pytest.raises(EngineUnavailable):
            await asyncio.wait_for(ids_of(engine, replace(REQUEST, timeout_seconds=None)), PATIENCE_SECONDS)
        assert await engine.is_ready(timeout_seconds=PATIENCE_SECONDS) is False
        with pytest.raises(EngineUnavailable):
            await engine.contract_differences(timeout_seconds=PATIENCE_SECONDS)


async def test_triton_that_dies_mid_stream_and_comes_back() -> None:
    dying, back = FakeTriton([5], asyncio.Event()), FakeTriton([6], Final())
    async with running_triton(dying) as address:
        engine = TritonEngine(address, model_name="tensorrt_llm", context_length=8192)
        stream = engine.stream(REQUEST)
        assert list(await anext(stream)) == [5]
    with pytest.raises(EngineUnavailable):
        await anext(stream)
    async with running_triton(back, address=address):
        await eventually(lambda: engine.is_ready(timeout_seconds=1.0), what="Triton is found again")
        assert await ids_of(engine) == [[6], []]
    await engine.aclose()


async def test_closing_the_engine_ends_its_streams() -> None:
    async with running_triton(FakeTriton([5], asyncio.Event())) as address:
        engine = TritonEngine(address, model_name="tensorrt_llm", context_length=8192)
        stream = engine.stream(REQUEST)
        assert list(await anext(stream)) == [5]
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await engine.aclose()
        (error,) = await asyncio.wait_for(asyncio.gather(reading, return_exceptions=True), PATIENCE_SECONDS)
    assert type(error) is EngineUnavailable, f"got {error!r}"


@pytest.mark.parametrize("last", [[6], []])
async def test_a_stream_that_stalls_is_given_up(last: list[int]) -> None:
    triton = FakeTriton([5], last, asyncio.Event())
    async with running_triton(triton) as address, open_engine(address, stall_seconds=0.1) as engine:
        stream = engine.stream(REQUEST)
        assert [list(await anext(stream)) for _ in range(2)] == [[5], last]
        with pytest.raises(EngineUnavailable, match=r"no token came for 0\.1 s"):
            await anext(stream)
        await eventually(lambda: triton.cancelled == 1, what="Triton sees the cancellation")


async def test_waiting_for_the_first_id_or_for_the_reader_is_no_stall() -> None:
    gate = asyncio.Event()
    triton = FakeTriton([], gate, [5], [6], Final())
    async with running_triton(triton) as address, open_engine(address, stall_seconds=0.1) as engine:
        stream = engine.stream(REQUEST)
        assert list(await anext(stream)) == []
        asyncio.get_running_loop().call_later(0.3, gate.set)
        assert list(await anext(stream)) == [5]
        await asyncio.sleep(0.3)
        assert [list(ids) async for ids in stream] == [[6], []]


async def test_cancelling_a_reader_of_a_stream_that_may_stall() -> None:
    triton = FakeTriton([5], asyncio.Event())
    async with engine_at(triton) as engine:
        reading = asyncio.create_task(ids_of(engine))
        await eventually(lambda: triton.running == 1, what="Triton has the request")
        reading.cancel()
        await asyncio.wait([reading])
        assert reading.cancelled()


@pytest.mark.parametrize(("ready", "model_name"), [(False, "tensorrt_llm"), (True, "another")])
async def test_not_ready(ready: bool, model_name: str) -> None:
    triton = FakeTriton()
    triton.ready = ready
    async with running_triton(triton) as address, open_engine(address, model_name=model_name) as engine:
        assert await engine.is_ready(timeout_seconds=PATIENCE_SECONDS) is False


async def test_ready_and_compared() -> None:
    triton = FakeTriton()
    async with engine_at(triton) as engine:
        assert await engine.is_ready(timeout_seconds=PATIENCE_SECONDS) is True
        assert await engine.contract_differences(timeout_seconds=PATIENCE_SECONDS) == []
        triton.config.max_batch_size = 0
        assert len(await engine.contract_differences(timeout_seconds=PATIENCE_SECONDS)) == 1


class _HungTriton(FakeTriton):
    """Accepts connections and calls, answers none."""

    async def ModelReady(self, request: Any, context: Any) -> service_pb2.ModelReadyResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async def ModelConfig(self, request: Any, context: Any) -> service_pb2.ModelConfigResponse:
        await asyncio.Event().wait()
        raise AssertionError


class _LoadingTriton(FakeTriton):
    """Answers, but does not have the model."""

    async def ModelReady(self, request: Any, context: Any) -> service_pb2.ModelReadyResponse:
        return service_pb2.ModelReadyResponse(ready=False)

    async def ModelConfig(self, request: Any, context: Any) -> service_pb2.ModelConfigResponse:
        return await context.abort(grpc.StatusCode.UNAVAILABLE, "unknown model")


@pytest.mark.parametrize("away", [_HungTriton, _LoadingTriton])
async def test_one_replica_of_two_is_enough_to_be_ready(away: type[FakeTriton]) -> None:
    async with running_triton(away()) as first, running_triton(FakeTriton()) as second:
        async with open_engine(f"ipv4:{first},{second}") as engine:
            for _ in range(4):
                assert await engine.is_ready(timeout_seconds=1.0) is True
                assert await engine.contract_differences(timeout_seconds=1.0) == []


@pytest.mark.parametrize("away", [_HungTriton, _LoadingTriton])
async def test_all_replicas_away_are_not_ready_within_the_time(away: type[FakeTriton]) -> None:
    async with running_triton(away()) as first, running_triton(away()) as second:
        async with open_engine(f"ipv4:{first},{second}") as engine:
            start = time.monotonic()
            assert await engine.is_ready(timeout_seconds=0.4) is False
            with pytest.raises(EngineUnavailable):
                await engine.contract_differences(timeout_seconds=0.4)
            assert time.monotonic() - start < 2


async def test_many_streams_at_once() -> None:
    gate = asyncio.Event()
    triton = FakeTriton([5], gate, Final([6]))
    async with engine_at(triton) as engine:
        streams = [asyncio.create_task(ids_of(engine)) for _ in range(20)]
        await eventually(lambda: triton.running == 20, what="all calls run")
        gate.set()
        assert await asyncio.gather(*streams) == [[[5], [6]]] * 20
