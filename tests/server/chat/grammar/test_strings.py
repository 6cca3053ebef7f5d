"""Strings with their quotes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.chat.grammar.expressions import Grammar, GuideError
from server.chat.grammar.json_values import RULES
from server.chat.grammar.strings import MAX_LENGTH, Texts, string_expression
from tests.grammar_tools import accepts, sample


def grammar(texts: Texts) -> Grammar:
    return Grammar({**RULES, "root": string_expression(texts)})


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 10_000))
def test_lengths_are_exact(shortest: int, more: int, seed: int) -> None:
    made = grammar(Texts(shortest=shortest, longest=shortest + more))
    value = json.loads(sample(made, seed))
    assert shortest <= len(value) <= shortest + more
    assert not accepts(made, json.dumps("x" * (shortest + more + 1)))
    assert accepts(made, json.dumps("é\n😀😀😀😀😀😀😀😀😀😀😀😀"[:shortest], ensure_ascii=False))


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
def test_all_texts_can_be_written(text: str) -> None:
    """But for control characters that have no short escape."""
    written = json.dumps(text, ensure_ascii=False)
    assert accepts(grammar(Texts()), written) == ("\\u" not in written and "\x7f" not in written)


@pytest.mark.parametrize(
    ("texts", "good", "bad"),
    [
        (Texts(pattern='^"$'), '"\\""', '"""'),
        (Texts(pattern="^a{2,4}$", shortest=2, longest=4), '"aaa"', '"a"'),
        (Texts(format="ipv4", shortest=7, longest=15), '"1.2.3.4"', '"1.2.3"'),
        (Texts(shortest=2), '"abc"', '"a"'),
        (Texts(longest=2 * MAX_LENGTH), '"abc"', '"' + "a" * (MAX_LENGTH + 1) + '"'),
        (
            Texts(format="uri", shortest=1, longest=2083),
            '"https://a.example/b?c#d"',
            json.dumps("https://a.example/" + "b" * 200),
        ),
    ],
)
def test_constraints(texts: Texts, good: str, bad: str) -> None:
    assert accepts(grammar(texts), good)
    assert not accepts(grammar(texts), bad)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (Texts(pattern="^(a|bb)$", shortest=2), "minLength can't be combined with pattern, which allows shorter"),
        (Texts(pattern="a", longest=2), "maxLength can't be combined with pattern, which allows longer"),
        (Texts(format="date", longest=9), "maxLength can't be combined with format"),
        (Texts(pattern="a", format="date"), "pattern can't be combined with format; leave out the pattern"),
        (Texts(shortest=2, longest=1), "at least 2 and at most 1"),
    ],
)
def test_refuses(texts: Texts, words: str) -> None:
    with pytest.raises(GuideError, match=words):
        string_expression(texts)
