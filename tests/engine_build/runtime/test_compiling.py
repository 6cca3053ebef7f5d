"""Requests whose guides are being compiled: each ends or goes on, exactly once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine_build.llama_cpp.runtime.compiling import Compiling, UncompiledRequest
from engine_build.llama_cpp.runtime.errors import RequestError
from engine_build.llama_cpp.runtime.generation import Event, Failed, Generation, Tokens
from engine_build.llama_cpp.runtime.requests import GenerationRequest

REQUEST = GenerationRequest(prompt=(1,), max_new_tokens=5)
CANCELLED = Tokens(final=True)
CLOSING = Failed(message="the engine is shutting down", unavailable=True)
PATIENCE_SECONDS = 20


class Caller:
    """One request and all that becomes of it. Compiles at once, or when `go_on` says so."""

    def __init__(self, request_id: str = "", *, slow: bool = False, error: Exception | None = None) -> None:
        self.request_id = request_id
        self.gone = False
        self.compiles = 0
        self.events: list[Event] = []
        self.submitted: list[Generation] = []
        self.begun, self.settled, self.may_go_on = threading.Event(), threading.Event(), threading.Event()
        self.before_end_of_submit: Callable[[], object] = lambda: None
        self._error = error
        if not slow:
            self.may_go_on.set()

    def request(self) -> UncompiledRequest:
        return UncompiledRequest(
            request_id=self.request_id,
            compile=self._compile,
            submit=self._submit,
            is_cancelled=lambda: self.gone,
            end=self._end,
        )

    def wait(self) -> None:
        assert self.settled.wait(PATIENCE_SECONDS)

    def _compile(self) -> GenerationRequest:
        self.compiles += 1
        self.begun.set()
        assert self.may_go_on.wait(PATIENCE_SECONDS)
        if self._error:
            raise self._error
        return REQUEST

    def _submit(self, request: GenerationRequest) -> Generation:
        generation = Generation(request, lambda _: None, request_id=self.request_id, vocabulary_size=10)
        self.submitted.append(generation)
        self.before_end_of_submit()
        self.settled.set()
        return generation

    def _end(self, event: Event) -> None:
        self.events.append(event)
        self.settled.set()


class Bench:
    """One thread, room for three to wait."""

    def __init__(self) -> None:
        self.cancelled: list[Generation] = []
        self.compiling = Compiling(self.cancelled.append, threads=1, most_waiting=3)

    def add(self, *callers: Caller) -> None:
        for caller in callers:
            self.compiling.add(caller.request())

    def add_slow(self) -> Caller:
        """One that holds the thread."""
        slow = Caller("slow", slow=True)
        self.add(slow)
        assert slow.begun.wait(PATIENCE_SECONDS)
        return slow


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.compiling.close()


def test_goes_on_when_compiled(bench: Bench) -> None:
    caller = Caller()
    bench.add(caller)
    caller.wait()
    bench.compiling.close()
    assert (len(caller.submitted), caller.events, bench.cancelled) == (1, [], [])


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (RequestError("guided_decoding_guide: bad"), Failed(message="guided_decoding_guide: bad", invalid=True)),
        (KeyError("oh"), Failed(message="cannot take the request: KeyError('oh')")),
    ],
)
def test_errors_end_it(bench: Bench, error: Exception, event: Failed) -> None:
    caller = Caller(error=error)
    bench.add(caller)
    caller.wait()
    bench.compiling.close()
    assert (caller.submitted, caller.events) == ([], [event])


def test_stopped_while_it_waits(bench: Bench) -> None:
    """It ends at once, others don't."""
    slow, stopped, other = bench.add_slow(), Caller("a"), Caller("b")
    bench.add(stopped, other)
    bench.compiling.stop("a")
    bench.compiling.stop("a")
    assert (stopped.events, stopped.compiles) == ([CANCELLED], 0)
    slow.may_go_on.set()
    other.wait()
    assert (len(slow.submitted), len(other.submitted), len(stopped.events)) == (1, 1, 1)


def test_stopped_while_it_is_compiled(bench: Bench) -> None:
    slow = bench.add_slow()
    bench.compiling.stop("slow")
    assert slow.events == []
    slow.may_go_on.set()
    slow.wait()
    bench.compiling.close()
    assert (slow.submitted, slow.events) == ([], [CANCELLED])


def test_stopped_while_it_is_submitted(bench: Bench) -> None:
    """The scheduler's own `stop` may have come too early for it."""
    caller = Caller("a")
    caller.before_end_of_submit = lambda: bench.compiling.stop("a")
    bench.add(caller)
    caller.wait()
    bench.compiling.close()
    assert (caller.events, bench.cancelled) == ([], caller.submitted)


def test_callers_that_have_gone(bench: Bench) -> None:
    slow, waiting = bench.add_slow(), Caller()
    bench.add(waiting)
    slow.gone = waiting.gone = True
    slow.may_go_on.set()
    waiting.wait()
    assert (slow.submitted, slow.events) == ([], [CANCELLED])
    assert (waiting.compiles, waiting.events) == (0, [CANCELLED])


def test_too_many(bench: Bench) -> None:
    slow = bench.add_slow()
    waiting = [Caller("w") for _ in range(3)]
    one_more, later = Caller(), Caller()
    bench.add(*waiting, one_more)
    full = Failed(message="the maximum queue size of 3 guides is reached", unavailable=True)
    assert one_more.events == [full]
    bench.compiling.stop("w")
    bench.add(later)
    slow.may_go_on.set()
    later.wait()
    assert len(later.submitted) == 1


def test_close_waits_for_what_runs_and_for_nothing_else(bench: Bench) -> None:
    slow = bench.add_slow()
    waiting = [Caller() for _ in range(3)]
    bench.add(*waiting)
    answered: list[Any] = []

    def close() -> None:
        bench.compiling.close()
        answered.extend(slow.submitted)

    closing = threading.Thread(target=close)
    closing.start()
    for caller in waiting:
        caller.wait()
    assert answered == []
    slow.may_go_on.set()
    closing.join(PATIENCE_SECONDS)
    assert answered == slow.submitted != []
    late = Caller()
    bench.add(late)
    assert [caller.events for caller in (*waiting, late)] == [[CLOSING]] * 4
    assert [caller.compiles for caller in waiting] == [0] * 3
