"""The hand-over: at once for a caller that keeps up, in one go for a slower one, bounded for one that stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from server.chat.token_buffer import open_token_buffer
from server.errors import EngineFailed


class Source:
    """An engine stream that gives its items as fast as they are taken, then an error or the end."""

    def __init__(self, *items: Sequence[int], error: Exception | None = None) -> None:
        self._items = items
        self._error = error
        self.given = 0
        self.closed = False

    async def stream(self) -> AsyncGenerator[Sequence[int], None]:
        try:
            for item in self._items:
                self.given += len(item)
                yield item
            if self._error is not None:
                raise self._error
        finally:
            self.closed = True


async def turns(count: int = 20) -> None:
    """Lets everything that can run do so."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_first_item_is_given_at_once() -> None:
    gate = asyncio.Event()

    async def stream() -> AsyncGenerator[Sequence[int], None]:
        yield [1]
        await gate.wait()
        yield [2, 3]

    async with open_token_buffer(stream(), limit=10) as tokens:
        assert await tokens.take() == [1]
        gate.set()
        assert await tokens.take() == [2, 3]
        assert await tokens.take() is None
        assert await tokens.take() is None


async def test_slow_consumer_gets_everything_in_one_go() -> None:
    async with open_token_buffer(Source([1], [2], [], [3, 4], [5]).stream(), limit=100) as tokens:
        await turns()
        assert await tokens.take() == [1, 2, 3, 4, 5]
        assert await tokens.take() is None


async def test_empty_items_are_not_given() -> None:
    async with open_token_buffer(Source([], [1], []).stream(), limit=10) as tokens:
        assert await tokens.take() == [1]
        assert await tokens.take() is None


@pytest.mark.parametrize(
    ("item_size", "limit", "waiting", "held"),
    [(1, 1, 1, 1), (1, 5, 5, 5), (3, 5, 6, 6), (3, 6, 6, 6), (7, 5, 7, 7), (2, 1, 2, 2)],
)
async def test_bound_is_respected_exactly(item_size: int, limit: int, waiting: int, held: int) -> None:
    """The buffer stops taking at `limit`; the one item that waits to be put is the engine's own."""
    source = Source(*[[0] * item_size] * 50)
    async with open_token_buffer(source.stream(), limit=limit) as tokens:
        await turns()
        assert source.given == waiting + item_size
        assert len(await tokens.take() or []) == held
        await turns()
        assert source.given == 2 * waiting + item_size


async def test_nothing_is_lost_behind_a_full_buffer() -> None:
    items = [[number] for number in range(100)]
    received = []
    async with open_token_buffer(Source(*items).stream(), limit=3) as tokens:
        while (ids := await tokens.take()) is not None:
            received += ids
            await turns(7)
    assert received == list(range(100))


async def test_error_comes_after_what_is_buffered() -> None:
    source = Source([1], [2], error=EngineFailed("broken"))
    async with open_token_buffer(source.stream(), limit=10) as tokens:
        await turns()
        assert await tokens.take() == [1, 2]
        for _ in range(2):
            with pytest.raises(EngineFailed, match="broken"):
                await tokens.take()


@pytest.mark.parametrize("taken", [0, 1, 2])
async def test_leaving_the_block_closes_the_stream(taken: int) -> None:
    source = Source(*[[1]] * 50)
    async with open_token_buffer(source.stream(), limit=2) as tokens:
        for _ in range(taken):
            await tokens.take()
        await turns()
    assert source.closed


async def test_leaving_the_block_closes_a_stream_that_waits() -> None:
    closed = asyncio.Event()

    async def stream() -> AsyncGenerator[Sequence[int], None]:
        try:
            yield [1]
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # closing may itself need the event loop
            closed.set()

    async with open_token_buffer(stream(), limit=2) as tokens:
        await tokens.take()
    assert closed.is_set()


async def test_error_inside_the_block_closes_the_stream() -> None:
    source = Source(*[[1]] * 50)

    async def fail_inside() -> None:
        async with open_token_buffer(source.stream(), limit=2) as tokens:
            await tokens.take()
            raise KeyError

    with pytest.raises(KeyError):
        await fail_inside()
    assert source.closed


async def test_stream_that_is_cancelled_from_within_is_no_hang() -> None:
    """As grpc.aio does to the reads of a channel that is being closed."""

    async def stream() -> AsyncGenerator[Sequence[int], None]:
        yield [1]
        raise asyncio.CancelledError

    async with open_token_buffer(stream(), limit=2) as tokens:
        assert await tokens.take() == [1]
        taking = asyncio.ensure_future(tokens.take())
        await turns()
        was_done = taking.done()
        taking.cancel()
        (result,) = await asyncio.gather(taking, return_exceptions=True)
        assert was_done, "the consumer waits for ever"
        assert result is not None, "an answer that was broken off must not look complete"
