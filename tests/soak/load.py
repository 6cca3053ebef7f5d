"""Callers of every kind, good and bad, as many at a time as asked for, and a count of how their calls ended.

Each kind says which ends are right for it; any other is kept as a surprise. Knows no processes and no memory.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import grpc
import grpc.aio
from llamarpc.v1 import text_generation_pb2 as pb
from llamarpc.v1 import text_generation_pb2_grpc

from tests.end_to_end.numbers_tokenizer import ids_of
from tests.scripted_engine import greedy_ids
from tests.wire import abandon, recording

_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
# Takes no more ahead of its reader than it must, so that a reader that stops is noticed.
_SMALL_WINDOW = (*_OWN_CONNECTION, ("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0))
_PATIENCE_SECONDS = 60.0
_PROMPTS = ("Hi", "Tell me a story.", "1 2 3", "Why is the sky blue?", "x" * 300, "日本語", "?", "a b c d e f g")
_SCHEMA = '{"type":"object","properties":{"a":{"type":"integer"},"b":{"enum":["x","y"]}},"required":["a"]}'
_VANISHING = b"soak-vanishes"
STALL_SECONDS = 2.0
"""What the server must be told to allow a stream that is not read (`--stall-seconds`)."""

EngineIds = Mapping[str, Sequence[int]]


@dataclass(slots=True, kw_only=True)
class Load:
    """What callers share, and what has become of their calls."""

    address: str
    channel: grpc.aio.Channel
    prompt_ids: EngineIds
    vanishing_call: bytes
    source: random.Random = field(default_factory=lambda: random.Random(1))
    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    tokens: int = 0
    surprises: list[str] = field(default_factory=list)

    @property
    def stub(self) -> Any:
        return text_generation_pb2_grpc.TextGenerationServiceStub(self.channel)

    @property
    def calls(self) -> int:
        return sum(self.ends.values())

    def request(self, tokens: int, **fields: Any) -> pb.GenerateRequest:
        """Some prompt and seed."""
        prompt, seed = self.source.choice(_PROMPTS), self.source.randint(1, 10_000)
        return pb.GenerateRequest(prompt=prompt, seed=seed, max_tokens=tokens, **fields)

    async def run(self, callers: int, stop: asyncio.Event) -> None:
        """Calls of random kinds, `callers` at a time, until told to stop."""
        await asyncio.gather(*(self._calls(stop) for _ in range(callers)))

    async def _calls(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            (kind,) = self.source.choices(KINDS, [each.weight for each in KINDS])
            try:
                end = await kind.call(self)
            except grpc.aio.AioRpcError as error:
                end = error.code().name
                if end not in kind.right_ends:
                    end = f"{end}: {error.details()}"  # for whoever looks for the cause
            self.ends[kind.name, end[:100]] += 1
            if end not in kind.right_ends:
                self.surprises.append(f"{kind.name}: {end}")


async def new_load(address: str, channel: grpc.aio.Channel) -> Load:
    """A load for the server at `address`."""
    stub: Any = text_generation_pb2_grpc.TextGenerationServiceStub(channel)
    prompt_ids = {}
    for prompt in _PROMPTS:
        request = pb.CountTokensRequest(generate_request=pb.GenerateRequest(prompt=prompt), include_prompt=True)
        prompt_ids[prompt] = list((await stub.CountTokens(request)).token_ids)
    vanishing = await _vanishing_call(address)
    return Load(address=address, channel=channel, prompt_ids=prompt_ids, vanishing_call=vanishing)


async def _vanishing_call(address: str) -> bytes:
    """What a client sends for a long stream."""
    request = pb.GenerateRequest(prompt="Hi", max_tokens=4_000, request_id=_VANISHING.decode())
    async with recording(address) as (proxy, sent):
        async with grpc.aio.insecure_channel(proxy, options=_OWN_CONNECTION) as channel:
            stub: Any = text_generation_pb2_grpc.TextGenerationServiceStub(channel)
            await stub.StreamGenerate(request).read()
            return bytes(sent)


# -------------------------------------------------------------------------------- kinds of callers


async def _read_to_the_end(load: Load) -> str:
    request = load.request(load.source.randint(1, 400))
    text = ""
    async for message in load.stub.StreamGenerate(request, timeout=_PATIENCE_SECONDS):
        text += message.response
    return _judged(load, request, text)


async def _whole_answer(load: Load) -> str:
    request = load.request(load.source.randint(1, 100))
    return _judged(load, request, (await load.stub.Generate(request, timeout=_PATIENCE_SECONDS)).response)


def _judged(load: Load, request: pb.GenerateRequest, text: str) -> str:
    load.tokens += request.max_tokens
    expected = islice(greedy_ids(load.prompt_ids[request.prompt]), request.max_tokens)
    return "OK" if ids_of(text) == list(expected) else "wrong tokens"


async def _cancelled(load: Load) -> str:
    call = load.stub.StreamGenerate(load.request(4_000), timeout=_PATIENCE_SECONDS)
    for _ in range(load.source.choice((0, 1, 5, 40))):
        if await call.read() is grpc.aio.EOF:
            break
    call.cancel()
    return str((await call.code()).name)


async def _short_deadline(load: Load) -> str:
    call = load.stub.StreamGenerate(load.request(4_000), timeout=load.source.choice((0.001, 0.02, 0.1, 0.5)))
    async for _ in call:
        pass
    return "OK"


async def _time_limit(load: Load) -> str:
    request = load.request(4_000)
    request.time_limit.FromMilliseconds(load.source.choice((1, 50, 200)))
    return str((await load.stub.Generate(request, timeout=_PATIENCE_SECONDS)).finish_reason)


async def _slow_reader(load: Load) -> str:
    async with grpc.aio.insecure_channel(load.address, options=_SMALL_WINDOW) as channel:
        call = text_generation_pb2_grpc.TextGenerationServiceStub(channel).StreamGenerate(
            load.request(1_000), timeout=_PATIENCE_SECONDS
        )
        message = await call.read()
        while message is not grpc.aio.EOF:
            await asyncio.sleep(0.01)
            message = await call.read()
        return await _told(call)


async def _never_reads(load: Load) -> str:
    """Reads one message, and the rest only when the server has given it up."""
    async with grpc.aio.insecure_channel(load.address, options=_SMALL_WINDOW) as channel:
        call = text_generation_pb2_grpc.TextGenerationServiceStub(channel).StreamGenerate(
            load.request(8_000), timeout=_PATIENCE_SECONDS
        )
        await call.read()
        await asyncio.sleep(STALL_SECONDS + 1)
        while await call.read() is not grpc.aio.EOF:
            pass
        return await _told(call)


async def _told(call: Any) -> str:
    """How a call ended that was read with `read()`, which raises nothing at the end."""
    return str((await call.code()).name)


async def _wrong_request(load: Load) -> str:
    request = load.source.choice(
        (
            pb.GenerateRequest(prompt="Hi", temperature=-1, stop=[""] * 9),
            pb.GenerateRequest(prompt="Hi", model="another"),
            pb.GenerateRequest(prompt="x" * 20_000),
            load.request(10, response_format={"json_schema": '{"type":'}),
        )
    )
    await load.stub.Generate(request, timeout=_PATIENCE_SECONDS)
    return "OK"


async def _unreadable(load: Load) -> str:
    raw: Any = load.channel.unary_unary("/llamarpc.v1.TextGenerationService/Generate")
    await raw(load.source.randbytes(40) + b"\xff", timeout=_PATIENCE_SECONDS)
    return "OK"


async def _with_tools(load: Load) -> str:
    tools = [{"function": {"name": f"f{load.source.randint(1, 500)}", "parameters": _SCHEMA}}]
    await load.stub.Generate(load.request(30, tools=tools), timeout=_PATIENCE_SECONDS)
    return "OK"


async def _with_a_schema(load: Load) -> str:
    # A new schema nearly every time, so that what is kept of them would show.
    schema = _SCHEMA.replace('"a"', f'"a{load.source.randint(1, 10**6)}"')
    request = load.request(30, response_format={"json_schema": schema})
    await load.stub.Generate(request, timeout=_PATIENCE_SECONDS)
    return "OK"


async def _newcomer(load: Load) -> str:
    async with grpc.aio.insecure_channel(load.address, options=_OWN_CONNECTION) as channel:
        stub: Any = text_generation_pb2_grpc.TextGenerationServiceStub(channel)
        await stub.CountTokens(pb.CountTokensRequest(generate_request=load.request(1)), timeout=_PATIENCE_SECONDS)
    return "OK"


async def _vanishes(load: Load) -> str:
    cut = load.source.choice((0, len(load.vanishing_call) // 2, len(load.vanishing_call)))
    await abandon(load.address, load.vanishing_call[:cut], patience_seconds=_PATIENCE_SECONDS)
    return "vanished"


async def _crowd(load: Load) -> str:
    """More at once than there is room for: some are refused, none is lost."""
    calls = [load.stub.Generate(load.request(20), timeout=_PATIENCE_SECONDS) for _ in range(100)]
    ends = await asyncio.gather(*(call.code() for call in calls))
    odd = {end.name for end in ends} - {"OK", "RESOURCE_EXHAUSTED"}
    return "OK" if not odd else str(odd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of caller: how often it comes, and the ends that are right for its calls."""

    name: str
    weight: float
    call: Callable[[Load], Awaitable[str]]
    right_ends: frozenset[str]


def _kind(name: str, weight: float, call: Callable[[Load], Awaitable[str]], *right_ends: str) -> Kind:
    # With a crowd at the door, any call may find no room.
    return Kind(name=name, weight=weight, call=call, right_ends=frozenset({*right_ends, "RESOURCE_EXHAUSTED"}))


KINDS = (
    _kind("read to the end", 30, _read_to_the_end, "OK"),
    _kind("whole answer", 20, _whole_answer, "OK"),
    _kind("cancelled", 15, _cancelled, "CANCELLED"),
    _kind("short deadline", 8, _short_deadline, "OK", "DEADLINE_EXCEEDED"),
    # The limit may pass while the request waits for the engine.
    _kind(
        *("time limit", 3, _time_limit, str(pb.FINISH_REASON_TIME_LIMIT), str(pb.FINISH_REASON_MAX_TOKENS)),
        "DEADLINE_EXCEEDED",
    ),
    # Its window is full of small messages, so on a busy machine none may be taken for as long as nobody's are.
    _kind("slow reader", 1, _slow_reader, "OK", "ABORTED"),
    _kind("never reads", 1, _never_reads, "ABORTED", "OK"),
    _kind("wrong request", 8, _wrong_request, "INVALID_ARGUMENT", "NOT_FOUND"),
    _kind("unreadable message", 2, _unreadable, "INVALID_ARGUMENT"),
    _kind("tools", 3, _with_tools, "OK"),
    _kind("JSON schema", 3, _with_a_schema, "OK"),
    _kind("new connection", 5, _newcomer, "OK"),
    _kind("vanishes", 5, _vanishes, "vanished"),
    _kind("crowd of 100", 0.2, _crowd, "OK"),
)
