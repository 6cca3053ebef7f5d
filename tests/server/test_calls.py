"""Running calls: found by their task, counted, ended once, remembered."""

from __future__ import annotations

import asyncio

import pytest

from server.call_record import CallRecord
from server.calls import Call, Calls, current_call
from server.chat.model import FinishReason
from server.errors import ShuttingDown, SlowReader
from server.token_entries import Caller


async def until_ended(calls: Calls, opened: asyncio.Event, ended: list[Call]) -> None:
    with calls.open(method="/a/B", request_id="r") as call:
        assert current_call() is call
        opened.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(call)


async def test_a_call_is_ended_by_the_first_error_only() -> None:
    calls, opened, ended = Calls(), asyncio.Event(), list[Call]()
    task = asyncio.create_task(until_ended(calls, opened, ended))
    await opened.wait()
    assert len(calls) == 1
    first = ShuttingDown()
    calls.end_all(first)
    calls.end_all(SlowReader(stalled_seconds=1))
    await task
    assert [call.ended_by for call in ended] == [first]
    assert len(calls) == 0


async def test_a_call_that_is_over_is_not_ended() -> None:
    with Calls().open(method="/a/B", request_id="r") as call:
        call.over = True
        call.end(ShuttingDown())
        await asyncio.sleep(0)
        assert call.ended_by is None


async def test_calls_side_by_side_find_themselves() -> None:
    calls, found = Calls(), dict[str, str]()

    async def one(request_id: str) -> None:
        with calls.open(method="/a/B", request_id=request_id):
            await asyncio.sleep(0)
            found[request_id] = current_call().request_id

    await asyncio.gather(*(one(str(index)) for index in range(5)))
    assert found == {str(index): str(index) for index in range(5)}
    with pytest.raises(LookupError):
        current_call()


async def test_record() -> None:
    with Calls().open(method="/a/B", request_id="r") as call:
        call.caller = Caller(name="search", scopes=frozenset({"inference"}))
        call.meter.completion_tokens = 3
        call.model, call.adapter, call.queue_seconds, call.meter.finish_reason = "m", "poet", 0.5, FinishReason.STOP
        unknown = call.record(status="OK", reason=None)
        assert (unknown.prompt_tokens, unknown.completion_tokens) == (None, None)
        call.meter.prompt_tokens, call.meter.first_token_seconds = 7, 0.25
        record = call.record(status="ABORTED", reason="SLOW_READER")
    assert record.duration_seconds >= 0
    assert record == CallRecord(
        method="/a/B",
        request_id="r",
        status="ABORTED",
        reason="SLOW_READER",
        caller="search",
        model="m",
        adapter="poet",
        prompt_tokens=7,
        completion_tokens=3,
        finish_reason="STOP",
        queue_seconds=0.5,
        first_token_seconds=0.25,
        duration_seconds=record.duration_seconds,
    )
