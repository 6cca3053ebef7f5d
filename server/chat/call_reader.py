"""Reads tool calls out of an answer's text as it comes: names, pieces of arguments, whole calls.

Each character is looked at once. The form is that of `tool_text`, which guided decoding enforces, so anything else is a
failure of the engine. Knows no tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from ..errors import EngineFailed
from .model import ToolCall, ToolCallDelta
from .tool_text import CALL_CLOSE, CALL_MIDDLE, CALL_OPEN, CALL_SEPARATOR


class CallReader:
    """`feed()` an answer that consists of calls. `calls` are those whose arguments are complete."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self.calls: list[ToolCall] = []
        self._new_id = new_id
        self._deltas: list[ToolCallDelta] = []
        self._expect(CALL_OPEN, then=self._read_name)
        self._begin_call()

    @property
    def may_end(self) -> bool:
        """Whether the answer is whole as it is: at least one call, and none half written."""
        return bool(self.calls) and self._read == self._read_separator

    def feed(self, text: str) -> list[ToolCallDelta]:
        """The next pieces of calls. Raises EngineFailed where the text is no call."""
        self._deltas = []
        while text:
            text = self._read(text)
        return self._deltas

    def _begin_call(self) -> None:
        self._name = ""
        self._id = ""
        self._arguments: list[str] = []
        self._end = _ObjectEnd()

    def _expect(self, literal: str, *, then: Callable[[str], str]) -> None:
        self._expected_left = literal
        self._then = then
        self._read: Callable[[str], str] = self._read_expected

    def _read_expected(self, text: str) -> str:
        length = min(len(text), len(self._expected_left))
        if text[:length] != self._expected_left[:length]:
            raise EngineFailed("its answer is not in the form of a tool call, though it was told to keep to that form")
        self._expected_left = self._expected_left[length:]
        if not self._expected_left:
            self._read = self._then
        return text[length:]

    def _read_name(self, text: str) -> str:
        part, quote, rest = text.partition(CALL_MIDDLE[0])
        self._name += part
        if quote:
            self._id = self._new_id()
            self._deltas.append(ToolCallDelta(index=len(self.calls), id=self._id, name=self._name))
            self._expect(CALL_MIDDLE[1:], then=self._read_arguments)
        return rest

    def _read_arguments(self, text: str) -> str:
        length = self._end.find(text)
        part = text if length is None else text[:length]
        self._arguments.append(part)
        self._deltas.append(ToolCallDelta(index=len(self.calls), arguments=part))
        if length is not None:
            self.calls.append(ToolCall(id=self._id, name=self._name, arguments=_checked("".join(self._arguments))))
            self._begin_call()
            self._expect(CALL_CLOSE, then=self._read_separator)
        return text[len(part) :]

    def _read_separator(self, text: str) -> str:
        self._expect(CALL_SEPARATOR + CALL_OPEN, then=self._read_name)
        return text


class _ObjectEnd:
    """Finds the brace that closes a JSON object, given the object in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def find(self, text: str) -> int | None:
        """Length of the part of `text` that belongs to the object; None while it goes on."""
        for index, character in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._escaped = character == "\\"
                self._in_string = character != '"'
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return index + 1
        return None


def _checked(arguments: str) -> str:
    """Arguments are promised to be valid JSON, so an engine that ignores its guide must not get by."""
    try:
        json.loads(arguments)
    except RecursionError:
        pass  # nested too deeply for this parser, but well-formed as far as brackets and strings go
    except ValueError:
        raise EngineFailed("it wrote a tool call whose arguments are not valid JSON, against its guide") from None
    return arguments
