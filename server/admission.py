"""Who may use the engine now, who waits for it and who is sent away: bounded work and a bounded queue.

Knows neither gRPC nor settings, and nothing of what is done inside: a place is taken, held for a while and given
back. Everything happens on one event loop, so no step between two awaits needs a lock.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from .errors import CallerLimitReached, DeadlineExceeded, Overloaded
from .priority import Priority
from .waiting_line import Waiter, WaitingLine

# The mean of how long places are held is the plain one at first, then follows about this many of the last calls:
# enough that one odd call does not sway it, few enough that it follows a change within seconds.
_MEAN_OF_CALLS = 32
# How much of a call's time may go into waiting. Calls that are let in with hardly any time left are worked on for
# nobody, and an overloaded server would end up doing little else.
_WAIT_SHARE = 0.5
# What refused callers are told to wait. The random part keeps them from coming back all at once.
_LEAST_RETRY_SECONDS, _MOST_RETRY_SECONDS, _RETRY_SPREAD = 0.1, 30.0, 0.5
_UNKNOWN_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """How many calls may be `running` and `waiting` in all, and how many of both `per_caller` (0: no limit).

    `waiting` should be no more than a few times `running`: calls that come out of a long queue have little time left
    before their deadlines, and an engine that works on them may finish nothing at all.
    """

    running: int
    waiting: int
    per_caller: int

    def __post_init__(self) -> None:
        for name, least in (("running", 1), ("waiting", 0), ("per_caller", 0)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimant:
    """A caller by name, and how many calls it may have running and waiting; 0: the limit for any caller."""

    name: str
    limit: int = 0


class Admission:
    """Gives out `limits.running` places: the highest priority first, within one first come, first served.

    A lower priority waits for as long as higher ones keep coming. Where the queue is full, a call takes the place in
    it of the newest one of the lowest priority below its own, which is refused.

    The expected wait of a call with `n` others ahead of it in the queue is `(n + 1) * held / limits.running`, as one
    place becomes free every `held / limits.running` seconds. `held` is the exponentially weighted mean of how long
    places were held, however their calls ended; before the first has ended, no wait is expected and nothing is
    refused because of its deadline. Calls of higher priority that are yet to come are not reckoned with: whose time
    runs out in the queue after all is refused when it does.
    """

    def __init__(self, limits: AdmissionLimits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._queue = WaitingLine()
        self._held = _Mean()
        self._running = 0
        self._calls_of: dict[str, int] = {}

    @property
    def running(self) -> int:
        """How many calls hold a place."""
        return self._running

    @property
    def waiting(self) -> int:
        """How many calls wait for one."""
        return len(self._queue)

    @asynccontextmanager
    async def admit(
        self, *, caller: Claimant | None, priority: Priority, seconds_left: float | None
    ) -> AsyncIterator[float]:
        """Holds a place for the length of the block, whose value is the seconds waited for it.

        `caller` None is counted with nobody; `seconds_left` until the call's deadline, None without one. Raises
        CallerLimitReached, Overloaded (at once, or from the queue in favour of a more urgent call) and
        DeadlineExceeded when the time has passed before there was a place.
        """
        self._count_in(caller)
        try:
            waited = await self._take_place(priority, seconds_left)
            start = self._clock()
            try:
                yield waited
            finally:
                self._held.add(self._clock() - start)
                self._pass_on()
        finally:
            self._count_out(caller)

    async def _take_place(self, priority: Priority, seconds_left: float | None) -> float:
        if seconds_left is not None and seconds_left <= 0:
            raise DeadlineExceeded
        # Places are passed on as they become free, so while there is one, nobody waits.
        if self._running < self._limits.running:
            self._running += 1
            return 0.0
        self._check_wait(priority, seconds_left)
        self._make_room(priority)
        return await self._wait(priority, math.inf if seconds_left is None else seconds_left)

    def _check_wait(self, priority: Priority, seconds_left: float | None) -> None:
        """Refuses a call that would get its place too late, before anybody makes room for it."""
        expected = self._expected_wait(priority)
        if expected is not None and seconds_left is not None and expected > _WAIT_SHARE * seconds_left:
            reason = f"a wait of about {expected:.1f} s would take too much of the {seconds_left:.1f} s left"
            raise Overloaded(reason, retry_after_seconds=_retry_after(expected))

    def _make_room(self, priority: Priority) -> None:
        """Refuses the call of this priority, or one less urgent that waits, where the queue is full."""
        if len(self._queue) < self._limits.waiting:
            return
        if (displaced := self._queue.pop_newest_below(priority)) is None:
            raise self._overloaded("as many calls wait as may", priority)
        displaced.tell(self._overloaded("a call of higher priority needed the room to wait", displaced.priority))

    async def _wait(self, priority: Priority, seconds_left: float) -> float:
        start = self._clock()
        loop = asyncio.get_running_loop()
        waiter = Waiter(priority=priority, deadline=start + seconds_left, answer=loop.create_future())
        self._queue.add(waiter)
        timer = loop.call_later(seconds_left, self._expire, waiter) if seconds_left < math.inf else None
        try:
            refusal = await waiter.answer
        except BaseException:  # cancelled, maybe after the place was granted
            self._give_up(waiter)
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if refusal is not None:
            raise refusal
        now = self._clock()
        if now >= waiter.deadline:  # the loop was late, with the timer or with this
            self._pass_on()
            raise DeadlineExceeded
        return now - start

    def _expire(self, waiter: Waiter) -> None:
        self._queue.discard(waiter)
        waiter.tell(DeadlineExceeded())

    def _give_up(self, waiter: Waiter) -> None:
        self._queue.discard(waiter)
        if waiter.has_place():
            self._pass_on()

    def _pass_on(self) -> None:
        """Gives the place of a call that has ended to the next one that waits, if any."""
        while (waiter := self._queue.pop_first()) is not None:
            if waiter.tell(None):
                return
        self._running -= 1

    def _expected_wait(self, priority: Priority) -> float | None:
        """Seconds until a call that comes now gets a place; None where no call has ended yet."""
        if self._held.value is None:
            return None
        return (self._queue.ahead_of(priority) + 1) * self._held.value / self._limits.running

    def _overloaded(self, reason: str, priority: Priority) -> Overloaded:
        return Overloaded(reason, retry_after_seconds=_retry_after(self._expected_wait(priority)))

    def _count_in(self, caller: Claimant | None) -> None:
        if caller is None:
            return
        limit = caller.limit or self._limits.per_caller
        count = self._calls_of.get(caller.name, 0)
        if limit and count >= limit:
            # One of its calls should end about that soon, where all of them run.
            expected = None if self._held.value is None else self._held.value / limit
            raise CallerLimitReached(caller=caller.name, limit=limit, retry_after_seconds=_retry_after(expected))
        self._calls_of[caller.name] = count + 1

    def _count_out(self, caller: Claimant | None) -> None:
        if caller is None:
            return
        if self._calls_of[caller.name] == 1:
            del self._calls_of[caller.name]  # else the table would grow with every name ever seen
        else:
            self._calls_of[caller.name] -= 1


class _Mean:
    """Exponentially weighted mean. None before the first value."""

    def __init__(self) -> None:
        self.value: float | None = None
        self._count = 0

    def add(self, value: float) -> None:
        self._count = min(self._count + 1, _MEAN_OF_CALLS)
        mean = 0.0 if self.value is None else self.value
        self.value = mean + (value - mean) / self._count


def _retry_after(expected: float | None) -> float:
    """Seconds after which a refused caller may try again: the expected wait within bounds, and a random part more."""
    seconds = _UNKNOWN_RETRY_SECONDS if expected is None else expected
    most = _MOST_RETRY_SECONDS / (1 + _RETRY_SPREAD)
    return min(max(seconds, _LEAST_RETRY_SECONDS), most) * random.uniform(1, 1 + _RETRY_SPREAD)
