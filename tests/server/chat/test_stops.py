"""Stop strings: the same cut however the text arrives, and nothing held back that can be shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.chat.stops import StopMatcher


def outcome(stops: tuple[str, ...], pieces: list[str]) -> tuple[str, str | None]:
    matcher = StopMatcher(stops)
    shown = ""
    for piece in pieces:
        shown += matcher.feed(piece)
        if matcher.matched is not None:
            break
    return shown + matcher.finish(), matcher.matched


def naive_outcome(stops: tuple[str, ...], text: str) -> tuple[str, str | None]:
    """Character by character: the stop strings that end here, the longest of them."""
    for end in range(len(text) + 1):
        here = [stop for stop in stops if text[:end].endswith(stop)]
        if here:
            longest = max(here, key=len)
            return text[: end - len(longest)], longest
    return text, None


CASES = [
    pytest.param((), "anything", ("anything", None), id="no_stops"),
    pytest.param(("END",), "no stop here", ("no stop here", None), id="none_occurs"),
    pytest.param(("END",), "some END more", ("some ", "END"), id="cut_before"),
    pytest.param(("END",), "END", ("", "END"), id="at_once"),
    pytest.param(("END",), "some EN", ("some EN", None), id="unfinished_at_the_end_is_given_back"),
    pytest.param(("END",), "ENEND", ("EN", "END"), id="false_start"),
    pytest.param(("aab",), "aaab", ("a", "aab"), id="overlapping_itself"),
    pytest.param(("b", "abc"), "abc", ("a", "b"), id="complete_first_wins"),
    pytest.param(("abc", "bc", "c"), "xabc", ("x", "abc"), id="longest_of_those_complete_together"),
    pytest.param(("c", "bc", "abc"), "xabc", ("x", "abc"), id="whatever_their_order"),
    pytest.param(("abcd", "bc"), "abcd", ("a", "bc"), id="inside_a_longer_one"),
    pytest.param(("x", "x"), "axb", ("a", "x"), id="twice_the_same"),
    pytest.param(("\n\n",), "a\n\n\nb", ("a", "\n\n"), id="first_of_overlapping_places"),
    pytest.param(("🎉é",), "🎉🎉é", ("🎉", "🎉é"), id="not_ascii"),
    pytest.param(("<|eot_id|>",), "a<|eot_id|>b", ("a", "<|eot_id|>"), id="looks_like_a_control_token"),
]


@pytest.mark.parametrize(("stops", "text", "expected"), CASES)
def test_every_cut_gives_the_same(stops: tuple[str, ...], text: str, expected: tuple[str, str | None]) -> None:
    assert outcome(stops, list(text)) == expected
    for first in range(len(text) + 1):
        for second in range(first, len(text) + 1):
            assert outcome(stops, [text[:first], text[first:second], text[second:]]) == expected


SHORT_TEXTS = st.text("ab", max_size=12)
STOPS = st.lists(st.text("ab", min_size=1, max_size=4), max_size=4).map(tuple)


@given(STOPS, st.lists(SHORT_TEXTS, max_size=5))
def test_same_as_the_naive_way(stops: tuple[str, ...], pieces: list[str]) -> None:
    assert outcome(stops, pieces) == naive_outcome(stops, "".join(pieces))


@given(STOPS, SHORT_TEXTS)
def test_holds_back_no_more_than_it_must(stops: tuple[str, ...], text: str) -> None:
    matcher = StopMatcher(stops)
    shown = matcher.feed(text)
    if matcher.matched is None:
        held = text[len(shown) :]
        begins = [end for end in range(len(text) + 1) if any(stop.startswith(text[end:]) for stop in stops)]
        assert shown + held == text
        assert len(shown) == min(begins, default=len(text))


def test_finish_gives_what_was_held_once() -> None:
    matcher = StopMatcher(("END",))
    assert (matcher.feed("xEN"), matcher.finish(), matcher.finish()) == ("x", "EN", "")
