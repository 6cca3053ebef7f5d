"""A caller that does not read holds up its own stream, within a bound, and nobody else's; then it gets everything."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llamarpc.v1.text_generation_pb2 import GenerateRequest

from server.chat.engine import EngineRequest
from tests.fakes import PATIENCE_SECONDS, ScriptedEngine, Step, byte_tokenizer, eventually, running_server

# Tokens of 1 KiB, so that what the caller's gRPC takes in without being asked (its HTTP/2 window) is few tokens. By
# default that window grows up to 4 MiB; here it stays at the 64 KiB of the protocol.
WIDE, WIDE_BYTES = 258, 1_024
FIXED_WINDOW = [("grpc.http2.bdp_probe", 0)]
WINDOW_TOKENS = 64
BUFFER_TOKENS = 32
SLOW_TOKENS, QUICK_TOKENS = 3_000, 50
# A full buffer and one item more, which may be: waiting, in the message being sent, in one that gRPC has taken over.
MOST_TOKENS_AHEAD = WINDOW_TOKENS + 3 * (BUFFER_TOKENS + 1)


def script(request: EngineRequest) -> Iterable[Step]:
    return ([WIDE] for _ in range(request.max_tokens))


def request(name: str, tokens: int) -> GenerateRequest:
    return GenerateRequest(prompt="Hi", request_id=name, max_tokens=tokens)


async def text_of(call: Any) -> str:
    return "".join([response.response async for response in call])


OPTIONS: dict[str, Any] = {
    "bundle": {"tokenizer": byte_tokenizer(more=[b"x" * WIDE_BYTES]), "context_length": 10_000},
    "buffer_tokens": BUFFER_TOKENS,
    "channel_options": FIXED_WINDOW,
}


async def test_slow_reader(tmp_path: Path) -> None:
    engine = ScriptedEngine(script)
    async with running_server(tmp_path, engine, **OPTIONS) as running:
        slow = running.text.StreamGenerate(request("slow", SLOW_TOKENS), timeout=4 * PATIENCE_SECONDS)
        await eventually(lambda: sum(engine.produced) > BUFFER_TOKENS, what="the slow stream has begun")

        # Others finish meanwhile; when the slow stream made no token during one of them, it is held up.
        for turn in range(100):
            before = engine.produced[0]
            quick = running.text.StreamGenerate(request(f"quick-{turn}", QUICK_TOKENS), timeout=PATIENCE_SECONDS)
            assert len(await text_of(quick)) == QUICK_TOKENS * WIDE_BYTES
            if engine.produced[0] == before:
                break
        else:
            raise AssertionError("the slow stream was never held up")
        assert BUFFER_TOKENS < engine.produced[0] <= MOST_TOKENS_AHEAD
        assert engine.running == 1

        # Nothing is lost, and what had waited comes in few large pieces.
        pieces = [response.response async for response in slow]
        assert sum(map(len, pieces)) == SLOW_TOKENS * WIDE_BYTES
        assert max(map(len, pieces)) <= (BUFFER_TOKENS + 1) * WIDE_BYTES
        assert engine.running == 0


async def test_slow_reader_that_leaves_frees_its_slot(tmp_path: Path) -> None:
    engine = ScriptedEngine(script)
    async with running_server(tmp_path, engine, **OPTIONS) as running:
        slow = running.text.StreamGenerate(request("slow", SLOW_TOKENS), timeout=PATIENCE_SECONDS)
        await eventually(lambda: sum(engine.produced) > BUFFER_TOKENS, what="the slow stream has begun")
        slow.cancel()
        await eventually(lambda: engine.running == 0, what="the engine's slot is free")
        assert engine.produced[0] < SLOW_TOKENS
