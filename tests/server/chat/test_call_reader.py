"""Calls out of text: the same however the text is cut, piece by piece, and nothing that is no call gets by."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.chat.call_reader import CallReader
from server.chat.model import ToolCall, ToolCallDelta
from server.chat.tool_text import calls_text
from server.errors import EngineFailed


def reader() -> CallReader:
    numbers = count()
    return CallReader(lambda: f"id{next(numbers)}")


def call(index: int, name: str, arguments: str) -> ToolCall:
    return ToolCall(id=f"id{index}", name=name, arguments=arguments)


def read(pieces: list[str]) -> tuple[CallReader, list[ToolCallDelta]]:
    calls = reader()
    return calls, [delta for piece in pieces for delta in calls.feed(piece)]


def joined(deltas: list[ToolCallDelta]) -> list[ToolCall]:
    """Calls as a caller puts them together from their pieces."""
    found: list[dict[str, str]] = []
    for delta in deltas:
        if delta.index == len(found):
            found.append({"id": delta.id, "name": delta.name, "arguments": ""})
        else:
            assert (delta.index, delta.id, delta.name) == (len(found) - 1, "", "")
        found[-1]["arguments"] += delta.arguments
    return [ToolCall(**fields) for fields in found]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
ARGUMENTS = st.dictionaries(st.text(), JSON, max_size=3).map(lambda value: json.dumps(value, ensure_ascii=False))
CALLS = st.lists(st.tuples(st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True), ARGUMENTS), min_size=1, max_size=4)


@given(CALLS, st.data())
def test_any_cut_gives_the_same_calls(named: list[tuple[str, str]], data: Any) -> None:
    expected = [call(index, name, arguments) for index, (name, arguments) in enumerate(named)]
    text = calls_text(expected)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    calls, deltas = read(pieces)
    assert calls.calls == joined(deltas) == expected
    assert calls.may_end


def test_arguments_come_as_they_are_written() -> None:
    text = calls_text([call(0, "f", '{"a": "b}\\"{"}')])
    _, deltas = read(list(text))
    assert deltas[0] == ToolCallDelta(index=0, id="id0", name="f")
    assert "".join(delta.arguments for delta in deltas) == '{"a": "b}\\"{"}'
    assert all(len(delta.arguments) == 1 for delta in deltas[1:])


TWO = calls_text([call(0, "f", '{"a": [1]}'), call(1, "g", "{}")])


def test_every_beginning_holds_whole_calls_only() -> None:
    """A call counts once its arguments are complete; the answer may end only between calls."""
    ends = [TWO.index("</tool_call>") + len("</tool_call>"), len(TWO)]
    for length in range(len(TWO) + 1):
        calls, deltas = read([TWO[:length]])
        assert calls.may_end == (length in ends), TWO[:length]
        assert calls.calls == joined(deltas)[: len(calls.calls)]
        assert len(calls.calls) == (length >= TWO.index("[1]}") + 4) + (length >= TWO.rindex("{}") + 2)


@pytest.mark.parametrize(
    "text",
    [
        "Sure!",
        "<tool_call>{",
        '<tool_call>\n{"name": "f", "parameters": {}}',
        calls_text([call(0, "f", "{}")]) + " and more",
        calls_text([call(0, "f", "{}")]) + "\n\n<tool_call>",
    ],
)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "by_character"])
def test_what_is_no_call_is_the_engines_failure(text: str, whole: bool) -> None:
    with pytest.raises(EngineFailed, match="not in the form of a tool call"):
        read([text] if whole else list(text))


@pytest.mark.parametrize("arguments", ["{1}", '{"a": nul}', "{,}", '{"a"}'])
def test_arguments_that_are_no_json_are_the_engines_failure(arguments: str) -> None:
    with pytest.raises(EngineFailed, match="not valid JSON"):
        read([calls_text([call(0, "f", arguments)])])


def test_deep_arguments_are_read() -> None:
    arguments = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"
    calls, _ = read([calls_text([call(0, "f", arguments)])])
    assert calls.calls == [call(0, "f", arguments)]
