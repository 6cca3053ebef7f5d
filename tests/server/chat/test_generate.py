"""The pipeline with a scripted engine: which events come, what the engine is asked, and that its slot is freed."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import Any

import pytest

from server.chat.generate import TextGenerator
from server.chat.guides import guide_of
from server.chat.model import (
    Conversation,
    Event,
    Finished,
    FinishReason,
    FunctionTool,
    GenerationRequest,
    Message,
    RawPrompt,
    ReplyShape,
    Role,
    Sampling,
    Started,
    Text,
    ToolCall,
    ToolCallDelta,
)
from server.chat.prompt_formats import CHATML
from server.chat.rendering import PromptRenderer
from server.chat.tokenizer import Tokenizer
from server.chat.tool_text import calls_text
from server.errors import EngineBusy, EngineFailed, EngineUnavailable, InvalidRequest, PromptTooLong
from tests.fakes import IM_END, ScriptedEngine, byte_tokenizer, eventually

RENDERER = PromptRenderer(tokenizer=Tokenizer(byte_tokenizer()), prompt_format=CHATML, default_system_prompt="")
SAMPLING = Sampling(
    temperature=0.6, top_p=1.0, top_k=0, seed=7, repetition_penalty=1.0, frequency_penalty=0.0, presence_penalty=0.0
)


def generator(engine: ScriptedEngine, *, context_length: int = 100, buffer_tokens: int = 8) -> TextGenerator:
    return TextGenerator(
        renderer=RENDERER,
        engine=engine,
        end_ids=(IM_END, 256),
        pad_id=0,
        context_length=context_length,
        buffer_tokens=buffer_tokens,
    )


def request(**changes: Any) -> GenerationRequest:
    fields: dict[str, Any] = {"request_id": "r", "prompt": RawPrompt(text="0123456789"), "prompt_field": "prompt"}
    return GenerationRequest(**{**fields, "max_tokens": 50, "sampling": SAMPLING, "stop": (), **changes})


async def events_of(engine: ScriptedEngine, *, context_length: int = 100, **changes: Any) -> list[Event]:
    stream = generator(engine, context_length=context_length).generate(request(**changes))
    return [event async for event in stream]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


async def test_started_texts_finished() -> None:
    engine = ScriptedEngine([b"he", b"llo", b"\xf0\x9f", "🎉".encode()[2:]])
    first, *texts, last = await events_of(engine)
    assert first == Started(prompt_tokens=10)
    assert all(isinstance(event, Text) and event.text for event in texts)
    assert text_of(texts) == "hello🎉"
    assert isinstance(last, Finished)
    assert (last.finish_reason, last.stop_sequence) == (FinishReason.STOP, None)
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (10, 9)
    assert last.first_token_seconds is not None
    assert 0 <= last.first_token_seconds <= last.duration_seconds


async def test_each_text_is_shown_before_the_engine_goes_on() -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    engine = ScriptedEngine([gates[0], b"a", gates[1], b"b"])
    async with aclosing(generator(engine).generate(request())) as events:
        gates[0].set()
        assert isinstance(await anext(events), Started)
        assert await anext(events) == Text(text="a")
        gates[1].set()
        assert await anext(events) == Text(text="b")


async def test_what_waits_for_a_slow_caller_is_one_text() -> None:
    engine = ScriptedEngine([bytes([byte]) for byte in b"abcdefg"])
    async with aclosing(generator(engine).generate(request())) as events:
        assert isinstance(await anext(events), Started)
        for _ in range(50):
            await asyncio.sleep(0)
        rest = [event async for event in events]
    assert [event.text for event in rest if isinstance(event, Text)] == ["a", "bcdefg"]


async def test_what_the_engine_is_asked() -> None:
    engine = ScriptedEngine()
    prompt = Conversation(messages=(Message(role=Role.USER, content="Hi"),))
    await events_of(engine, prompt=prompt, request_id="me", timeout_seconds=2.5)
    (asked,) = engine.requests
    assert asked.prompt_ids == RENDERER.encode(prompt)
    assert (asked.sampling, asked.timeout_seconds) == (SAMPLING, 2.5)
    assert (asked.max_tokens, asked.end_id, asked.stop_ids, asked.pad_id) == (50, IM_END, (256,), 0)


async def test_engine_never_sees_an_id_twice() -> None:
    engine = ScriptedEngine()
    for _ in range(3):
        await events_of(engine, request_id="me")
    ids = {asked.request_id for asked in engine.requests}
    assert len(ids) == 3
    assert all(id_.startswith("me-") for id_ in ids)


@pytest.mark.parametrize(
    ("max_tokens", "context_length", "budget", "reason"),
    [
        (5, 100, 5, FinishReason.MAX_TOKENS),
        (90, 100, 90, FinishReason.MAX_TOKENS),
        (91, 100, 90, FinishReason.CONTEXT_LENGTH),
        (2**31 - 1, 100, 90, FinishReason.CONTEXT_LENGTH),
        (1, 11, 1, FinishReason.MAX_TOKENS),
        (2, 11, 1, FinishReason.CONTEXT_LENGTH),
    ],
)
async def test_budget_is_capped_by_the_context(
    max_tokens: int, context_length: int, budget: int, reason: FinishReason
) -> None:
    engine = ScriptedEngine([b"x" * 7] * 50)
    *texts, last = await events_of(engine, context_length=context_length, max_tokens=max_tokens)
    assert engine.requests[0].max_tokens == budget
    assert text_of(texts) == "x" * budget
    assert isinstance(last, Finished)
    assert (last.finish_reason, last.usage.completion_tokens) == (reason, budget)


@pytest.mark.parametrize("context_length", [1, 9, 10])
async def test_prompt_that_fills_the_context(context_length: int) -> None:
    engine = ScriptedEngine()
    with pytest.raises(PromptTooLong) as caught:
        await events_of(engine, context_length=context_length, prompt_field="messages")
    assert engine.requests == []
    assert (caught.value.field, caught.value.prompt_tokens) == ("messages", 10)
    assert caught.value.context_length == context_length


async def test_stop_string_ends_the_engines_work() -> None:
    engine = ScriptedEngine([b"so", b"me ST", b"OP", *[b"more"] * 10, asyncio.Event()])
    *texts, last = await events_of(engine, stop=("STOP",))
    assert engine.running == 0
    assert text_of(texts) == "some "
    assert isinstance(last, Finished)
    assert (last.finish_reason, last.stop_sequence) == (FinishReason.STOP_SEQUENCE, "STOP")
    assert last.usage.completion_tokens == 9


async def test_engines_slot_is_free_before_the_last_events() -> None:
    engine = ScriptedEngine([b"aEN", [IM_END], asyncio.Event()])
    async with aclosing(generator(engine).generate(request(stop=("END",)))) as events:
        seen = [await anext(events), await anext(events), await anext(events)]
        assert seen[1:] == [Text(text="a"), Text(text="EN")]
        assert engine.running == 0


@pytest.mark.parametrize("taken", [1, 2, 3])
async def test_closing_the_generator_frees_the_engines_slot(taken: int) -> None:
    engine = ScriptedEngine([b"a", b"b", asyncio.Event()])
    async with aclosing(generator(engine).generate(request())) as events:
        for _ in range(min(taken, 2)):
            await anext(events)
        assert engine.running == 1
    assert engine.running == 0


async def test_cancelling_the_caller_frees_the_engines_slot() -> None:
    engine = ScriptedEngine([asyncio.Event()])
    calling = asyncio.create_task(events_of(engine))
    await eventually(lambda: engine.running == 1, what="the engine works")
    calling.cancel()
    await asyncio.wait([calling])
    assert (calling.cancelled(), engine.running) == (True, 0)


@pytest.mark.parametrize(
    "error", [EngineUnavailable("away"), EngineBusy("full"), EngineFailed("broken"), RuntimeError("defect")]
)
@pytest.mark.parametrize("text_first", [b"", b"some"])
async def test_engine_errors_come_after_the_text_before_them(error: Exception, text_first: bytes) -> None:
    engine = ScriptedEngine([text_first, error])
    seen: list[Event] = []

    async def read() -> None:
        async for event in generator(engine).generate(request()):
            seen.append(event)

    with pytest.raises(type(error)) as caught:
        await read()
    assert caught.value is error
    assert text_of(seen) == text_first.decode()
    assert bool(seen) == bool(text_first), "nothing is sent before the engine has taken the request"
    assert engine.running == 0


async def test_empty_answer() -> None:
    first, last = await events_of(ScriptedEngine([b""]))
    assert first == Started(prompt_tokens=10)
    assert isinstance(last, Finished)
    assert (last.finish_reason, last.first_token_seconds) == (FinishReason.STOP, None)
    assert last.usage.completion_tokens == 0


async def test_a_prompt_without_any_token_is_the_callers_fault() -> None:
    with pytest.raises(InvalidRequest, match="prompt: gives no token at all"):
        await events_of(ScriptedEngine(), prompt=RawPrompt(text=""))


FUNCTION = FunctionTool(name="f", description="", parameters='{"type": "object", "properties": {}}')
CALL = calls_text([ToolCall(id="", name="f", arguments="{}")]).encode()


async def test_tool_calls_come_in_pieces_and_whole() -> None:
    shape = ReplyShape(text=None, functions=(FUNCTION,), single_call=True)
    engine = ScriptedEngine([bytes([byte]) for byte in CALL])
    started, *deltas, last = await events_of(engine, shape=shape, max_tokens=90)
    assert isinstance(started, Started)
    assert isinstance(last, Finished)
    (call,) = last.tool_calls
    assert deltas[0] == ToolCallDelta(index=0, id=call.id, name="f")
    assert "".join(each.arguments for each in deltas if isinstance(each, ToolCallDelta)) == call.arguments == "{}"
    assert (last.finish_reason, last.usage.completion_tokens) == (FinishReason.TOOL_CALLS, len(CALL))


async def test_the_engine_is_told_the_guide_and_the_adapter() -> None:
    engine = ScriptedEngine([CALL])
    shape = ReplyShape(text=None, functions=(FUNCTION,))
    await events_of(engine, shape=shape, guide=guide_of(shape), adapter_id=3, max_tokens=90)
    await events_of(engine)
    guided, free = engine.requests
    assert (guided.guide, guided.adapter_id) == (guide_of(shape), 3)
    assert (free.guide, free.adapter_id) == (None, None)


async def test_ids_of_calls_differ_from_request_to_request() -> None:
    engine = ScriptedEngine([CALL])
    answers = [(await events_of(engine, shape=ReplyShape(text=None, functions=(FUNCTION,))))[-1] for _ in range(2)]
    ids = {call.id for answer in answers if isinstance(answer, Finished) for call in answer.tool_calls}
    assert len(ids) == 2


@pytest.mark.parametrize(("script", "text"), [([b"some"], "some"), ([], "")], ids=["after_some_text", "before_any"])
async def test_time_limit_ends_the_answer_and_the_engines_work(script: list[bytes], text: str) -> None:
    engine = ScriptedEngine([*script, asyncio.Event()])
    first, *texts, last = await events_of(engine, time_limit_seconds=0.02, stop=("e!",))
    assert isinstance(first, Started)
    assert text_of(texts) == text
    assert isinstance(last, Finished)
    assert (last.finish_reason, engine.running) == (FinishReason.TIME_LIMIT, 0)
    assert last.usage.completion_tokens == len(text)


async def test_the_time_limit_counts_from_the_arrival() -> None:
    engine = ScriptedEngine([asyncio.Event()])
    *_, last = await events_of(engine, time_limit_seconds=60.0, arrival=time.monotonic() - 61)
    assert isinstance(last, Finished)
    assert last.finish_reason is FinishReason.TIME_LIMIT
    assert last.duration_seconds > 60


async def test_an_answer_within_its_time_limit_is_as_without() -> None:
    *texts, last = await events_of(ScriptedEngine([b"some"]), time_limit_seconds=60.0)
    assert isinstance(last, Finished)
    assert (text_of(texts), last.finish_reason) == ("some", FinishReason.STOP)
