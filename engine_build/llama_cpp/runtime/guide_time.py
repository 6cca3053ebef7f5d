"""How long the engine's thread may work for one guide: it is everybody's. Knows clocks only."""

from __future__ import annotations

import time

from .sampling import SamplingError

TOO_AMBIGUOUS = "it can be read in too many ways at once; make it simpler"
# Of the thread's processor time: for one token, and for all so far.
MOST_SECONDS_FOR_A_TOKEN = 0.3
_MOST_SECONDS_AT_FIRST = 1.0
_MORE_SECONDS_A_TOKEN = 0.03


class GuideTime:
    """The time that one request's guide has taken.

    A token's time runs from the first question about it until it is accepted, and with it the sampler's tries count.
    """

    def __init__(self) -> None:
        self._left = _MOST_SECONDS_AT_FIRST
        self._started: float | None = None

    def begin(self) -> None:
        """Before a question about the next token: the first one starts its time."""
        if self._started is None:
            self._started = time.thread_time()

    def check(self) -> None:
        """Raises SamplingError where this token has taken too long, or all together have."""
        if self._taken() > min(MOST_SECONDS_FOR_A_TOKEN, self._left):
            raise SamplingError(f"the guide cannot be followed further: {TOO_AMBIGUOUS}")

    def end(self) -> None:
        """The token is accepted."""
        self._left += _MORE_SECONDS_A_TOKEN - self._taken()
        self._started = None

    def _taken(self) -> float:
        return 0.0 if self._started is None else time.thread_time() - self._started
