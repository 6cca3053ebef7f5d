"""The whole service on the real Triton with an engine whose every token is known: exactness, errors, slow readers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from llamarpc.v1 import text_generation_pb2 as pb
from llamarpc.v1 import text_generation_pb2_grpc

from server.bundle import Bundle
from server.chat.engine import EngineRequest
from server.triton.engine import TritonEngine
from tests.end_to_end.conftest import ScriptedService, Service, run_service
from tests.end_to_end.numbers_tokenizer import ids_of
from tests.scripted_engine import scripted_ids
from tests.waiting import until

_SMALL_WINDOW = (("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0))


async def said(service: Service, request: pb.GenerateRequest) -> tuple[str, pb.Finished]:
    """Text and end of a stream."""
    messages = [message async for message in service.generation.StreamGenerate(request)]
    return "".join(message.response for message in messages), messages[-1].finished


async def expected_ids(service: Service, request: pb.GenerateRequest) -> list[int]:
    counted = await service.generation.CountTokens(pb.CountTokensRequest(generate_request=request, include_prompt=True))
    return list(scripted_ids(list(counted.token_ids), request.seed, request.max_tokens))


async def test_64_streams_at_once_are_exact_token_for_token(scripted: ScriptedService) -> None:
    async with scripted(delay_microseconds=2_000) as service:
        requests = [
            pb.GenerateRequest(prompt=f"stream {number}", seed=1 + number, max_tokens=50 + number)
            for number in range(64)
        ]
        answers = await asyncio.gather(*(said(service, request) for request in requests))
        for request, (text, end) in zip(requests, answers, strict=True):
            assert ids_of(text) == await expected_ids(service, request)
            assert end.finish_reason == pb.FINISH_REASON_MAX_TOKENS
            assert end.usage.completion_tokens == request.max_tokens


async def test_several_tokens_in_one_response_lose_nothing(scripted: ScriptedService) -> None:
    async with scripted(tokens_per_response=7) as service:
        request = pb.GenerateRequest(prompt="sevens", seed=3, max_tokens=100)
        text, end = await said(service, request)
        assert ids_of(text) == await expected_ids(service, request)
        assert end.usage.completion_tokens == 100


async def test_an_engine_error_mid_stream_ends_the_call_with_a_status(scripted: ScriptedService) -> None:
    async with scripted(fail_after=20) as service:
        call = service.generation.StreamGenerate(pb.GenerateRequest(prompt="fail", max_tokens=100))
        pieces: list[str] = []

        async def read_all() -> None:
            async for message in call:
                pieces.append(message.response)

        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await read_all()
        assert len(ids_of("".join(pieces))) == 20
        assert failure.value.code() is grpc.StatusCode.INTERNAL
        assert "the script fails after 20 ids" in (failure.value.details() or "")
        status = rpc_status.from_call(failure.value)
        assert status is not None
        info = error_details_pb2.ErrorInfo()
        assert status.details[0].Unpack(info)
        assert info.reason == "ENGINE_FAILED"


class _CountingEngine(TritonEngine):
    """Counts the tokens that have been taken from Triton for long requests."""

    taken = 0

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Sequence[int], None]:
        async with aclosing(super().stream(request)) as stream:
            async for ids in stream:
                if request.max_tokens > 5_000:
                    _CountingEngine.taken += len(ids)
                yield ids


async def test_a_slow_reader_stalls_only_itself_within_bounds(
    scripted: ScriptedService, numbers_bundle: Bundle
) -> None:
    """A caller that reads one message and stops: the server takes a bounded number of tokens for it and no more, and
    other calls to the same server are as quick as before."""
    buffer_tokens = 256
    async with scripted() as service:
        triton = service.engine.address
        async with run_service(numbers_bundle, triton, engine_class=_CountingEngine, buffer_tokens=buffer_tokens) as on:
            await on.server.wait_until_serving()
            alone = await _seconds_of_a_quick_call(on)
            async with grpc.aio.insecure_channel(on.address, options=_SMALL_WINDOW) as channel:
                stub = text_generation_pb2_grpc.TextGenerationServiceStub(channel)
                call = stub.StreamGenerate(pb.GenerateRequest(prompt="slow", seed=1, max_tokens=8_000))
                assert (await call.read()).HasField("started")
                stalled = await _stalled_at()
                # What is beyond the buffer is in gRPC's own windows, a few kilobytes each way.
                assert stalled < buffer_tokens + 1_000, f"{stalled} of 8000 tokens were taken although nobody reads"

                beside = await _seconds_of_a_quick_call(on)
                print(f"slow reader: {stalled} of 8000 tokens taken; others {alone:.2f} s alone, {beside:.2f} s beside")
                assert beside < 1.5 * alone + 0.5
                assert _CountingEngine.taken == stalled

                rest = ""
                while (message := await call.read()) is not grpc.aio.EOF:
                    rest += message.response
                assert len(ids_of(rest)) == 8_000  # nothing was lost by waiting


async def _seconds_of_a_quick_call(service: Service) -> float:
    """The best of three, so that a busy machine does not decide."""
    times = []
    for _ in range(3):
        start = time.monotonic()
        text, _end = await said(service, pb.GenerateRequest(prompt="quick", seed=1, max_tokens=500))
        times.append(time.monotonic() - start)
        assert len(ids_of(text)) == 500
    return min(times)


async def _stalled_at() -> int:
    """How many tokens have been taken once no more are."""
    last, since = -1, time.monotonic()

    def quiet() -> bool:
        nonlocal last, since
        if _CountingEngine.taken != last:
            last, since = _CountingEngine.taken, time.monotonic()
        return last > 0 and time.monotonic() - since > 0.5

    await until(quiet, seconds=20, what="the stalled stream stands still")
    return last
