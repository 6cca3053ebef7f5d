"""One answer in the making: token ids in, text out, until it is complete. Knows no engine and no clock."""

from __future__ import annotations

from collections.abc import Sequence

from .detokenizer import Detokenizer
from .model import FinishReason
from .stops import StopMatcher


class Answer:
    """`feed()` ids until `ended` is set or no more come, then `finish()`.

    What comes out in total depends on the ids alone, not on how they were grouped: text, count and reason are the same.
    """

    def __init__(self, *, token_bytes: Sequence[bytes], stops: tuple[str, ...], end_ids: tuple[int, ...]) -> None:
        self._detokenizer = Detokenizer(token_bytes)
        self._stops = StopMatcher(stops)
        self._end_ids = frozenset(end_ids)
        self._met_end_id = False
        self.completion_tokens = 0

    @property
    def ended(self) -> bool:
        """Whether the answer is complete, whatever else the engine may send."""
        return self._met_end_id or self._stops.matched is not None

    @property
    def stop_sequence(self) -> str | None:
        """The stop string that ended the answer."""
        return self._stops.matched

    def feed(self, ids: Sequence[int]) -> str:
        """Text that can be shown now; "" where it is held back. Ids after the end are ignored."""
        shown = ""
        for token_id in ids:
            if token_id in self._end_ids:
                self._met_end_id = True
                break
            self.completion_tokens += 1
            text = self._detokenizer.feed(token_id)
            if text:
                shown += self._stops.feed(text)
                if self._stops.matched is not None:
                    break
        return shown

    def finish(self) -> str:
        """Text that was held back as the possible beginning of a stop string."""
        return self._stops.finish()

    def finish_reason(self, *, budget: int, max_tokens: int) -> FinishReason:
        """Why the answer ended, once it has.

        The engine does not tell, so it is inferred: a stop string; an end id seen; all of the `budget`, which is
        `max_tokens` unless the context left less; otherwise the model ended its turn with the end id that engines
        keep to themselves.
        """
        if self._stops.matched is not None:
            return FinishReason.STOP_SEQUENCE
        if self._met_end_id or self.completion_tokens < budget:
            return FinishReason.STOP
        return FinishReason.MAX_TOKENS if budget == max_tokens else FinishReason.CONTEXT_LENGTH
