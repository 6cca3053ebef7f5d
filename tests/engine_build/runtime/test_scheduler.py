"""Continuous batching with a model that counts: after id n comes n + 1, and 10 times the adapter's number more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from engine_build.llama_cpp.runtime.generation import Event, Failed, Generation, Tokens
from engine_build.llama_cpp.runtime.language_model import DecodeError, Row
from engine_build.llama_cpp.runtime.requests import GenerationRequest
from engine_build.llama_cpp.runtime.sampling import Logits
from engine_build.llama_cpp.runtime.scheduler import Counts, Scheduler

VOCABULARY = 1000


class CountingModel:
    """Keeps every slot's sequence as a language model does, and checks that positions have no gap."""

    vocabulary_size = VOCABULARY

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.sequences: list[list[int]] = [[] for _ in range(slots)]
        self.steps: list[list[Row]] = []
        self.adapters: list[int | None] = []
        self.warmed_up_by = ""
        self.before_decode: Callable[[], None] = lambda: None

    def warm_up(self) -> None:
        self.warmed_up_by = threading.current_thread().name

    def decode(self, rows: Sequence[Row], adapter: int | None = None) -> None:
        self.adapters.append(adapter)
        self.steps.append(list(rows))
        self.before_decode()
        for row in rows:
            assert row.position == len(self.sequences[row.slot])
            self.sequences[row.slot].append(row.token)

    def logits(self, row: int) -> Logits:
        asked = self.steps[-1][row]
        assert asked.wants_logits
        logits = np.zeros(VOCABULARY, np.float32)
        logits[(asked.token + 1 + 10 * (self.adapters[-1] or 0)) % VOCABULARY] = 9.0
        return logits

    def clear(self, slot: int) -> None:
        self.sequences[slot] = []


class Listener:
    """Collects what one request is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.ended = threading.Event()

    def __call__(self, event: Event) -> None:
        assert not self.ended.is_set(), "told something after the end"
        self.events.append(event)
        if isinstance(event, Failed) or event.final:
            self.ended.set()

    @property
    def ids(self) -> list[int]:
        return [token for event in self.events if isinstance(event, Tokens) for token in event.ids]


class Bench:
    """A scheduler without a thread, and its model."""

    def __init__(self, slots: int = 2, prefill_chunk: int = 4) -> None:
        self.model = CountingModel(slots)
        self.scheduler = Scheduler(self.model, prefill_chunk=prefill_chunk)

    def submit(self, *prompt: int, new: int = 3, request_id: str = "", **values: Any) -> tuple[Generation, Listener]:
        listener = Listener()
        request = GenerationRequest(prompt=prompt, max_new_tokens=new, **values)
        return self.scheduler.submit(request, listener, request_id), listener

    def steps(self, count: int = 50) -> None:
        for _ in range(count):
            self.scheduler.step()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_one_request(bench: Bench) -> None:
    _, listener = bench.submit(10)
    bench.steps()
    assert listener.events == [
        Tokens(ids=(11,)),
        Tokens(ids=(12,)),
        Tokens(ids=(13,), final=True),
    ]
    assert bench.model.sequences == [[], []]
    assert bench.scheduler.counts() == Counts(waiting=0, active=0, scheduled=0, max=2)


@pytest.mark.parametrize(
    ("values", "ids", "last_is_empty"),
    [
        ({"end_id": 12}, [11], True),
        ({"end_id": 11}, [], True),
        ({"end_id": 12, "min_tokens": 0}, [11], True),
        ({"stop_words": ((12,),)}, [11, 12], False),
        ({"stop_words": ((11, 12),)}, [11, 12], False),
        ({"stop_words": ((10, 11),)}, [11], False),
        ({"stop_words": ((12, 14),)}, [11, 12, 13, 14, 15], False),
    ],
)
def test_ends(bench: Bench, values: dict[str, Any], ids: list[int], last_is_empty: bool) -> None:
    _, listener = bench.submit(10, new=5, **values)
    bench.steps()
    assert listener.ids == ids
    last = listener.events[-1]
    assert isinstance(last, Tokens)
    assert last.final
    assert (not last.ids) is last_is_empty


def test_prompts_are_read_in_pieces_beside_running_sequences(bench: Bench) -> None:
    _, short = bench.submit(500, new=20)
    bench.steps(2)
    _, long = bench.submit(*range(10, 31), new=2)
    bench.steps()
    assert short.ids == list(range(501, 521))
    assert long.ids == [31, 32]
    sizes = [len(rows) for rows in bench.model.steps]
    assert max(sizes) == 1 + 4
    assert all(sum(row.slot == 0 for row in rows) == 1 for rows in bench.model.steps[:20])


@pytest.mark.parametrize("prefill_chunk", [1, 2, 3, 4, 5, 8, 64])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 8, 9])
def test_every_length_with_every_chunk(prefill_chunk: int, length: int) -> None:
    bench = Bench(prefill_chunk=prefill_chunk)
    listeners = [bench.submit(*range(start, start + length))[1] for start in (100, 200, 300)]
    bench.steps(200)
    for listener, start in zip(listeners, (100, 200, 300), strict=True):
        assert listener.ids == [start + length, start + length + 1, start + length + 2]


def test_requests_wait_in_order_of_arrival(bench: Bench) -> None:
    ended: list[int] = []
    listeners = [bench.submit(100 * number, new=2)[1] for number in range(6)]
    assert bench.scheduler.counts().waiting == 6
    for _ in range(50):
        bench.scheduler.step()
        ended += [n for n, listener in enumerate(listeners) if listener.ended.is_set() and n not in ended]
        assert bench.scheduler.counts().active <= 2
    assert ended == list(range(6))


def test_cancel_frees_the_slot_at_the_next_step(bench: Bench) -> None:
    generation, listener = bench.submit(10, new=500)
    bench.steps(3)
    bench.scheduler.cancel(generation)
    bench.steps(1)
    assert listener.ids == [11, 12, 13]
    assert listener.events[-1] == Tokens(final=True)
    assert bench.scheduler.counts().active == 0
    assert bench.model.sequences[0] == []


def test_cancel_while_queued(bench: Bench) -> None:
    running = [bench.submit(10, new=500) for _ in range(2)]
    generation, listener = bench.submit(10)
    bench.steps(2)
    bench.scheduler.cancel(generation)
    bench.steps(1)
    assert listener.events == [Tokens(final=True)]
    assert not any(other.ended.is_set() for _, other in running)


def test_cancel_after_the_end_does_nothing(bench: Bench) -> None:
    generation, listener = bench.submit(10)
    bench.steps()
    bench.scheduler.cancel(generation)
    bench.steps()
    assert len(listener.events) == 3


def test_stop_by_id(bench: Bench) -> None:
    _, running = bench.submit(10, new=500, request_id="a")
    _, other = bench.submit(20, new=500, request_id="b")
    _, queued = bench.submit(30, new=500, request_id="a")
    bench.steps(2)
    bench.scheduler.stop("a")
    bench.scheduler.stop("nobody")
    bench.steps(1)
    assert running.ended.is_set()
    assert queued.events == [Tokens(final=True)]
    assert not other.ended.is_set()


def test_failing_decode_ends_its_requests_and_nothing_else(bench: Bench) -> None:
    _, first = bench.submit(10, new=500)
    _, second = bench.submit(20, new=500)
    bench.steps(2)

    def fail() -> None:
        raise DecodeError("no room")

    bench.model.before_decode = fail
    bench.steps(1)
    bench.model.before_decode = lambda: None
    assert first.events[-1] == second.events[-1] == Failed(message="no room")
    _, third = bench.submit(30)
    bench.steps()
    assert third.ids == [31, 32, 33]


def test_a_request_that_cannot_be_sampled_fails_alone(bench: Bench) -> None:
    _, hopeless = bench.submit(10, bad_words=tuple((token,) for token in range(VOCABULARY)))
    _, fine = bench.submit(20)
    bench.steps()
    assert isinstance(hopeless.events[-1], Failed)
    assert fine.ids == [21, 22, 23]
    assert bench.scheduler.counts().active == 0


def test_thread_serves_many_and_survives_a_fault() -> None:
    bench = Bench(slots=3)
    bench.scheduler.start()
    listeners = [bench.submit(number, new=20)[1] for number in range(0, 900, 30)]
    for number, listener in zip(range(0, 900, 30), listeners, strict=True):
        assert listener.ended.wait(10)
        assert listener.ids == list(range(number + 1, number + 21))

    def fault() -> None:
        raise ZeroDivisionError

    bench.model.before_decode = fault
    _, unlucky = bench.submit(1)
    assert unlucky.ended.wait(10)
    assert isinstance(unlucky.events[-1], Failed)
    bench.model.before_decode = lambda: None
    _, lucky = bench.submit(1)
    assert lucky.ended.wait(10)
    assert lucky.ids == [2, 3, 4]
    bench.scheduler.close()


def test_the_engines_thread_alone_calls_the_model() -> None:
    bench = Bench()
    callers: set[str] = set()
    bench.model.before_decode = lambda: callers.add(threading.current_thread().name)
    bench.scheduler.start()
    _, listener = bench.submit(10)
    assert listener.ended.wait(10)
    bench.scheduler.close()
    assert callers == {bench.model.warmed_up_by} == {"engine"}


def test_a_model_that_cannot_compute_does_not_start() -> None:
    def fail() -> None:
        raise DecodeError("computation failed")

    bench = Bench()
    bench.model.warm_up = fail  # type: ignore[method-assign]
    with pytest.raises(DecodeError, match="computation failed"):
        bench.scheduler.start()


def test_requests_with_different_adapters_share_a_step() -> None:
    bench = Bench(slots=4)
    adapters = (2, None, 1, 2)
    listeners = [bench.submit(100 * n, adapter=adapter)[1] for n, adapter in enumerate(adapters)]
    bench.scheduler.step()
    assert bench.model.adapters == [None, 1, 2]
    assert [[row.slot for row in rows] for rows in bench.model.steps] == [[1], [2], [0, 3]]
    assert bench.scheduler.counts().scheduled == 4
    bench.steps()
    for n, (adapter, listener) in enumerate(zip(adapters, listeners, strict=True)):
        assert listener.ids == [100 * n + (1 + 10 * (adapter or 0)) * step for step in (1, 2, 3)]


def test_a_step_begins_with_the_adapter_that_is_applied() -> None:
    bench = Bench(slots=3)
    for adapter in (None, 1, 2):
        bench.submit(10, adapter=adapter, new=4)
    bench.steps(4)
    assert bench.model.adapters == [None, 1, 2, 2, None, 1, 1, None, 2, 2, None, 1]


def test_without_adapters_there_is_one_decode_for_each_step(bench: Bench) -> None:
    for _ in range(2):
        bench.submit(10, new=5)
    bench.steps(5)
    assert bench.model.adapters == [None] * 5


@pytest.mark.parametrize("prefill_chunk", [1, 3, 64])
def test_prompts_of_all_lengths_with_different_adapters(prefill_chunk: int) -> None:
    bench = Bench(slots=6, prefill_chunk=prefill_chunk)
    asked = [(length, adapter) for length in (1, 2, 3, 9) for adapter in (None, 1, 2)]
    listeners = [bench.submit(*range(length), adapter=adapter, new=3)[1] for length, adapter in asked]
    bench.steps(200)
    for (length, adapter), listener in zip(asked, listeners, strict=True):
        assert listener.ids == [length - 1 + (1 + 10 * (adapter or 0)) * step for step in (1, 2, 3)]


@pytest.mark.parametrize("broken", [None, 1, 2])
def test_a_failing_decode_ends_the_requests_with_its_adapter_and_no_others(broken: int | None) -> None:
    bench = Bench(slots=4)
    listeners = [(adapter, bench.submit(10, adapter=adapter, new=500)[1]) for adapter in (None, 1, 2, 1)]
    bench.steps(2)

    def fail() -> None:
        if bench.model.adapters[-1] == broken:
            raise DecodeError("no room")

    bench.model.before_decode = fail
    bench.steps(3)
    for adapter, listener in listeners:
        assert listener.ended.is_set() is (adapter == broken)
        assert len(listener.ids) == (2 if adapter == broken else 5)
    assert bench.scheduler.counts().active == sum(adapter != broken for adapter, _ in listeners)


def test_close_leaves_nobody_waiting() -> None:
    bench = Bench(slots=1)
    in_decode = threading.Event()
    go_on = threading.Event()

    def block() -> None:
        in_decode.set()
        assert go_on.wait(10)

    bench.model.before_decode = block
    listeners = [bench.submit(number, new=500)[1] for number in range(3)]
    bench.scheduler.start()
    assert in_decode.wait(10)
    go_on.set()
    bench.scheduler.close()
    _, late = bench.submit(9)
    for listener in (*listeners, late):
        assert listener.events[-1] == Failed(message="the engine is shutting down", unavailable=True)
    bench.scheduler.cancel(bench.submit(1)[0])
