"""Calls that take too long and streams that nobody reads end with a status that says so, and with what they used."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from llamarpc.v1.text_generation_pb2 import GenerateRequest

from server.chat.engine import EngineRequest
from tests.fakes import (
    PATIENCE_SECONDS,
    ScriptedEngine,
    Step,
    byte_tokenizer,
    error_details,
    eventually,
    running_server,
)

WIDE, WIDE_BYTES = 258, 1_024
# The HTTP/2 window stays small, so that few messages fill it.
FIXED_WINDOW = [("grpc.http2.bdp_probe", 0)]


def wide(request: EngineRequest) -> Iterable[Step]:
    return ([WIDE] for _ in range(request.max_tokens))


async def usage_of(call: Any) -> dict[str, str]:
    return {key: value for key, value in await call.trailing_metadata() if key.startswith("x-usage-")}


@pytest.mark.parametrize("method", ["Generate", "StreamGenerate"])
async def test_calls_without_a_deadline_end_at_the_servers_limit(tmp_path: Path, method: str) -> None:
    engine = ScriptedEngine([b"so far", asyncio.Event()])
    async with running_server(tmp_path, engine, max_call_seconds=1.0) as running:
        call = getattr(running.text, method)(GenerateRequest(prompt="Hi"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            _ = [each async for each in call] if method == "StreamGenerate" else await call
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        info = error_details(caught.value)["ErrorInfo"]
        assert (info.reason, info.metadata["limit_seconds"]) == ("CALL_TOO_LONG", "1")
        assert (await usage_of(call))["x-usage-completion-tokens"] == "6"
        await eventually(lambda: engine.running == 0, what="the engine's slot is free")


async def test_a_sooner_deadline_of_the_callers_counts(tmp_path: Path) -> None:
    async with running_server(tmp_path, ScriptedEngine([asyncio.Event()]), max_call_seconds=60.0) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.text.Generate(GenerateRequest(prompt="Hi"), timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_stream_that_is_not_read_is_ended_and_others_go_on(tmp_path: Path) -> None:
    engine = ScriptedEngine(wide)
    options: dict[str, Any] = {
        "bundle": {"tokenizer": byte_tokenizer(more=[b"x" * WIDE_BYTES]), "context_length": 10_000},
        "buffer_tokens": 32,
        "channel_options": FIXED_WINDOW,
        "stall_seconds": 0.5,
    }
    async with running_server(tmp_path, engine, **options) as running:
        slow = running.text.StreamGenerate(GenerateRequest(prompt="Hi", max_tokens=3_000))
        await eventually(lambda: bool(engine.produced) and engine.running == 0, what="the slow stream was ended")
        assert engine.produced[0] < 3_000
        quick = running.text.StreamGenerate(GenerateRequest(prompt="Hi", max_tokens=50), timeout=PATIENCE_SECONDS)
        assert sum([len(each.response) async for each in quick]) == 50 * WIDE_BYTES

        # When the caller reads at last, it gets what had been sent, and then the reason.
        read = 0

        async def read_on() -> None:
            nonlocal read
            async for each in slow:
                read += len(each.response)

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read_on()
        assert caught.value.code() is grpc.StatusCode.ABORTED
        assert error_details(caught.value)["ErrorInfo"].reason == "SLOW_READER"
        assert 0 < read <= engine.produced[0] * WIDE_BYTES
        assert int((await usage_of(slow))["x-usage-completion-tokens"]) <= engine.produced[0]


async def test_a_slow_engine_is_no_slow_reader(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with running_server(tmp_path, ScriptedEngine([b"a", gate, b"b"]), stall_seconds=0.1) as running:
        call = running.text.StreamGenerate(GenerateRequest(prompt="Hi"))
        asyncio.get_running_loop().call_later(0.5, gate.set)
        assert "".join([each.response async for each in call]) == "ab"
