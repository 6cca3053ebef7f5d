"""The whole service on the real Triton with an engine whose every token is known: exactness, errors, slow readers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from llamarpc.v1 import text_generation_pb2 as pb

from server.bundle import Bundle
from server.chat.engine import EngineRequest
from server.config import Settings
from server.grpc_server import Server
from server.triton.engine import TritonEngine
from tests.end_to_end.conftest import ScriptedService, Service
from tests.end_to_end.numbers_tokenizer import ids_of
from tests.scripted_engine import scripted_ids
from tests.waiting import until


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
    """Counts the tokens that have been taken from Triton, by prompt length."""

    taken = 0

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Sequence[int], None]:
        async for ids in super().stream(request):
            if request.max_tokens > 5_000:
                _CountingEngine.taken += len(ids)
            yield ids


async def test_a_slow_reader_stalls_only_itself_within_bounds(
    scripted: ScriptedService, numbers_bundle: Bundle
) -> None:
    """A caller that reads one message and stops: our process takes a bounded number of tokens, other calls go on."""
    buffer_tokens = 256
    async with scripted() as service:
        engine = _CountingEngine(service.engine.address, model_name="tensorrt_llm")
        settings = Settings(address="127.0.0.1:0", bundle=numbers_bundle.path, buffer_tokens=buffer_tokens)
        server = Server(settings, numbers_bundle, engine)
        address = await server.start()
        small_window = (("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0))
        async with grpc.aio.insecure_channel(address, options=small_window) as channel:
            call = channel.unary_stream(
                "/llamarpc.v1.TextGenerationService/StreamGenerate",
                request_serializer=pb.GenerateRequest.SerializeToString,
                response_deserializer=pb.StreamGenerateResponse.FromString,
            )(pb.GenerateRequest(prompt="slow", seed=1, max_tokens=8_000))
            first = await call.read()
            assert first.HasField("started")
            stalled = await _stalled_at()
            # What is beyond the buffer is in gRPC's own windows, a few kilobytes each way.
            assert stalled < buffer_tokens + 1_000, f"{stalled} of 8000 tokens were taken although nobody reads"

            start = time.monotonic()
            text, _ = await said(service, pb.GenerateRequest(prompt="quick", seed=1, max_tokens=500))
            assert len(ids_of(text)) == 500
            assert time.monotonic() - start < 10
            assert _CountingEngine.taken == stalled

            rest = ""
            while (message := await call.read()) is not grpc.aio.EOF:
                rest += message.response
            assert len(ids_of(rest)) == 8_000  # nothing was lost by waiting
        await server.drain(0)
        await engine.aclose()


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
