"""The seam between the chat pipeline and whatever computes tokens: token ids in, token ids out.

Knows nothing of text. Implemented by `server.triton.engine`, and by scripted fakes in tests.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from .model import Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """What the engine is asked for.

    `max_tokens` fits into the context after the prompt. Generation ends before `end_id` and after any of `stop_ids`.
    `guide` is the EBNF grammar that the text must follow; the engine ends where nothing can follow. `adapter_id` is the
    number of a LoRA adapter. `timeout_seconds` is what is left of the call's deadline; None is no deadline.
    `trace_headers` let the engine's spans join the call's trace; they are carried, not read.
    """

    request_id: str
    prompt_ids: Sequence[int]
    max_tokens: int
    end_id: int
    pad_id: int
    stop_ids: tuple[int, ...]
    sampling: Sampling
    guide: str | None = None
    adapter_id: int | None = None
    timeout_seconds: float | None = None
    trace_headers: tuple[tuple[str, str], ...] = ()


class Engine(Protocol):
    """Something that generates token ids."""

    def stream(self, request: EngineRequest) -> AsyncGenerator[Sequence[int], None]:
        """Yields new token ids as they come, one or several at a time, possibly none in the last item.

        The stream ends when generation has ended; why is for the caller to infer. Closing the generator frees the
        engine's slot. Raises EngineUnavailable, EngineBusy, EngineFailed or DeadlineExceeded.
        """
        ...
