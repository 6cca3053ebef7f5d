"""Expressions simplify themselves where they are put together, and are written so that every engine reads the same."""

from __future__ import annotations

import pytest

from server.chat.grammar.expressions import (
    EMPTY,
    ROOT,
    Characters,
    Choice,
    Expression,
    Grammar,
    Literal,
    Reference,
    Repeat,
    Sequence,
    characters,
    choice,
    merged,
    optional,
    sequence,
    to_ebnf,
)

A, B, X = Literal("a"), Literal("b"), Reference("x")


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (Literal("plain text"), '"plain text"'),
        (EMPTY, '""'),
        (Literal('a"b\\c'), r'"a\"b\\c"'),
        (Literal("\n\r\t"), r'"\n\r\t"'),
        (Literal("\x00A\x7f"), r'"\u0000A\u007F"'),  # \x00A would be one character to XGrammar
        (Literal("é中😀"), r'"\u00E9\u4E2D\U0001F600"'),
        (Literal("[]^-'"), '"[]^-\'"'),
        (characters("ba"), "[a-b]"),
        (characters("az"), "[az]"),
        (Characters(((0x61, 0x7A),), negated=True), "[^a-z]"),
        (Characters(((0x61, 0x7A), (0xE9, 0xE9)), negated=True), r"[\u0000-`{-\u00E8\u00EA-\uD7FF\uE000-\U0010FFFF]"),
        (characters('"[]\\^-'), r"[\u0022\u002D\u005B-\u005E]"),
        (characters("\n "), r"[\n ]"),
        (Characters(((0x80, 0x10FFFF),)), r"[\u0080-\U0010FFFF]"),
        (X, "x"),
        (Sequence((A, X)), '"a" x'),
        (Sequence(()), '""'),
        (Choice((A, B)), '"a" | "b"'),
        (Choice((A, EMPTY)), '"a" | ""'),
        (Choice((Sequence((A, X)), B)), '"a" x | "b"'),
        (Sequence((Choice((A, B)), X)), '("a" | "b") x'),
        (Sequence((Sequence((A, X)), B)), '"a" x "b"'),
        (Repeat(A, 0, None), '"a"*'),
        (Repeat(A, 1, None), '"a"+'),
        (Repeat(A, 0, 1), '"a"?'),
        (Repeat(A, 3, None), '"a"{3,}'),
        (Repeat(A, 3, 3), '"a"{3}'),
        (Repeat(A, 0, 3), '"a"{0,3}'),
        (Repeat(Sequence((A, X)), 0, None), '("a" x)*'),
        (Repeat(Choice((A, B)), 0, None), '("a" | "b")*'),
        (Repeat(Repeat(A, 1, None), 0, None), '("a"+)*'),
        (Repeat(optional(A), 2, 3), '("a"?){2,3}'),
        (Sequence((Repeat(A, 0, None), B)), '"a"* "b"'),
    ],
)
def test_written_as(expression: Expression, text: str) -> None:
    assert to_ebnf(Grammar({ROOT: expression})) == f"root ::= {text}\n"


def test_root_comes_first_and_the_rest_in_its_order() -> None:
    assert to_ebnf(Grammar({"b": B, "a": A, ROOT: X, "x": A})) == 'root ::= x\nb ::= "b"\na ::= "a"\nx ::= "a"\n'


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (sequence(), EMPTY),
        (sequence(A), A),
        (sequence(A, EMPTY, B), Literal("ab")),
        (sequence(A, X, EMPTY), Sequence((A, X))),
        (sequence(sequence(X, A), B), Sequence((X, Literal("ab")))),
        (choice(A), A),
        (choice(A, A), A),
        (choice(A, choice(B, A)), Choice((A, B))),
        (optional(A), Repeat(A, 0, 1)),
        (characters("cab"), Characters(((0x61, 0x63),))),
    ],
)
def test_simplified(made: Expression, expected: Expression) -> None:
    assert made == expected


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ([], ()),
        ([(5, 9), (1, 2)], ((1, 2), (5, 9))),
        ([(1, 2), (3, 4)], ((1, 4),)),
        ([(1, 9), (2, 3), (4, 12)], ((1, 12),)),
    ],
)
def test_merged_ranges(ranges: list[tuple[int, int]], expected: tuple[tuple[int, int], ...]) -> None:
    assert merged(ranges) == expected
