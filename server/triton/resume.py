"""Streams that outlive the Triton that serves them: when one is lost, the request goes out again with its ids so far.

Implements `chat.engine.Engine` around another engine, whose channel picks the replica. Knows no channels, no tensors
and no text; which errors mean that a replica is lost is the other engine's to say (EngineUnavailable).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

from ..chat.engine import Engine, EngineRequest
from ..errors import EngineUnavailable

# Waits before each of the tries in a row that bring no token; after the last, the caller is told. The first is for a
# replica that is gone while others are well; the rest for a channel that has not noticed yet, or that offers the same
# sick replica again. All together less than a second: where no replica is left, callers shall know it soon.
_WAITS_SECONDS = (0.0, 0.02, 0.04, 0.08, 0.16, 0.2, 0.2, 0.2)

# The golden ratio's part of 2^64: its multiples are spread over all seeds, and never the same twice.
_SEED_STEP = 0x9E3779B97F4A7C15
_SEEDS = 2**64

log = logging.getLogger(__name__)


class ReplicatedEngine(Engine, Protocol):
    """An engine that may have several replicas: a request that is sent again may come to another."""

    @property
    def address(self) -> str:
        """Where it is, for messages."""
        ...

    async def is_ready(self, *, timeout_seconds: float) -> bool:
        """Whether one of the replicas serves; never raises."""
        ...

    async def contract_differences(self, *, timeout_seconds: float) -> list[str]:
        """Why requests would fail. Raises EngineUnavailable."""
        ...

    async def aclose(self) -> None:
        """Ends running streams with EngineUnavailable."""
        ...


class ResumingEngine:
    """Sends requests again whose replica was lost. `resumed` counts those that then went on.

    What was yielded stays: a request goes out again with those ids at the end of its prompt, and with a budget that is
    smaller by their number. Penalties mean the same for both parts, because both of our engines count prompt and
    output alike. Greedy answers stay what they would have been, as far as the engine's arithmetic does not depend on
    how a text was cut; sampled ones go on with other random numbers.
    """

    def __init__(self, engine: ReplicatedEngine, *, on_resume: Callable[[], None] | None = None) -> None:
        """`on_resume` is called whenever a stream goes on after a loss."""
        self._engine = engine
        self._on_resume = on_resume
        self._closed = False
        self.resumed = 0

    @property
    def address(self) -> str:
        """The engine's."""
        return self._engine.address

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Sequence[int], None]:
        """See `chat.engine.Engine.stream`.

        EngineUnavailable reaches the caller after several tries in a row without a token, when the engine is being
        closed, and where a guide has been followed for some ids: the engine would begin it anew.
        """
        progress = _Progress(request)
        ids_so_far = progress.ids
        while not progress.complete:
            try:
                async with aclosing(self._engine.stream(progress.rest())) as attempt:
                    async for ids in attempt:
                        if progress.loss is not None:
                            self._went_on(progress)
                        ids_so_far.extend(ids)
                        yield ids
                    return
            except EngineUnavailable as error:
                wait_seconds = None if self._closed else progress.wait_after(error)
                if wait_seconds is None:
                    raise
            await asyncio.sleep(wait_seconds)

    def _went_on(self, progress: _Progress) -> None:
        self.resumed += 1
        log.warning(
            "request %s goes on after %d tokens, at try %d: %s",
            *(progress.request.request_id, len(progress.ids), progress.sent, progress.loss),
        )
        progress.loss = None
        if self._on_resume is not None:
            self._on_resume()

    async def is_ready(self, *, timeout_seconds: float) -> bool:
        """The engine's."""
        return await self._engine.is_ready(timeout_seconds=timeout_seconds)

    async def contract_differences(self, *, timeout_seconds: float) -> list[str]:
        """The engine's."""
        return await self._engine.contract_differences(timeout_seconds=timeout_seconds)

    async def aclose(self) -> None:
        """Closes the engine; running streams end with EngineUnavailable and are not sent again."""
        self._closed = True
        await self._engine.aclose()


class _Progress:
    """How far a request has come. `ids` are those that the caller has, `loss` what the last replica was lost by."""

    def __init__(self, request: EngineRequest) -> None:
        self.request = request
        self.ids: list[int] = []
        self.loss: EngineUnavailable | None = None
        self.sent = 0
        self._started = time.monotonic()
        self._ends = frozenset({request.end_id, *request.stop_ids})
        self._ids_at_last_loss = 0
        self._tries_in_a_row = 0

    @property
    def complete(self) -> bool:
        """Whether nothing is left to generate, although the engine could not say so any more."""
        return len(self.ids) >= self.request.max_tokens or bool(self.ids and self.ids[-1] in self._ends)

    def rest(self) -> EngineRequest:
        """The request for what is missing, under an id of its own: the engine may still know the one before."""
        self.sent += 1
        if self.sent == 1:
            return self.request
        request, timeout = self.request, self.request.timeout_seconds
        return replace(
            request,
            request_id=f"{request.request_id}-try{self.sent}",
            prompt_ids=[*request.prompt_ids, *self.ids],
            max_tokens=request.max_tokens - len(self.ids),
            sampling=replace(request.sampling, seed=seed_after(request.sampling.seed, len(self.ids))),
            timeout_seconds=None if timeout is None else timeout - (time.monotonic() - self._started),
        )

    def wait_after(self, loss: EngineUnavailable) -> float | None:
        """How long to wait before the next try, in seconds; None where there must be none."""
        if self.ids and self.request.guide is not None:
            return None
        if len(self.ids) > self._ids_at_last_loss:
            self._ids_at_last_loss, self._tries_in_a_row = len(self.ids), 0
        if self._tries_in_a_row == len(_WAITS_SECONDS):
            return None
        self.loss = loss
        self._tries_in_a_row += 1
        return _WAITS_SECONDS[self._tries_in_a_row - 1]


def seed_after(seed: int, count: int) -> int:
    """The seed for what follows the first `count` ids; the same one for none.

    An engine that starts with the same seed would draw the same random numbers for these ids as for the first ones,
    and text that repeats itself would be more likely. The result depends on nothing else, so a stream that breaks at
    the same place twice says the same twice. It fits into 64 bits, as the tensor does.
    """
    return (seed + count * _SEED_STEP) % _SEEDS
