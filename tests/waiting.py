"""The one place where tests wait for something that nothing announces: poll until it is so, with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

_POLL_SECONDS = 0.01


async def until(condition: Callable[[], bool | Awaitable[bool]], *, seconds: float, what: str) -> float:
    """Waits until the condition holds; gives the seconds it took. Fails the test after `seconds`."""
    start = time.monotonic()
    while True:
        holds = condition()
        if isinstance(holds, Awaitable):
            holds = await holds
        waited = time.monotonic() - start
        if holds:
            return waited
        assert waited < seconds, f"not so within {seconds} s: {what}"
        await asyncio.sleep(_POLL_SECONDS)
