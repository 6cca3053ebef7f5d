"""Admission: order, bounds, deadlines and cancellation, in virtual time and against a model of a few plain lists."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.admission import Admission, AdmissionLimits, Claimant
from server.errors import CallerLimitReached, DeadlineExceeded, InvalidRequest, Overloaded
from server.priority import Priority, priority_of

HIGH, NORMAL, LOW = Priority


class Skipping(selectors.SelectSelector):
    """Instead of waiting for something to happen, has the time passed."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits for somebody else"
        self.now += max(timeout, 0.0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time passes at once. Remembers its timers."""

    def __init__(self) -> None:
        self._skipping = Skipping()
        super().__init__(self._skipping)
        self.timers: list[asyncio.TimerHandle] = []

    def time(self) -> float:
        return self._skipping.now

    def call_at(self, when: float, *args: Any, **options: Any) -> asyncio.TimerHandle:
        self.timers.append(super().call_at(when, *args, **options))
        return self.timers[-1]


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Runs it in virtual time, after which no timer and no task may be left."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(scenario)
        assert asyncio.all_tasks(loop) == set()
        assert [timer for timer in loop.timers if timer.when() > loop.time() and not timer.cancelled()] == []
    finally:
        loop.close()


def virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def in_virtual_time(*args: Any, **options: Any) -> None:
        run(test(*args, **options))

    return in_virtual_time


async def turns(count: int = 6) -> None:
    """Lets everything that can run do so."""
    for _ in range(count):
        await asyncio.sleep(0)


@dataclass(eq=False)
class Call:
    """A caller: comes, waits, holds its place until told to leave, or ends with an error."""

    admission: Admission
    priority: Priority = NORMAL
    caller: str | None = None
    seconds_left: float | None = None
    waited: float | None = None
    leave: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with self.admission.admit(
            caller=self.caller and Claimant(name=self.caller), priority=self.priority, seconds_left=self.seconds_left
        ) as self.waited:
            await self.leave.wait()

    @property
    def inside(self) -> bool:
        return self.waited is not None and not self.task.done()

    @property
    def error(self) -> BaseException | None:
        """What it was refused with."""
        if not self.task.done():
            return None
        return asyncio.CancelledError() if self.task.cancelled() else self.task.exception()

    async def end(self) -> None:
        """Leaves its place, or gives up waiting for one."""
        self.leave.set()
        if self.waited is None:
            self.task.cancel()
        await turns()


class Crowd:
    """An Admission in virtual time, and everybody who came."""

    def __init__(self, limits: AdmissionLimits | None = None, **options: int) -> None:
        self.limits = limits or AdmissionLimits(**{"running": 1, "waiting": 10, "per_caller": 0, **options})
        self.admission = Admission(self.limits, clock=asyncio.get_running_loop().time)
        self.calls: list[Call] = []

    async def come(self, priority: Priority = NORMAL, **options: Any) -> Call:
        call = Call(self.admission, priority, **options)
        self.calls.append(call)
        await turns()
        self.check_bounds()
        return call

    def check_bounds(self) -> None:
        assert self.admission.running == sum(call.inside for call in self.calls) <= self.limits.running
        assert self.admission.waiting == sum(not (call.task.done() or call.inside) for call in self.calls)
        assert self.admission.waiting <= self.limits.waiting
        assert not self.admission.waiting or self.admission.running == self.limits.running

    async def know_how_long(self, seconds: float) -> None:
        """Somebody holds a place for that long, so that waits can be estimated."""
        first = await self.come()
        await asyncio.sleep(seconds)
        await first.end()

    async def all_end(self) -> None:
        """All leave; nothing is lost by then: every place can be had again, by anybody, at once."""
        for call in self.calls:
            await call.end()
        assert (self.admission.running, self.admission.waiting) == (0, 0)
        again = [await self.come(caller="a" if self.limits.per_caller else None) for _ in range(self.limits.running)]
        limit = self.limits.per_caller or self.limits.running
        assert [call.inside for call in again] == [number < limit for number in range(len(again))]
        for call in again:
            await call.end()


@pytest.mark.parametrize(("text", "priority"), [("high", HIGH), ("normal", NORMAL), ("low", LOW)])
def test_priorities(text: str, priority: Priority) -> None:
    assert priority_of(text) is priority


@pytest.mark.parametrize("text", ["", "High", "urgent", " low", "1", "x" * 10_000])
def test_unknown_priority_names_the_key(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"x-priority: .* one of high, normal, low, not '") as caught:
        priority_of(text)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("wrong", "text"), [("running", "1, not 0"), ("waiting", "0, not -1"), ("per_caller", "0, not -1")]
)
def test_limits_that_make_no_sense(wrong: str, text: str) -> None:
    values = {"running": 1, "waiting": 0, "per_caller": 0}
    with pytest.raises(ValueError, match=f"{wrong} must be at least {text}"):
        AdmissionLimits(**{**values, wrong: values[wrong] - 1})


@pytest.mark.parametrize(
    ("arrivals", "order"),
    [
        ([NORMAL, NORMAL, NORMAL], [0, 1, 2]),
        ([LOW, NORMAL, HIGH], [2, 1, 0]),
        ([NORMAL, HIGH, LOW, HIGH, NORMAL, LOW], [1, 3, 0, 4, 2, 5]),
    ],
)
@virtual_time
async def test_order(arrivals: list[Priority], order: list[int]) -> None:
    crowd = Crowd()
    first = await crowd.come()
    calls = [await crowd.come(priority) for priority in arrivals]
    await first.end()
    served = []
    while any(call.inside for call in calls):
        (inside,) = (call for call in calls if call.inside)
        served.append(calls.index(inside))
        await asyncio.sleep(2)
        await inside.end()
    assert served == order
    assert [calls[index].waited for index in order] == [2 * place for place in range(len(order))]
    await crowd.all_end()


@pytest.mark.parametrize(
    ("waiting", "arrival", "displaced"),
    [
        ([], NORMAL, None),
        ([NORMAL, NORMAL], NORMAL, None),
        ([HIGH, NORMAL], NORMAL, None),
        ([NORMAL, NORMAL], LOW, None),
        ([HIGH, HIGH], HIGH, None),
        ([NORMAL, NORMAL], HIGH, 1),
        ([LOW, NORMAL], HIGH, 0),
        ([LOW, LOW, NORMAL], NORMAL, 1),
        ([LOW, HIGH, LOW], NORMAL, 2),
    ],
)
@virtual_time
async def test_full_queue(waiting: list[Priority], arrival: Priority, displaced: int | None) -> None:
    crowd = Crowd(waiting=len(waiting))
    await crowd.come()
    calls = [await crowd.come(priority) for priority in waiting]
    calls.append(await crowd.come(arrival))
    refused = len(waiting) if displaced is None else displaced
    assert [isinstance(call.error, Overloaded) for call in calls] == [index == refused for index in range(len(calls))]
    text = "as many calls wait as may" if displaced is None else "a call of higher priority needed the room to wait"
    assert text in str(calls[refused].error)
    await crowd.all_end()


@pytest.mark.parametrize(
    ("ahead", "priority", "seconds_left", "refused"),
    [
        (0, NORMAL, 10.0, False),  # one place becomes free every 10 s / 2, and half of the time may be waited
        (0, NORMAL, 9.9, True),
        (3, NORMAL, 40.0, False),
        (3, NORMAL, 39.9, True),
        (3, LOW, 39.9, True),
        (3, HIGH, 10.0, False),
        (3, HIGH, 9.9, True),
        (3, NORMAL, None, False),
    ],
)
@virtual_time
async def test_wait_that_outlasts_the_deadline(
    ahead: int, priority: Priority, seconds_left: float | None, refused: bool
) -> None:
    crowd = Crowd(running=2)
    await crowd.know_how_long(10)
    for _ in range(2 + ahead):
        await crowd.come()
    call = await crowd.come(priority, seconds_left=seconds_left)
    assert isinstance(call.error, Overloaded) == refused
    assert crowd.admission.waiting == ahead + (not refused)
    await crowd.all_end()


@virtual_time
async def test_nothing_is_refused_for_its_deadline_while_nothing_is_known() -> None:
    crowd = Crowd()
    for _ in range(5):
        assert (await crowd.come(seconds_left=0.001)).error is None
    await crowd.all_end()


@pytest.mark.parametrize(
    ("held", "expected"), [([2, 4], 3), ([1] * 500 + [3] * 64, 2.74), ([600] + [1] * 320, 1), ([0] * 3 + [8], 2)]
)
@virtual_time
async def test_expected_wait_follows_how_long_places_are_held(held: list[float], expected: float) -> None:
    crowd = Crowd()
    for seconds in held:
        await crowd.know_how_long(seconds)
    await crowd.come()
    refused = await crowd.come(seconds_left=2 * (0.99 * expected - 0.01))
    assert isinstance(refused.error, Overloaded)
    assert (await crowd.come(seconds_left=2 * (1.01 * expected + 0.01))).error is None
    await crowd.all_end()


@virtual_time
async def test_doomed_call_displaces_nobody() -> None:
    crowd = Crowd(waiting=1)
    await crowd.know_how_long(10)
    await crowd.come()
    waits = await crowd.come(LOW)
    assert isinstance((await crowd.come(HIGH, seconds_left=1)).error, Overloaded)
    assert waits.error is None
    await crowd.all_end()


@pytest.mark.parametrize(
    ("held", "least", "most"), [(None, 1.0, 1.5), (0.0, 0.1, 0.15), (4.0, 8.0, 12.0), (9_000.0, 20.0, 30.0)]
)
@virtual_time
async def test_refused_callers_do_not_come_back_all_at_once(held: float | None, least: float, most: float) -> None:
    """The expected wait is two turns here, from which those who are refused are told different times."""
    crowd = Crowd(waiting=1)
    if held is not None:
        await crowd.know_how_long(held)
    await crowd.come()
    await crowd.come()
    errors = [(await crowd.come()).error for _ in range(50)]
    seconds = [error.retry_after_seconds for error in errors if isinstance(error, Overloaded)]
    assert len(set(seconds)) == 50
    assert all(least <= each <= most for each in seconds)
    await crowd.all_end()


@virtual_time
async def test_time_passes_in_the_queue() -> None:
    crowd = Crowd()
    holder = await crowd.come()
    calls = [await crowd.come(seconds_left=seconds) for seconds in (3, 1, None, 2)]
    for late in ([], [1], [1, 3], [0, 1, 3]):
        assert [index for index, call in enumerate(calls) if isinstance(call.error, DeadlineExceeded)] == late
        crowd.check_bounds()
        await asyncio.sleep(1)
        await turns()
    await holder.end()
    assert calls[2].waited == 4
    await crowd.all_end()


@pytest.mark.parametrize("seconds_left", [0.0, -1.0])
@virtual_time
async def test_time_has_passed_before(seconds_left: float) -> None:
    crowd = Crowd()
    assert isinstance((await crowd.come(seconds_left=seconds_left)).error, DeadlineExceeded)
    await crowd.all_end()


class Clock:
    """Tells what it is set to, whatever the loop's timers think."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("passes", ["before the place is granted", "after", "not"])
@virtual_time
async def test_deadline_and_place_in_one_turn_of_the_loop(passes: str) -> None:
    """The loop is late with its timer. Whoever is too late never enters, and the next one gets the place."""
    clock = Clock()
    admission = Admission(AdmissionLimits(running=1, waiting=2, per_caller=0), clock=clock)
    entered = []

    async def call(name: str, seconds_left: float | None) -> None:
        async with admission.admit(caller=None, priority=NORMAL, seconds_left=seconds_left):
            entered.append(name)

    async with admission.admit(caller=None, priority=NORMAL, seconds_left=None):
        late, next_one = asyncio.create_task(call("late", 5)), asyncio.create_task(call("next", None))
        await turns()
        if passes == "before the place is granted":
            clock.now = 5.0
    if passes == "after":
        clock.now = 5.0
    await asyncio.wait([late, next_one])
    if passes == "not":
        assert entered == ["late", "next"]
    else:
        assert isinstance(late.exception(), DeadlineExceeded)
        assert entered == ["next"]
    assert admission.running == 0


@pytest.mark.parametrize("grant_first", [True, False])
@virtual_time
async def test_cancelled_at_the_moment_of_the_grant(grant_first: bool) -> None:
    crowd = Crowd()
    holder = await crowd.come()
    unlucky, following = await crowd.come(), await crowd.come()
    holder.leave.set()
    if grant_first:
        await asyncio.sleep(0)  # the holder leaves, and the place is passed on
        assert crowd.admission.waiting == 1
    unlucky.task.cancel()
    assert not unlucky.task.done()
    await turns()
    assert unlucky.waited is None
    assert following.inside
    await crowd.all_end()


@pytest.mark.parametrize("error", [RuntimeError(), asyncio.CancelledError(), DeadlineExceeded(), GeneratorExit()])
@virtual_time
async def test_error_inside_frees_the_place(error: BaseException) -> None:
    crowd = Crowd(per_caller=1)

    async def fails() -> None:
        async with crowd.admission.admit(caller=Claimant(name="a"), priority=NORMAL, seconds_left=None):
            raise error

    with pytest.raises(type(error)) as caught:
        await fails()
    assert caught.value is error
    await crowd.all_end()


@virtual_time
async def test_limit_per_caller_counts_running_and_waiting() -> None:
    crowd = Crowd(running=2, per_caller=2, waiting=5)
    first, second = await crowd.come(caller="a"), await crowd.come(caller="b")
    waits = await crowd.come(caller="a")
    refused = await crowd.come(HIGH, caller="a")
    assert isinstance(refused.error, CallerLimitReached)
    assert (refused.error.caller, refused.error.limit) == ("a", 2)
    assert 0.1 <= refused.error.retry_after_seconds <= 30
    others = [await crowd.come(caller=name) for name in ("b", None, None, None)]
    assert [call.error for call in others] == [None] * 4
    await waits.end()  # by being cancelled
    assert (await crowd.come(caller="a")).error is None
    await first.end()
    assert (await crowd.come(caller="a")).error is None
    await second.end()
    await crowd.all_end()


@virtual_time
async def test_a_callers_own_limit_goes_before_that_for_all() -> None:
    admission = Admission(AdmissionLimits(running=9, waiting=0, per_caller=1))

    async def come(limit: int) -> None:
        async with admission.admit(caller=Claimant(name="a", limit=limit), priority=NORMAL, seconds_left=None):
            await asyncio.sleep(1)

    ends = await asyncio.gather(come(2), come(2), come(2), come(0), return_exceptions=True)
    assert [getattr(error, "limit", None) for error in ends] == [None, None, 2, 1]


@virtual_time
async def test_names_are_forgotten() -> None:
    crowd = Crowd(per_caller=3, waiting=0)
    for number in range(100):  # the last ones are refused
        await crowd.come(caller=str(number), seconds_left=None if number % 2 else 0.0)
    for call in crowd.calls:
        await call.end()
    assert crowd.admission._calls_of == {}


@virtual_time
async def test_many_cancelled_waiters_leave_nothing_behind() -> None:
    """Not even before their tasks have run: those that a place is passed on past are gone after it."""
    admission = Admission(AdmissionLimits(running=1, waiting=12_000, per_caller=0))
    async with admission.admit(caller=None, priority=NORMAL, seconds_left=None):
        calls = [Call(admission, seconds_left=1_000) for _ in range(12_000)]
        await turns()
        for call in calls[:10_000]:
            call.task.cancel()
        assert admission.waiting == 12_000  # the tasks have not run yet
        await turns(2)
        assert admission.waiting == 2_000
        for call in calls[10_000:]:
            call.leave.set()
    await asyncio.wait([call.task for call in calls])
    assert all(call.waited is not None for call in calls[10_000:])
    assert (admission.running, admission.waiting) == (0, 0)


# A model: the same rules in plain lists that are sorted anew each time.


@dataclass(eq=False)
class Modelled:
    """What has to become of a call."""

    number: int
    priority: Priority
    caller: str | None
    deadline: float
    state: str = "waits"
    entered: float = 0.0

    @property
    def rank(self) -> tuple[int, int]:
        return list(Priority).index(self.priority), self.number


class Model:
    def __init__(self, limits: AdmissionLimits) -> None:
        self.limits = limits
        self.now = 0.0
        self.calls: list[Modelled] = []
        self.held: list[float] = []

    def those(self, state: str) -> list[Modelled]:
        return sorted((call for call in self.calls if call.state == state), key=lambda call: call.rank)

    def mean(self) -> float:
        mean = 0.0
        for count, held in enumerate(self.held, 1):
            mean += (held - mean) / min(count, 32)
        return mean

    def come(self, priority: Priority, caller: str | None, seconds_left: float | None) -> None:
        deadline = float("inf") if seconds_left is None else self.now + seconds_left
        call = Modelled(len(self.calls), priority, caller, deadline)
        queue, inside = self.those("waits"), self.those("inside")
        ahead = sum(other.rank < call.rank for other in queue)
        below = [other for other in queue if other.rank[0] > call.rank[0]]
        self.calls.append(call)
        if caller and 0 < self.limits.per_caller == sum(other.caller == caller for other in queue + inside):
            call.state = "CallerLimitReached"
        elif deadline <= self.now:
            call.state = "DeadlineExceeded"
        elif len(inside) < self.limits.running:
            self.enter(call)
        elif (ahead + 1) * self.mean() / self.limits.running > (deadline - self.now) / 2:
            call.state = "Overloaded"
        elif len(queue) == self.limits.waiting:
            (below or [call])[-1].state = "Overloaded"

    def enter(self, call: Modelled) -> None:
        call.state, call.entered = "inside", self.now

    def end(self, call: Modelled) -> None:
        if call.state == "inside":
            self.held.append(self.now - call.entered)
            call.state = "left"
            for following in self.those("waits")[:1]:
                self.enter(following)
        else:
            call.state = "CancelledError"

    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for call in self.those("waits"):
            if call.deadline <= self.now:
                call.state = "DeadlineExceeded"


def state_of(call: Call) -> str:
    if not call.task.done():
        return "inside" if call.inside else "waits"
    return "left" if call.error is None else type(call.error).__name__


ARRIVALS = st.tuples(
    st.sampled_from(list(Priority)),
    st.sampled_from([None, "a", "b"]),
    st.sampled_from([None, None, 0.0, 1.0, 2.0, 8.0]),
)
ENDS = st.integers(0, 9)
PASSING_TIME = st.sampled_from([0.25, 0.5, 1.0, 4.0])
STEPS = st.lists(ARRIVALS | ARRIVALS | ENDS | PASSING_TIME, min_size=10, max_size=50)
LIMITS = st.builds(
    AdmissionLimits, running=st.integers(1, 3), waiting=st.integers(0, 4), per_caller=st.sampled_from([0, 1, 2, 4])
)


@given(limits=LIMITS, steps=STEPS)
@settings(max_examples=300)
@virtual_time
async def test_against_the_model(limits: AdmissionLimits, steps: list[Any]) -> None:
    """Who waits, who is inside and who was refused why is as the model says after every step."""
    crowd, model = Crowd(limits), Model(limits)
    for step in steps:
        there = [call.number for state in ("waits", "inside") for call in model.those(state)]
        if isinstance(step, tuple):
            priority, caller, seconds_left = step
            await crowd.come(priority, caller=caller, seconds_left=seconds_left)
            model.come(*step)
        elif isinstance(step, float):
            await asyncio.sleep(step)
            await turns()
            model.time_passes(step)
        elif there:
            number = there[step % len(there)]
            await crowd.calls[number].end()
            model.end(model.calls[number])
        assert [state_of(call) for call in crowd.calls] == [call.state for call in model.calls]
        crowd.check_bounds()
    await crowd.all_end()


@given(limits=LIMITS, steps=STEPS, seed=st.integers(0, 1_000))
@settings(max_examples=300)
@virtual_time
async def test_everything_in_the_same_turn(limits: AdmissionLimits, steps: list[Any], seed: int) -> None:
    """Comes, leaves, is cancelled and runs out of time while others are in the middle of it: nothing is lost."""
    crowd, dice = Crowd(limits), random.Random(seed)
    for step in steps:
        there = [call for call in crowd.calls if not call.task.done()]
        if isinstance(step, tuple):
            priority, caller, seconds_left = step
            crowd.calls.append(Call(crowd.admission, priority, caller, seconds_left))
        elif isinstance(step, float):
            await asyncio.sleep(step)
        elif there:
            call = there[step % len(there)]
            dice.choice([call.leave.set, call.task.cancel])()
        await turns(dice.choice([0, 0, 0, 1, 2, 3]))
        assert crowd.admission.running <= limits.running
        assert crowd.admission.waiting <= limits.waiting
    await turns()
    crowd.check_bounds()
    await crowd.all_end()


@pytest.mark.parametrize("load", [1.5, 10])
@virtual_time
async def test_overload_leaves_the_capacity_to_calls_that_end_in_time(load: float) -> None:
    """Calls that take a second on average come at `load` times what is possible, and are cut at their deadline."""
    loop, dice, places = asyncio.get_running_loop(), random.Random(1), 16
    admission = Admission(AdmissionLimits(running=places, waiting=2 * places, per_caller=0), clock=loop.time)
    useful_seconds = 0.0

    async def call(needed: float, seconds_left: float) -> None:
        nonlocal useful_seconds
        with suppress(Overloaded, DeadlineExceeded):
            async with admission.admit(caller=None, priority=NORMAL, seconds_left=seconds_left) as waited:
                assert waited < seconds_left
                await asyncio.sleep(min(needed, seconds_left - waited))
                useful_seconds += needed if needed <= seconds_left - waited else 0

    calls = []
    while loop.time() < 60:
        await asyncio.sleep(dice.expovariate(load * places))
        calls.append(asyncio.create_task(call(dice.expovariate(1), dice.uniform(5, 20))))
    assert useful_seconds > 0.95 * places * loop.time()
    await asyncio.gather(*calls)
