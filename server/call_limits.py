"""Ends calls that take too long, and streams that nobody reads. Timers on the event loop; knows no gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .calls import Call
from .errors import CallTooLong, SlowReader


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """In seconds: how long a call may take, and how long a caller may leave a message unread."""

    call_seconds: float
    stall_seconds: float


@contextmanager
def limited_time(call: Call, limits: CallLimits, *, deadline_seconds: float | None) -> Iterator[None]:
    """Ends the call with CallTooLong after `call_seconds`, unless the deadline (seconds from now) comes sooner."""
    seconds = limits.call_seconds if deadline_seconds is None else min(limits.call_seconds, deadline_seconds)
    call.deadline = time.monotonic() + seconds
    if seconds < limits.call_seconds:
        yield  # gRPC ends the call itself
        return
    loop = asyncio.get_running_loop()
    timer = loop.call_later(seconds, call.end, CallTooLong(limit_seconds=seconds))
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def watched_reader(call: Call, limits: CallLimits) -> Iterator[None]:
    """Ends a stream with SlowReader when one message waits for `stall_seconds` to be taken.

    One timer for a stream, which looks at the time that its writer leaves in `call.write_began`: a timer for each
    message would cost more than the message.
    """
    watch = _StallWatch(call, limits.stall_seconds)
    watch.look()
    try:
        yield
    finally:
        watch.stop()


class _StallWatch:
    def __init__(self, call: Call, seconds: float) -> None:
        self._call = call
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None

    def look(self) -> None:
        began = self._call.write_began
        waited = 0.0 if began is None else time.monotonic() - began
        if waited >= self._seconds:
            self._call.end(SlowReader(stalled_seconds=self._seconds))
        else:
            self._timer = asyncio.get_running_loop().call_later(self._seconds - waited, self.look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
