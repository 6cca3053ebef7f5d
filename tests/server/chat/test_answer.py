"""One answer: text, count and reason depend on the ids alone, not on how they were grouped."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.chat.answer import Answer, _joined
from server.chat.model import (
    AnyJsonObject,
    FinishReason,
    FunctionTool,
    ReplyShape,
    Text,
    TextWithoutCalls,
    ToolCall,
    ToolCallDelta,
)
from server.chat.tool_text import calls_text
from server.errors import EngineFailed
from tests.fakes import IM_END

TOKENS = [*(bytes([byte]) for byte in range(256)), b"", b"", b"END", b"xENDy"]
OTHER_END, END_TOKEN, WIDE_TOKEN = 256, 258, 259
END_IDS = (IM_END, OTHER_END)


# Text, tokens, reason, stop string.
Outcome: TypeAlias = tuple[str, int, FinishReason, str | None]


def answered(
    groups: list[list[int]], *, stops: tuple[str, ...] = (), budget: int = 100, max_tokens: int = 100
) -> Outcome:
    """What comes of an answer that is read as the pipeline reads it."""
    answer = Answer(token_bytes=TOKENS, stops=stops, end_ids=END_IDS)
    pieces = []
    for group in groups:
        pieces += answer.feed(group)
        if answer.ended:
            break
    held_back, reason = answer.finish(budget=budget, max_tokens=max_tokens)
    pieces += held_back
    text = "".join(piece.text for piece in pieces if isinstance(piece, Text))
    return text, answer.completion_tokens, reason, answer.stop_sequence


STOP, STOP_SEQUENCE = FinishReason.STOP, FinishReason.STOP_SEQUENCE
MAX_TOKENS, CONTEXT_LENGTH = FinishReason.MAX_TOKENS, FinishReason.CONTEXT_LENGTH


@pytest.mark.parametrize(
    ("ids", "stops", "limits", "expected"),
    [
        pytest.param([], (), (9, 9), ("", 0, STOP, None), id="nothing"),
        pytest.param([*b"hi"], (), (9, 9), ("hi", 2, STOP, None), id="fewer_than_allowed"),
        pytest.param([*b"hi", IM_END], (), (9, 9), ("hi", 2, STOP, None), id="end_id_is_not_counted"),
        pytest.param([*b"hi", OTHER_END, *b"x"], (), (9, 9), ("hi", 2, STOP, None), id="other_end_id_ids_after_it"),
        pytest.param([IM_END], (), (9, 9), ("", 0, STOP, None), id="end_id_alone"),
        pytest.param([*b"hi"], (), (2, 2), ("hi", 2, MAX_TOKENS, None), id="max_tokens"),
        pytest.param([*b"hi", IM_END], (), (2, 2), ("hi", 2, STOP, None), id="end_id_after_the_last_allowed"),
        pytest.param([*b"hi"], (), (2, 5), ("hi", 2, CONTEXT_LENGTH, None), id="context_full"),
        pytest.param([*b"h"], (), (2, 5), ("h", 1, STOP, None), id="context_not_full"),
        pytest.param([*b"aENDb"], ("END",), (9, 9), ("a", 4, STOP_SEQUENCE, "END"), id="stop_string"),
        pytest.param([*b"aEND"], ("END",), (4, 4), ("a", 4, STOP_SEQUENCE, "END"), id="stop_string_with_the_last"),
        pytest.param([97, WIDE_TOKEN, 98], ("END",), (9, 9), ("ax", 2, STOP_SEQUENCE, "END"), id="inside_a_token"),
        pytest.param([*b"EN", IM_END, *b"D"], ("END",), (9, 9), ("EN", 2, STOP, None), id="held_back_at_the_end"),
        pytest.param([*"é🎉".encode()[:5]], (), (9, 9), ("é", 5, STOP, None), id="unfinished_character"),
        pytest.param([*"aé".encode()], ("é",), (9, 9), ("a", 3, STOP_SEQUENCE, "é"), id="stop_of_two_tokens"),
        pytest.param([97, 9999, 98], (), (9, 9), ("ab", 3, STOP, None), id="unknown_id_counts"),
    ],
)
def test_whatever_the_grouping(
    ids: list[int], stops: tuple[str, ...], limits: tuple[int, int], expected: Outcome
) -> None:
    budget, max_tokens = limits
    for first in range(len(ids) + 1):
        for second in range(first, len(ids) + 1):
            groups = [ids[:first], ids[first:second], ids[second:]]
            assert answered(groups, stops=stops, budget=budget, max_tokens=max_tokens) == expected
    assert answered([[id_] for id_ in ids], stops=stops, budget=budget, max_tokens=max_tokens) == expected


IDS = st.sampled_from([*"abé🎉END".encode(), IM_END, END_TOKEN, WIDE_TOKEN])


@given(st.lists(st.lists(IDS, max_size=6), max_size=5), st.sampled_from([(), ("END",), ("b", "é", "NDE")]))
def test_any_grouping(groups: list[list[int]], stops: tuple[str, ...]) -> None:
    flat = [id_ for group in groups for id_ in group]
    assert answered(groups, stops=stops) == answered([flat], stops=stops) == answered([[i] for i in flat], stops=stops)


def test_ended_is_known_at_once() -> None:
    answer = Answer(token_bytes=TOKENS, stops=("b",), end_ids=END_IDS)
    assert (answer.feed([97]), answer.ended) == ([Text(text="a")], False)
    assert (answer.feed([98]), answer.ended) == ([], True)


FUNCTION = FunctionTool(name="f", description="", parameters='{"type": "object"}')
AUTO = ReplyShape(text=TextWithoutCalls(), functions=(FUNCTION,))
REQUIRED = ReplyShape(text=None, functions=(FUNCTION,))
NAMED = ReplyShape(text=None, functions=(FUNCTION,), single_call=True)
JSON_OBJECT = ReplyShape(text=AnyJsonObject())
CALL = calls_text([ToolCall(id="", name="f", arguments='{"a": "é"}')]).encode()
HALF = CALL[: CALL.index(b'{"a') + 2]
TOOL_CALLS, TIME_LIMIT = FinishReason.TOOL_CALLS, FinishReason.TIME_LIMIT


def shaped(
    shape: ReplyShape, groups: list[list[int]], *, budget: int = 1_000, timed_out: bool = False
) -> tuple[str, str, int, FinishReason]:
    """Text, arguments joined from their pieces, number of whole calls, reason."""
    answer = Answer(token_bytes=TOKENS, stops=(), end_ids=END_IDS, shape=shape, new_id=lambda: "id")
    pieces = [piece for group in groups for piece in answer.feed(group)]
    held_back, reason = answer.finish(budget=budget, max_tokens=budget, timed_out=timed_out)
    pieces += held_back
    text = "".join(piece.text for piece in pieces if isinstance(piece, Text))
    arguments = "".join(piece.arguments for piece in pieces if isinstance(piece, ToolCallDelta))
    return text, arguments, len(answer.tool_calls), reason


ARGUMENTS = '{"a": "é"}'


@pytest.mark.parametrize(
    ("shape", "ids", "more", "expected"),
    [
        pytest.param(AUTO, b"Hi", {}, ("Hi", "", 0, STOP), id="auto_text"),
        pytest.param(AUTO, CALL, {}, ("", ARGUMENTS, 1, TOOL_CALLS), id="auto_call"),
        pytest.param(AUTO, b"<tool", {"budget": 5}, ("", "", 0, MAX_TOKENS), id="auto_cut_before_it_was_decided"),
        pytest.param(REQUIRED, CALL, {}, ("", ARGUMENTS, 1, TOOL_CALLS), id="required"),
        pytest.param(REQUIRED, CALL + b"\n" + CALL, {}, ("", ARGUMENTS * 2, 2, TOOL_CALLS), id="two_calls"),
        pytest.param(REQUIRED, CALL, {"budget": len(CALL)}, ("", ARGUMENTS, 1, MAX_TOKENS), id="more_might_have_come"),
        pytest.param(NAMED, CALL, {"budget": len(CALL)}, ("", ARGUMENTS, 1, TOOL_CALLS), id="nothing_more_could_come"),
        pytest.param(
            REQUIRED,
            CALL + b"\n" + HALF,
            {"budget": len(CALL) + 1 + len(HALF)},
            ("", ARGUMENTS + '{"', 1, MAX_TOKENS),
            id="half_a_call",
        ),
        pytest.param(REQUIRED, HALF, {"timed_out": True}, ("", '{"', 0, TIME_LIMIT), id="time_limit_in_a_call"),
        pytest.param(JSON_OBJECT, b'{"a": 1}', {"budget": 8}, ('{"a": 1}', "", 0, STOP), id="json_is_complete"),
        pytest.param(JSON_OBJECT, b'{"a": 1', {"budget": 7}, ('{"a": 1', "", 0, MAX_TOKENS), id="json_is_cut"),
        pytest.param(JSON_OBJECT, b'{"a": 1', {"timed_out": True}, ('{"a": 1', "", 0, TIME_LIMIT), id="json_timed_out"),
    ],
)
def test_shaped_answers(
    shape: ReplyShape, ids: bytes, more: dict[str, Any], expected: tuple[str, str, int, FinishReason]
) -> None:
    assert shaped(shape, [[*ids]], **more) == shaped(shape, [[each] for each in ids], **more) == expected


def test_an_end_inside_a_call_is_the_engines_failure() -> None:
    with pytest.raises(EngineFailed, match="in the middle of a tool call"):
        shaped(REQUIRED, [[*HALF, IM_END]])


@given(
    st.lists(st.integers(1, 7), min_size=1),
    st.sampled_from([CALL, CALL + b"\n" + CALL, b"<tool box", "é <tool_".encode()]),
)
def test_any_grouping_of_the_same_ids_gives_the_same_events(sizes: list[int], ids: bytes) -> None:
    """Joined to what one group gives: the same text, the same pieces of the same calls in the same order."""
    groups, start = [], 0
    while start < len(ids):
        size = sizes[len(groups) % len(sizes)]
        groups.append([*ids[start : start + size]])
        start += size

    def events(groups: list[list[int]]) -> list[Text | ToolCallDelta]:
        answer = Answer(token_bytes=TOKENS, stops=(), end_ids=END_IDS, shape=AUTO, new_id=lambda: "id")
        pieces = [piece for group in groups for piece in answer.feed(group)]
        return _joined([*pieces, *answer.finish(budget=10**6, max_tokens=10**6)[0]])

    assert events(groups) == events([[*ids]]) == events([[each] for each in ids])


def test_a_stop_string_in_what_was_held_back_is_the_reason() -> None:
    answer = Answer(token_bytes=TOKENS, stops=("<",), end_ids=END_IDS, shape=AUTO)
    assert answer.feed([*b"<to", IM_END]) == []
    assert answer.finish(budget=9, max_tokens=9) == ([], STOP_SEQUENCE)
    assert answer.stop_sequence == "<"
