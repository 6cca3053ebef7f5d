"""Tells an answer's text apart: plain text up to a stop string, or tool calls; never both. Knows no tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from .call_reader import CallReader
from .model import ReplyShape, Text, ToolCall, ToolCallDelta
from .stops import StopMatcher
from .tool_text import CALL_MARK

Piece: TypeAlias = Text | ToolCallDelta


class ReplyReader:
    """`feed()` text until `stop_sequence` is set or no more comes, then `finish()`.

    Where both are possible, the first characters decide: an answer that begins with the mark of a call consists of
    calls. Until then they are held back. Stop strings are looked for in text only: a call is never cut in half by one.
    """

    def __init__(self, shape: ReplyShape, *, stops: tuple[str, ...], new_id: Callable[[], str]) -> None:
        self._stops = StopMatcher(stops)
        self._calls = CallReader(new_id) if shape.functions else None
        self._undecided: str | None = "" if shape.functions and shape.text is not None else None

    @property
    def stop_sequence(self) -> str | None:
        """The stop string that ended the answer."""
        return self._stops.matched

    @property
    def has_calls(self) -> bool:
        """Whether the answer is decided to consist of calls."""
        return self._calls is not None and self._undecided is None

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls that are whole."""
        return tuple(self._calls.calls) if self._calls is not None else ()

    @property
    def may_end(self) -> bool:
        """Whether the answer can be whole as it is; text always can."""
        return self._calls is None or self._undecided is not None or self._calls.may_end

    def feed(self, text: str) -> list[Piece]:
        """What can be shown now. Raises EngineFailed where calls are not in their form."""
        if self._undecided is not None:
            text = self._decide(text)
        return self._shown(text) if text else []

    def finish(self, *, cut: bool) -> list[Piece]:
        """What was held back, once no more text comes. The beginning of a mark that was cut off is no text."""
        text = ""
        if self._undecided is not None:
            text = "" if cut else self._stops.feed(self._undecided)
            self._calls = self._undecided = None
        text += self._stops.finish()
        return [Text(text=text)] if text else []

    def _decide(self, text: str) -> str:
        """The text so far once it is decided what it is; "" until then."""
        text = (self._undecided or "") + text
        if CALL_MARK.startswith(text) and text != CALL_MARK:
            self._undecided = text
            return ""
        self._undecided = None
        if not text.startswith(CALL_MARK):
            self._calls = None
        return text

    def _shown(self, text: str) -> list[Piece]:
        if self._calls is not None:
            return list(self._calls.feed(text))
        shown = self._stops.feed(text)
        return [Text(text=shown)] if shown else []
