"""Ranges of digits, against counting."""

from __future__ import annotations

import random

import pytest

from server.chat.grammar.digits import split_numbers, whole_numbers
from server.chat.grammar.expressions import Grammar, choice
from server.chat.grammar.limits import expanded_size
from tests.grammar_tools import accepts


@pytest.mark.parametrize(
    ("first", "last"), [(0, 0), (0, 9), (7, 7), (0, 12), (9, 10), (1, 120), (98, 1011), (500, 599)]
)
def test_whole_numbers(first: int, last: int) -> None:
    grammar = Grammar({"root": choice(*whole_numbers(first, last))})
    assert [each for each in range(1_200) if accepts(grammar, str(each)) != (first <= each <= last)] == []
    assert not accepts(grammar, f"0{last}")


@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 999), (1, 999), (0, 998), (120, 120), (99, 301), (100, 109)])
def test_split_numbers(first: int, last: int) -> None:
    grammar = Grammar({"root": split_numbers(7, first, last, 3)})
    for each in range(1_000):
        digits = f"{each:03}"
        for text in {digits, digits.rstrip("0") or "0"}:
            assert accepts(grammar, f"7.{text}") == (first <= each <= last), text
    assert not accepts(grammar, "7.")


def test_ranges_stay_small() -> None:
    draw = random.Random(1)
    for _ in range(200):
        first, last = sorted(draw.randrange(10 ** draw.randint(1, 18)) for _ in range(2))
        assert expanded_size(choice(*whole_numbers(first, last))) < 1_500
