"""One answer: text, count and reason depend on the ids alone, not on how they were grouped."""

from __future__ import annotations

from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.chat.answer import Answer
from server.chat.model import FinishReason
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
    text = ""
    for group in groups:
        text += answer.feed(group)
        if answer.ended:
            break
    text += answer.finish()
    reason = answer.finish_reason(budget=budget, max_tokens=max_tokens)
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
    assert (answer.feed([97]), answer.ended) == ("a", False)
    assert (answer.feed([98]), answer.ended) == ("", True)
