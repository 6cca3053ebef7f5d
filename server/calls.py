"""The calls that run now: what is known of each, and how the server ends one before its own end.

Knows neither gRPC nor services. The interceptor opens and closes calls; a service finds its own with `current_call`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .call_record import CallRecord
from .chat.meter import Meter
from .errors import ServiceError
from .token_entries import Caller

if TYPE_CHECKING:
    from .call_trace import CallTrace

Observer = Callable[[CallRecord], None]

_current: ContextVar[Call] = ContextVar("current_call")


def current_call() -> Call:
    """The call that this task works on."""
    return _current.get()


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """One running call. Times are of `time.monotonic`, in seconds."""

    method: str
    request_id: str
    task: asyncio.Task[object]
    started: float = field(default_factory=time.monotonic)
    caller: Caller | None = None
    trace: CallTrace | None = None
    """None where calls are not traced."""
    meter: Meter = field(default_factory=Meter)
    model: str | None = None
    adapter: str | None = None
    queue_seconds: float | None = None
    deadline: float | None = None
    ended_by: ServiceError | None = None
    """Why the server ends the call, once it has decided to."""
    write_began: float | None = None
    """Since when a message waits to be taken by the caller's transport; None while none does."""
    over: bool = False
    """Its status is decided; nothing may end it any more."""

    def seconds_left(self) -> float | None:
        """Until the call's deadline, or the server's limit where that is sooner; None before either is known."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def end(self, error: ServiceError) -> None:
        """Ends the call with an error, at once. The first one counts."""
        if self.ended_by is None and not self.over:
            self.ended_by = error
            self.task.cancel()

    def record(self, *, status: str, reason: str | None) -> CallRecord:
        """The call as it will be remembered."""
        known = self.meter.prompt_tokens is not None
        finish_reason = self.meter.finish_reason
        return CallRecord(
            method=self.method,
            request_id=self.request_id,
            status=status,
            reason=reason,
            caller=None if self.caller is None else self.caller.name,
            model=self.model,
            adapter=self.adapter,
            prompt_tokens=self.meter.prompt_tokens,
            completion_tokens=self.meter.completion_tokens if known else None,
            finish_reason=None if finish_reason is None else finish_reason.name,
            queue_seconds=self.queue_seconds,
            first_token_seconds=self.meter.first_token_seconds,
            duration_seconds=time.monotonic() - self.started,
        )


class Calls:
    """All running calls of this process."""

    def __init__(self) -> None:
        self._running: set[Call] = set()
        self._refusal: ServiceError | None = None

    def __len__(self) -> int:
        return len(self._running)

    @contextmanager
    def open(self, *, method: str, request_id: str) -> Iterator[Call]:
        """Registers a call of the current task while the block runs; in it `current_call()` gives the call."""
        task = asyncio.current_task()
        assert task is not None
        call = Call(method=method, request_id=request_id, task=task)
        self._running.add(call)
        token = _current.set(call)
        try:
            yield call
        finally:
            _current.reset(token)
            self._running.discard(call)

    def refuse_new(self, error: ServiceError) -> None:
        """From now on `check_open` raises this error."""
        self._refusal = error

    def check_open(self) -> None:
        """Raises the error that new calls are refused with, once they are."""
        if self._refusal is not None:
            raise self._refusal

    def end_all(self, error: ServiceError) -> None:
        """Ends every running call with an error."""
        for call in tuple(self._running):
            call.end(error)
