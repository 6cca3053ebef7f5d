"""Streams that lose their replica: whatever the breaks, callers get the ids of the unbroken stream, each once."""

from __future__ import annotations

import asyncio
import logging
import time
from array import array
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from server.chat.engine import EngineRequest
from server.chat.model import Sampling
from server.errors import DeadlineExceeded, EngineBusy, EngineFailed, EngineUnavailable, GuideRefused, ServiceError
from server.triton import resume
from server.triton.engine import TritonEngine
from server.triton.resume import ResumingEngine, seed_after
from tests.fakes import PATIENCE_SECONDS, Abort, FakeTriton, Final, ScriptedEngine, Step, running_triton

REQUEST = EngineRequest(
    request_id="r-1",
    prompt_ids=[1, 2, 3],
    max_tokens=6,
    end_id=900,
    pad_id=900,
    stop_ids=(901,),
    sampling=Sampling(
        temperature=0.0, top_p=1.0, top_k=0, seed=7, repetition_penalty=1.0, frequency_penalty=0, presence_penalty=0
    ),
    timeout_seconds=PATIENCE_SECONDS,
)
LOST = EngineUnavailable("Socket closed")
WAITS_SECONDS = resume._WAITS_SECONDS


@pytest.fixture(scope="module", autouse=True)
def _no_waits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume, "_WAITS_SECONDS", (0.0,) * len(WAITS_SECONDS))
        yield


def greedy(prompt_ids: Sequence[int], count: int) -> list[int]:
    """What the fakes generate: each id follows from all before it, as with a model at temperature 0."""
    sequence = list(prompt_ids)
    for _ in range(count):
        sequence.append((31 * sequence[-1] + 7 * len(sequence) + sum(sequence)) % 800)
    return sequence[len(prompt_ids) :]


class BreakingEngine(ScriptedEngine):
    """Generates `greedy` ids, `chunk` at a time. Attempt n is lost after `breaks[n]` ids, those beyond never."""

    def __init__(self, breaks: Iterable[int], *, chunk: int = 1, error: Exception = LOST) -> None:
        super().__init__(self._steps)
        self._breaks = iter(breaks)
        self._chunk = chunk
        self._error = error

    def _steps(self, request: EngineRequest) -> Iterator[Step]:
        limit = next(self._breaks, None)
        ids = greedy(request.prompt_ids, request.max_tokens if limit is None else limit)
        for start in range(0, len(ids), self._chunk):
            yield ids[start : start + self._chunk]
        if limit is not None:
            yield self._error

    async def aclose(self) -> None:
        """Nothing to close."""


async def ids_of(engine: ResumingEngine, request: EngineRequest = REQUEST) -> list[int]:
    async with aclosing(engine.stream(request)) as stream:
        return [token async for ids in stream for token in ids]


@pytest.mark.parametrize("chunk", [1, 2, 3])
@pytest.mark.parametrize("count", range(REQUEST.max_tokens))
async def test_a_break_after_any_number_of_ids(count: int, chunk: int) -> None:
    engine = BreakingEngine([count], chunk=chunk)
    resuming = ResumingEngine(engine)
    expected = greedy(REQUEST.prompt_ids, REQUEST.max_tokens)
    assert await ids_of(resuming) == expected
    first, second = engine.requests
    assert first == REQUEST
    assert second.timeout_seconds is not None
    assert PATIENCE_SECONDS - 5 < second.timeout_seconds < PATIENCE_SECONDS
    assert second == replace(
        REQUEST,
        request_id="r-1-try2",
        prompt_ids=[*REQUEST.prompt_ids, *expected[:count]],
        max_tokens=REQUEST.max_tokens - count,
        sampling=replace(REQUEST.sampling, seed=seed_after(7, count)),
        timeout_seconds=second.timeout_seconds,
    )
    assert resuming.resumed == 1


class PlayingEngine(BreakingEngine):
    """Plays these steps, also beyond `max_tokens`: a Triton may be lost between its last id and its final response."""

    def __init__(self, *steps: Step) -> None:
        super().__init__([])
        self._all_steps = steps

    async def _play(self, request: EngineRequest) -> AsyncIterator[list[int]]:
        for step in self._all_steps:
            if isinstance(step, Exception):
                raise step
            assert not isinstance(step, asyncio.Event)
            yield list(step)


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param([5] * REQUEST.max_tokens, id="the_budget_is_used_up"),
        pytest.param([5, REQUEST.end_id], id="the_end_id_has_come"),
        pytest.param([5, 6, *REQUEST.stop_ids], id="a_stop_id_has_come"),
    ],
)
async def test_a_break_when_all_is_there_ends_the_stream(ids: list[int]) -> None:
    engine = PlayingEngine(ids, LOST)
    assert await ids_of(ResumingEngine(engine)) == ids
    assert len(engine.requests) == 1


@given(
    breaks=st.lists(st.integers(0, 12), max_size=8),
    chunk=st.integers(1, 5),
    max_tokens=st.integers(1, 40),
    prompt=st.lists(st.integers(0, 799), min_size=1, max_size=5),
)
def test_whatever_the_breaks_the_ids_are_those_of_the_unbroken_stream(
    breaks: list[int], chunk: int, max_tokens: int, prompt: list[int]
) -> None:
    request = replace(REQUEST, prompt_ids=prompt, max_tokens=max_tokens)
    engine = BreakingEngine(breaks, chunk=chunk)
    assert asyncio.run(ids_of(ResumingEngine(engine), request)) == greedy(prompt, max_tokens)
    assert len({each.request_id for each in engine.requests}) == len(engine.requests)
    assert all(len(each.prompt_ids) + each.max_tokens == len(prompt) + max_tokens for each in engine.requests)


async def test_tries_without_progress_are_bounded() -> None:
    engine = BreakingEngine([2] + [0] * 100)
    resuming = ResumingEngine(engine)
    stream = resuming.stream(REQUEST)
    assert [token for _ in range(2) for token in await anext(stream)] == greedy(REQUEST.prompt_ids, 2)
    with pytest.raises(EngineUnavailable, match="Socket closed"):
        await anext(stream)
    assert len(engine.requests) == 1 + len(WAITS_SECONDS)
    assert resuming.resumed == 0  # none of the tries brought anything


async def test_tries_with_progress_are_not() -> None:
    engine = BreakingEngine([1] * 99)
    resuming = ResumingEngine(engine)
    request = replace(REQUEST, max_tokens=100)
    assert await ids_of(resuming, request) == greedy(REQUEST.prompt_ids, 100)
    assert resuming.resumed == 99


def test_waits() -> None:
    assert WAITS_SECONDS[0] == 0
    assert sum(WAITS_SECONDS) < 1


@pytest.mark.parametrize("count", [0, 1, 5])
async def test_a_guide_is_followed_anew_only_before_its_first_id(count: int) -> None:
    engine = BreakingEngine([count])
    resuming = ResumingEngine(engine)
    request = replace(REQUEST, guide='root ::= "a"')
    if count == 0:
        assert await ids_of(resuming, request) == greedy(REQUEST.prompt_ids, REQUEST.max_tokens)
        assert engine.requests[1].guide == request.guide
    else:
        with pytest.raises(EngineUnavailable):
            await ids_of(resuming, request)
        assert len(engine.requests) == 1


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize(
    "error", [EngineFailed("broken"), EngineBusy("full"), DeadlineExceeded(), GuideRefused("too many ways")]
)
async def test_other_errors_reach_the_caller(count: int, error: ServiceError) -> None:
    engine = BreakingEngine([count], error=error)
    with pytest.raises(type(error)):
        await ids_of(ResumingEngine(engine))
    assert len(engine.requests) == 1


async def test_without_a_deadline_there_is_none_later() -> None:
    engine = BreakingEngine([3])
    await ids_of(ResumingEngine(engine), replace(REQUEST, timeout_seconds=None))
    assert [each.timeout_seconds for each in engine.requests] == [None, None]


async def test_closing_the_stream_ends_the_attempt_that_runs() -> None:
    engine = BreakingEngine([1])
    stream = ResumingEngine(engine).stream(REQUEST)
    for _ in range(3):
        await anext(stream)
    assert (len(engine.requests), engine.running) == (2, 1)
    await stream.aclose()
    assert engine.running == 0


async def test_what_is_told_of_a_resume(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []
    resuming = ResumingEngine(BreakingEngine([2, 0, 1]), on_resume=lambda: calls.append(resuming.resumed))
    with caplog.at_level(logging.DEBUG, logger=resume.__name__):
        await ids_of(resuming)
    assert calls == [1, 2]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert [record.getMessage() for record in caplog.records] == [
        "request r-1 goes on after 2 tokens, at try 3: the engine is not available: Socket closed",
        "request r-1 goes on after 3 tokens, at try 4: the engine is not available: Socket closed",
    ]


async def test_the_rest_is_the_engine_s() -> None:
    engine = BreakingEngine([])
    engine.ready, engine.differences = False, ["another context"]
    resuming = ResumingEngine(engine)
    assert resuming.address == engine.address
    assert await resuming.is_ready(timeout_seconds=1) is False
    assert await resuming.contract_differences(timeout_seconds=1) == ["another context"]


def test_seeds() -> None:
    most = 2**64 - 1
    for seed in (0, 1, 9_999_999_999, most):
        assert seed_after(seed, 0) == seed
        later = [seed_after(seed, count) for count in range(10_000)]
        assert len(set(later)) == len(later)
        assert all(0 <= each <= most for each in later)


# -------------------------------------------------------------------------------- with Tritons on sockets


@asynccontextmanager
async def open_engine(*addresses: str) -> AsyncIterator[ResumingEngine]:
    target = "ipv4:" + ",".join(addresses)
    engine = ResumingEngine(TritonEngine(target, model_name="tensorrt_llm", context_length=8192))
    try:
        yield engine
    finally:
        await engine.aclose()


async def test_another_replica_takes_over() -> None:
    gate = asyncio.Event()
    tritons = [FakeTriton([5], [6], gate, Final([7])) for _ in range(2)]
    async with AsyncExitStack() as first, AsyncExitStack() as second:
        running = list(zip((first, second), tritons, strict=True))
        addresses = [await stack.enter_async_context(running_triton(triton)) for stack, triton in running]
        async with open_engine(*addresses) as engine, aclosing(engine.stream(REQUEST)) as stream:
            assert [list(await anext(stream)) for _ in range(2)] == [[5], [6]]
            dying = next(index for index, each in enumerate(tritons) if each.running)
            await running[dying][0].aclose()
            gate.set()
            assert [list(ids) async for ids in stream] == [[5], [6], [7]]
    (request,) = tritons[1 - dying].requests
    assert (input_of(request, "input_ids"), request.id) == ([1, 2, 3, 5, 6], "r-1-try2")
    assert input_of(request, "request_output_len") == [REQUEST.max_tokens - 2]


def input_of(request: service_pb2.ModelInferRequest, name: str) -> list[int]:
    index = [each.name for each in request.inputs].index(name)
    return list(array("i", request.raw_input_contents[index]))


async def test_a_replica_that_refuses_is_tried_again_elsewhere() -> None:
    sick = FakeTriton(Abort(grpc.StatusCode.INTERNAL, "Stub process 'tensorrt_llm' is not healthy."))
    well = FakeTriton([5], Final([6]))
    async with running_triton(sick) as first, running_triton(well) as second, open_engine(first, second) as engine:
        assert [await ids_of(engine) for _ in range(20)] == [[5, 6]] * 20
    assert sick.requests, "round_robin asks both"


async def test_no_replica_at_all_is_told_soon() -> None:
    async with running_triton(FakeTriton()) as first, running_triton(FakeTriton()) as second:
        pass
    start = time.monotonic()
    async with open_engine(first, second) as engine:
        with pytest.raises(EngineUnavailable):
            await ids_of(engine)
    assert time.monotonic() - start < 2


async def test_closing_the_engine_is_not_resumed() -> None:
    triton = FakeTriton([5], asyncio.Event())
    async with running_triton(triton) as address, open_engine(address) as engine:
        stream = engine.stream(REQUEST)
        assert list(await anext(stream)) == [5]
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await engine.aclose()
        (error,) = await asyncio.wait_for(asyncio.gather(reading, return_exceptions=True), PATIENCE_SECONDS)
        assert type(error) is EngineUnavailable
        with pytest.raises(EngineUnavailable, match="shutting down"):
            await ids_of(engine)
    assert len(triton.requests) == 1
