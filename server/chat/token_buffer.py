"""The hand-over between the engine's pace and the caller's: a bounded buffer of token ids.

Knows nothing of text or engines. A caller that keeps up gets each item at once; one that is slower gets everything
that waits in one go; one that stops reading holds up its own engine stream when the buffer is full, and nobody
else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

_CANCEL_SECONDS = 1.0


class TokenBuffer:
    """One producer, one consumer, one event loop. Holds fewer than `limit` ids plus one item of the engine's."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ids: list[int] = []
        self._ended = False
        self._error: BaseException | None = None
        self._filled = asyncio.Event()
        self._has_room = asyncio.Event()

    async def put(self, ids: Sequence[int]) -> None:
        """Adds ids, after waiting for room."""
        while len(self._ids) >= self._limit:
            self._has_room.clear()
            await self._has_room.wait()
        self._ids.extend(ids)
        self._filled.set()

    def end(self, error: BaseException | None = None) -> bool:
        """Nothing more comes. An error reaches the consumer after what is buffered. Whether it had not ended before."""
        if self._ended:
            return False
        self._ended = True
        self._error = error
        self._filled.set()
        return True

    async def take(self) -> list[int] | None:
        """All ids that wait, at least one; None at the end. Raises the producer's error."""
        while not self._ids and not self._ended:
            self._filled.clear()
            await self._filled.wait()
        if self._ids:
            ids, self._ids = self._ids, []
            self._has_room.set()
            return ids
        if self._error is not None:
            raise self._error
        return None


@asynccontextmanager
async def open_token_buffer(stream: AsyncGenerator[Sequence[int], None], *, limit: int) -> AsyncIterator[TokenBuffer]:
    """Fills a buffer from an engine stream in the background; leaving the block closes the stream."""
    buffer = TokenBuffer(limit)
    reader = asyncio.create_task(_fill(buffer, stream))
    try:
        yield buffer
    finally:
        while not reader.done():  # a cancellation may get lost to one of the stream's own that comes at the same moment
            reader.cancel()
            await asyncio.wait([reader], timeout=_CANCEL_SECONDS)


async def _fill(buffer: TokenBuffer, stream: AsyncGenerator[Sequence[int], None]) -> None:
    try:
        async with aclosing(stream):
            async for ids in stream:
                await buffer.put(ids)
    except Exception as error:
        buffer.end(error)
    except asyncio.CancelledError as error:  # by us, and nobody listens any more, or inside the stream itself
        buffer.end(error)
        raise
    else:
        buffer.end()
