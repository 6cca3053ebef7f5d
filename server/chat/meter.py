"""What one request has used so far, for whoever has to tell it when the answer does not come to its end.

The pipeline writes it as it goes; plain numbers, no logic.
"""

from __future__ import annotations

from dataclasses import dataclass

from .model import FinishReason


@dataclass(slots=True)
class Meter:
    """Counts of one request. Mutable: the one place where an answer that is cut short leaves its figures."""

    prompt_tokens: int | None = None
    """None until the prompt has been encoded."""
    completion_tokens: int = 0
    first_token_seconds: float | None = None
    """From the request's arrival."""
    finish_reason: FinishReason | None = None
    """None until the answer has ended by itself."""
