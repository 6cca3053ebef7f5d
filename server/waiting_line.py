"""The line of those who wait for admission: most urgent first, and first come, first served among equals.

Every operation takes the same time however many wait or have left. Knows nothing of places, limits and deadlines.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from .errors import ServiceError
from .priority import Priority


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Waiter:
    """A call in the queue. Its answer is the refusal, or None for a place that is now its own."""

    priority: Priority
    deadline: float
    answer: asyncio.Future[ServiceError | None]

    def tell(self, refusal: ServiceError | None) -> bool:
        """Whether it took the answer: one that was cancelled takes none, though it is still in the queue."""
        if self.answer.done():
            return False
        self.answer.set_result(refusal)
        return True

    def has_place(self) -> bool:
        """Whether a place was given to it."""
        return self.answer.done() and not self.answer.cancelled() and self.answer.result() is None


class WaitingLine:
    """Waiters, by priority.

    OrderedDict and not dict: the first key of a dict is looked for past all that were taken from its front.
    """

    def __init__(self) -> None:
        self._lines: dict[Priority, OrderedDict[Waiter, None]] = {priority: OrderedDict() for priority in Priority}

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def ahead_of(self, priority: Priority) -> int:
        """How many are served before one that comes now."""
        count = 0
        for each, line in self._lines.items():
            count += len(line)
            if each is priority:
                break
        return count

    def add(self, waiter: Waiter) -> None:
        """At the end of its priority."""
        self._lines[waiter.priority][waiter] = None

    def discard(self, waiter: Waiter) -> None:
        """Where it still waits."""
        self._lines[waiter.priority].pop(waiter, None)

    def pop_first(self) -> Waiter | None:
        """Who comes next; None where nobody waits."""
        for line in self._lines.values():
            if line:
                return line.popitem(last=False)[0]
        return None

    def pop_newest_below(self, priority: Priority) -> Waiter | None:
        """The newest of the lowest priority, unless there is none below this one."""
        for each, line in reversed(self._lines.items()):
            if each is priority:
                break
            if line:
                return line.popitem()[0]
        return None
