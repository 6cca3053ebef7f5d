"""One answer in the making: token ids in, text and tool calls out, until it is complete. Knows no engine, no clock."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence

from ..errors import EngineFailed
from .detokenizer import Detokenizer
from .model import AnyJsonObject, FinishReason, JsonSchema, ReplyShape, Text, ToolCall, ToolCallDelta
from .reply_reader import Piece, ReplyReader


def new_call_id() -> str:
    """An id that no other call of a conversation has."""
    return f"call_{secrets.token_hex(12)}"


class Answer:
    """`feed()` ids until `ended` is set or no more come; then `finish()`.

    What comes out in total depends on the ids alone, not on how they were grouped: text, calls, count and reason are
    the same.
    """

    def __init__(
        self,
        *,
        token_bytes: Sequence[bytes],
        stops: tuple[str, ...],
        end_ids: tuple[int, ...],
        shape: ReplyShape | None = None,
        new_id: Callable[[], str] = new_call_id,
    ) -> None:
        self._shape = shape or ReplyShape()
        self._detokenizer = Detokenizer(token_bytes)
        self._reader = ReplyReader(self._shape, stops=stops, new_id=new_id)
        self._end_ids = frozenset(end_ids)
        self._met_end_id = False
        # Only kept where its end can be told from the text itself.
        self._json: list[str] | None = [] if isinstance(self._shape.text, (AnyJsonObject, JsonSchema)) else None
        self.completion_tokens = 0

    @property
    def ended(self) -> bool:
        """Whether the answer is complete, whatever else the engine may send."""
        return self._met_end_id or self._reader.stop_sequence is not None

    @property
    def stop_sequence(self) -> str | None:
        """The stop string that ended the answer."""
        return self._reader.stop_sequence

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls that are whole."""
        return self._reader.calls

    def feed(self, ids: Sequence[int]) -> list[Piece]:
        """What can be shown now; nothing where it is held back. Ids after the end are ignored. Raises EngineFailed."""
        pieces: list[Piece] = []
        for token_id in ids:
            if token_id in self._end_ids:
                self._met_end_id = True
                break
            self.completion_tokens += 1
            text = self._detokenizer.feed(token_id)
            if text:
                pieces += self._reader.feed(text)
                if self._json is not None:
                    self._json.append(text)
                if self._reader.stop_sequence is not None:
                    break
        return pieces if len(pieces) < 2 else _joined(pieces)

    def finish(self, *, budget: int, max_tokens: int, timed_out: bool = False) -> tuple[list[Piece], FinishReason]:
        """What was held back, and why the answer ended. Raises EngineFailed where it ended in the middle of a call.

        The engine does not tell why, so it is inferred: a stop string; an end id seen; the time limit; all of the
        `budget`, which is `max_tokens` unless the context left less; otherwise the model ended its turn with the end id
        that engines keep to themselves.
        """
        by_itself = self._met_end_id or (not timed_out and self.completion_tokens < budget)
        if by_itself and not self._reader.may_end:
            raise EngineFailed("it ended its answer in the middle of a tool call")
        whole = by_itself or self._is_whole()
        held_back = self._reader.finish(cut=not whole)
        if self._reader.stop_sequence is not None:
            return held_back, FinishReason.STOP_SEQUENCE
        if whole:
            return held_back, FinishReason.TOOL_CALLS if self._reader.has_calls else FinishReason.STOP
        if timed_out:
            return held_back, FinishReason.TIME_LIMIT
        return held_back, FinishReason.MAX_TOKENS if budget == max_tokens else FinishReason.CONTEXT_LENGTH

    def _is_whole(self) -> bool:
        """Whether nothing could have followed, had there been room."""
        if self._reader.has_calls:
            return self._shape.single_call and self._reader.may_end
        return self._json is not None and _is_closed_json("".join(self._json))


def _is_closed_json(text: str) -> bool:
    """Whether the text is JSON to which nothing can be added: 12 could go on as 123; objects, strings, true can't."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return not text[-1].isdigit()


def _joined(pieces: list[Piece]) -> list[Piece]:
    """The same with neighbours made one: what waited for a slow caller goes out as few messages."""
    joined = pieces[:1]
    for piece in pieces[1:]:
        last = joined[-1]
        if isinstance(piece, Text) and isinstance(last, Text):
            joined[-1] = Text(text=last.text + piece.text)
        elif isinstance(piece, ToolCallDelta) and isinstance(last, ToolCallDelta) and piece.index == last.index:
            arguments = last.arguments + piece.arguments
            joined[-1] = ToolCallDelta(index=last.index, id=last.id, name=last.name, arguments=arguments)
        else:
            joined.append(piece)
    return joined
