"""The chat pipeline: prompt -> token ids -> engine -> text -> events. One request, one `TextGenerator.generate`.

Knows neither gRPC nor Triton: requests come checked, and the engine is whatever implements `engine.Engine`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..errors import FieldViolation, InvalidRequest, PromptTooLong
from .answer import Answer
from .engine import Engine, EngineRequest
from .meter import Meter
from .model import Event, Finished, GenerationRequest, Started, Usage
from .rendering import PromptRenderer
from .token_buffer import TokenBuffer, open_token_buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class TextGenerator:
    """Generates answers with one model.

    `end_ids`: the ids that end a turn, the first as the engine's end id. `context_length`: tokens of prompt and
    answer together. `buffer_tokens`: how many tokens a slow caller may leave waiting before its stream is held up.
    """

    renderer: PromptRenderer
    engine: Engine
    end_ids: tuple[int, ...]
    pad_id: int
    context_length: int
    buffer_tokens: int

    async def encode(self, request: GenerationRequest) -> list[int]:
        """Token ids of the request's prompt. Raises PromptTooLong where no room is left, InvalidRequest for none."""
        prompt_ids = await self.renderer.render(request.prompt)
        if not prompt_ids:  # raw text of bytes for which the vocabulary has no token
            raise InvalidRequest((FieldViolation(field=request.prompt_field, description="gives no token at all"),))
        if len(prompt_ids) >= self.context_length:
            raise PromptTooLong(
                field=request.prompt_field, prompt_tokens=len(prompt_ids), context_length=self.context_length
            )
        return prompt_ids

    async def generate(self, request: GenerationRequest, meter: Meter | None = None) -> AsyncGenerator[Event, None]:
        """Started, then Text or ToolCallDelta as it comes, then Finished. Closing it cancels the engine's work.

        `meter` holds what has been used at any time. Raises PromptTooLong, EngineUnavailable, EngineBusy, EngineFailed
        or DeadlineExceeded; engine errors may also come after some text.
        """
        start = time.monotonic() if request.arrival is None else request.arrival
        meter = meter or Meter()
        prompt_ids = await self.encode(request)
        meter.prompt_tokens = len(prompt_ids)
        budget = min(request.max_tokens, self.context_length - len(prompt_ids))
        answer = self._answer(request)
        time_limit = _TimeLimit(start, request.time_limit_seconds)
        stream = self.engine.stream(self._engine_request(request, prompt_ids, budget))
        async with open_token_buffer(stream, limit=self.buffer_tokens) as tokens:
            with time_limit.on(tokens):
                ids = await tokens.take()
                if ids is not None:
                    meter.first_token_seconds = time.monotonic() - start
                # Only now, so that a call which fails before the engine took it can be retried by gRPC itself.
                yield Started(prompt_tokens=len(prompt_ids))
                while ids is not None:
                    pieces = answer.feed(ids)
                    meter.completion_tokens = answer.completion_tokens
                    for piece in pieces:
                        yield piece
                    if answer.ended:
                        break  # leaving the block frees the engine's slot before the last events go out
                    ids = await tokens.take()
        held_back, reason = answer.finish(budget=budget, max_tokens=request.max_tokens, timed_out=time_limit.passed)
        meter.finish_reason = reason
        for piece in held_back:
            yield piece
        yield Finished(
            finish_reason=reason,
            stop_sequence=answer.stop_sequence,
            tool_calls=answer.tool_calls,
            usage=Usage(prompt_tokens=len(prompt_ids), completion_tokens=answer.completion_tokens),
            first_token_seconds=meter.first_token_seconds,
            duration_seconds=time.monotonic() - start,
        )

    def _answer(self, request: GenerationRequest) -> Answer:
        return Answer(
            token_bytes=self.renderer.tokenizer.token_bytes,
            stops=request.stop,
            end_ids=self.end_ids,
            shape=request.shape,
        )

    def _engine_request(self, request: GenerationRequest, prompt_ids: list[int], budget: int) -> EngineRequest:
        end_id, *stop_ids = self.end_ids
        return EngineRequest(
            # Callers may use an id twice at once, which would confuse the engine.
            request_id=f"{request.request_id}-{secrets.token_hex(4)}",
            prompt_ids=prompt_ids,
            max_tokens=budget,
            end_id=end_id,
            pad_id=self.pad_id,
            stop_ids=tuple(stop_ids),
            sampling=request.sampling,
            guide=request.guide,
            adapter_id=request.adapter_id,
            timeout_seconds=request.timeout_seconds,
            trace_headers=request.trace_headers,
        )


class _TimeLimit:
    """Ends a buffer of tokens when a request's time limit, counted from `start`, has passed."""

    def __init__(self, start: float, seconds: float | None) -> None:
        self._end = None if seconds is None else start + seconds
        self.passed = False

    @contextmanager
    def on(self, tokens: TokenBuffer) -> Iterator[None]:
        """In force while the block runs."""
        if self._end is None:
            yield
            return
        left = self._end - time.monotonic()
        timer = asyncio.get_running_loop().call_later(max(left, 0), self._pass, tokens)
        try:
            yield
        finally:
            timer.cancel()

    def _pass(self, tokens: TokenBuffer) -> None:
        self.passed = tokens.end()
