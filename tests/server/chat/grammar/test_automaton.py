"""Automata read exactly the texts in which the forbidden does not occur, and have as few states as can be."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.chat.grammar.automaton import Automaton, automaton_without
from server.chat.grammar.regex import whole_expression


def reads(automaton: Automaton, text: str) -> bool:
    state = 0
    for character in text:
        following = [
            to
            for to, ranges in automaton.edges[state].items()
            if any(first <= ord(character) <= last for first, last in ranges)
        ]
        if not following:
            return False
        [state] = following
    return True


PATTERNS = ["a", "ab", "aab", "a|b", "ab|ba", "a[^b]a", "a.{2}b", "ab+a", "(ab){2}", "a(b|ab)*c", "abc|bca|cab"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_same_as_a_search(pattern: str) -> None:
    automaton = automaton_without(whole_expression(pattern))

    @given(st.text("abc", max_size=10))
    def same(text: str) -> None:
        assert reads(automaton, text) == (re.search(pattern, text) is None)

    same()


@pytest.mark.parametrize(
    ("pattern", "states"),
    [("a", 1), ("abcd", 4), ("aaaa", 4), ("ab|cd", 3), ("abx|cbx", 3), ("ab*c", 2), ("[ab]{3}", 3)],
)
def test_states_are_as_few_as_can_be(pattern: str, states: int) -> None:
    assert len(automaton_without(whole_expression(pattern)).edges) == states
