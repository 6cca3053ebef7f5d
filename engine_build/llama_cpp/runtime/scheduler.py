"""Continuous batching: requests wait in order of arrival, take a slot, and share every step with all others.

Knows the language model only as a `Decoder`; knows no Triton. One thread owns the decoder. The others hand requests
in, cancel them, and read counts.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .generation import EventHandler, Generation
from .language_model import DecodeError, Row
from .requests import GenerationRequest
from .sampling import Logits, SamplingError
from .step_budget import StepBudget
from .step_plan import Plan, by_adapter, rows_of

_logger = logging.getLogger(__name__)


class Decoder(Protocol):
    """What the scheduler needs of a language model; see LanguageModel."""

    @property
    def slots(self) -> int: ...

    @property
    def vocabulary_size(self) -> int: ...

    def warm_up(self) -> None: ...

    def decode(self, rows: Sequence[Row], adapter: int | None = None) -> None: ...

    def logits(self, row: int) -> Logits: ...

    def clear(self, slot: int) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Requests now: waiting for a slot, holding one, computed in the last step, and the number of slots."""

    waiting: int
    active: int
    scheduled: int
    max: int


class Scheduler:
    """The engine's loop. `start` runs it in a thread of its own; tests call `step` themselves."""

    def __init__(self, decoder: Decoder, *, prefill_chunk: int) -> None:
        self._decoder = decoder
        self._budget = StepBudget(prefill_chunk)
        self._changed = threading.Condition()
        self._waiting: deque[Generation] = deque()
        self._active: list[Generation] = []
        self._free_slots = list(range(decoder.slots))
        self._scheduled = 0
        self._adapter: int | None = None
        self._closed = False
        self._ready = threading.Event()
        self._warm_up_error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread that owns the decoder; returns when it has warmed up."""
        self._thread.start()
        self._ready.wait()
        if self._warm_up_error:
            raise self._warm_up_error

    def submit(self, request: GenerationRequest, on_event: EventHandler, request_id: str = "") -> Generation:
        """Queue a request. `on_event` is called on the engine's thread and must not block.

        It is called until it got a final Tokens or a Failed, which always comes.
        """
        vocabulary_size = self._decoder.vocabulary_size
        generation = Generation(request, on_event, request_id=request_id, vocabulary_size=vocabulary_size)
        with self._changed:
            if not self._closed:
                self._waiting.append(generation)
                self._changed.notify()
                return generation
        generation.fail("the engine is shutting down", unavailable=True)
        return generation

    def cancel(self, generation: Generation) -> None:
        """End a request at the next step, with an empty final event and its slot free."""
        with self._changed:
            generation.cancelled = True
            self._changed.notify()

    def stop(self, request_id: str) -> None:
        """Cancel the live requests that carry this id; none is not an error."""
        with self._changed:
            for generation in (*self._waiting, *self._active):
                if generation.request_id == request_id:
                    generation.cancelled = True
            self._changed.notify()

    def counts(self) -> Counts:
        """The present numbers."""
        with self._changed:
            return Counts(
                waiting=len(self._waiting),
                active=len(self._active),
                scheduled=self._scheduled,
                max=self._decoder.slots,
            )

    def close(self) -> None:
        """End the thread after its present step; every request left fails as unavailable."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()
        self._fail_all("the engine is shutting down", unavailable=True)

    def step(self) -> None:
        """One round: end the cancelled, fill free slots, compute, choose."""
        self._end_cancelled()
        self._fill_slots()
        plan = self._plan()
        with self._changed:
            self._scheduled = len(plan)
        if plan:
            self._compute(plan)

    def _run(self) -> None:
        try:
            self._decoder.warm_up()
        except Exception as error:
            self._warm_up_error = error  # for `start` to raise: the model cannot serve
            return
        finally:
            self._ready.set()
        while self._wait_for_work():
            try:
                self.step()
            except Exception:
                # Nobody may wait for ever for an answer because of a fault in here.
                _logger.exception("the engine's step failed")
                self._fail_all("the engine failed; see its log", unavailable=False)

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not (self._closed or self._waiting or self._active):
                self._scheduled = 0
                self._changed.wait()
            return not self._closed

    def _end_cancelled(self) -> None:
        with self._changed:
            queued = [generation for generation in self._waiting if generation.cancelled]
            if queued:
                self._waiting = deque(generation for generation in self._waiting if not generation.cancelled)
        for generation in queued:
            generation.finish()
        for generation in [generation for generation in self._active if generation.cancelled]:
            generation.finish()
            self._release(generation)

    def _fill_slots(self) -> None:
        with self._changed:
            while self._waiting and self._free_slots:
                generation = self._waiting.popleft()
                generation.slot = self._free_slots.pop(0)
                self._active.append(generation)

    def _plan(self) -> Plan:
        """One token for each running sequence, and prompts in order of arrival."""
        plan = [(generation, 1) for generation in self._active if not generation.reads_prompt]
        left = self._budget.prompt_tokens(len(plan))
        for generation in self._active:
            if generation.reads_prompt and left:
                count = min(generation.pending, left)
                plan.append((generation, count))
                left -= count
        return plan

    def _compute(self, plan: Plan) -> None:
        """One decode for each adapter of the plan; ids are chosen in between, as the next decode takes the logits."""
        running = sum(count for generation, count in plan if not generation.reads_prompt)
        prompt_tokens = sum(count for _, count in plan) - running
        seconds, failed = 0.0, False
        for adapter, group in by_adapter(plan, first=self._adapter):
            started = time.perf_counter()
            if self._decode(group, adapter):
                seconds += time.perf_counter() - started
                self._choose(group)
            else:
                failed = True
        if not failed:
            self._budget.record(running=running, prompt_tokens=prompt_tokens, seconds=seconds)

    def _decode(self, group: Plan, adapter: int | None) -> bool:
        """Whether it worked; where not, all of the group have failed."""
        self._adapter = adapter
        try:
            self._decoder.decode(rows_of(group), adapter)
        except DecodeError as error:
            _logger.error("%s", error)
            for generation, _ in group:
                self._fail(generation, str(error))
            return False
        return True

    def _choose(self, plan: Plan) -> None:
        row = -1
        for generation, count in plan:
            row += count
            generation.computed += count
            if generation.pending:
                continue
            try:
                generation.accept(self._decoder.logits(row))
            except (SamplingError, DecodeError) as error:
                self._fail(generation, str(error))
            else:
                if generation.ended:
                    self._release(generation)

    def _fail(self, generation: Generation, message: str) -> None:
        generation.fail(message)
        self._release(generation)

    def _release(self, generation: Generation) -> None:
        """Forget the slot's sequence: no request may find anything of an earlier one."""
        self._decoder.clear(generation.slot)
        with self._changed:
            self._active.remove(generation)
            self._free_slots.append(generation.slot)

    def _fail_all(self, message: str, *, unavailable: bool) -> None:
        with self._changed:
            left = [*self._active, *self._waiting]
            self._waiting.clear()
            self._active.clear()
            self._free_slots = list(range(self._decoder.slots))
        for generation in left:
            generation.fail(message, unavailable=unavailable)
        for slot in range(self._decoder.slots):
            self._decoder.clear(slot)
