"""Normalized grammars mean the same, and no endless repeat in them can go around on nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given

from server.chat.grammar.ebnf import parse_ebnf
from server.chat.grammar.expressions import (
    EMPTY,
    ROOT,
    Choice,
    Expression,
    Grammar,
    Literal,
    Reference,
    Repeat,
    Sequence,
    to_ebnf,
)
from server.chat.grammar.limits import check_grammar
from server.chat.grammar.nullable import is_nullable, normalized, nullable_rules, productive_rules
from tests.grammar_samples import grammars
from tests.grammar_tools import accepts, sample


@pytest.mark.parametrize(
    ("text", "nullable"),
    [
        ('root ::= "a"', False),
        ('root ::= ""', True),
        ('root ::= "a"*', True),
        ('root ::= "a"+', False),
        ('root ::= ("a"?)+', True),
        ('root ::= "a"? [b]*', True),
        ('root ::= "a" | ""', True),
        ('root ::= x "a"?\nx ::= y y\ny ::= "b"{0,3}', True),
        ('root ::= x "a"\nx ::= ""', False),
        ('root ::= "a" root | ""', True),
    ],
)
def test_what_can_be_empty(text: str, nullable: bool) -> None:
    rules = parse_ebnf(text).rules
    assert (ROOT in nullable_rules(rules)) == nullable


def test_productive_rules() -> None:
    endless = Sequence((Literal("a"), Reference("endless")))
    rules: dict[str, Expression] = {
        "endless": endless,
        "user": Sequence((Literal("b"), Reference("endless"))),
        "none": Reference("missing"),
        "end": EMPTY,
        "choice": Choice((Reference("endless"), Reference("end"))),
    }
    assert productive_rules(rules) == {"end", "choice"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('root ::= "a"* "b"', 'root ::= "a"* "b"\n'),
        ('root ::= ("a"*)*', 'root ::= "a"*\n'),
        ('root ::= ("a"*)+', 'root ::= "a"*\n'),
        ('root ::= ("a"?){3,}', 'root ::= "a"*\n'),
        ('root ::= ("a"*){3}', 'root ::= ("a"*){3}\n'),
        ('root ::= ("a"? [b]*)*', 'root ::= ("a" | [b])*\n'),
        ('root ::= ("a" | "" | ("b" | "c"?)*)+', 'root ::= ("a" | "b" | "c")*\n'),
        ('root ::= ("" | ()*)* "a"', 'root ::= "a"\n'),
        ('root ::= x*\nx ::= "a"', 'root ::= x*\nx ::= "a"\n'),
        ('root ::= x*\nx ::= "a"?', 'root ::= filled-x*\nx ::= "a"?\nfilled-x ::= "a"\n'),
        ('root ::= x*\nx ::= ""', 'root ::= ""\nx ::= ""\n'),
        (
            'root ::= x* filled-x\nx ::= "a" x | filled-x*\nfilled-x ::= "b"?',
            "root ::= filled-filled-x* filled-x\n"
            'x ::= "a" x | filled-filled-filled-x*\n'
            'filled-x ::= "b"?\n'
            'filled-filled-filled-x ::= "b"\n'
            'filled-filled-x ::= "a" x | filled-filled-filled-x\n',
        ),
    ],
)
def test_rewritten_as(text: str, expected: str) -> None:
    assert to_ebnf(normalized(parse_ebnf(text))) == expected


@given(grammars())
def test_means_the_same_and_never_repeats_nothing(grammar: Grammar) -> None:
    result = normalized(grammar)
    check_grammar(result)
    nullable = nullable_rules(result.rules)
    assert not any(is_nullable(item, nullable) for rule in result.rules.values() for item in endless(rule))
    for seed in range(4):
        assert accepts(result, sample(grammar, seed))
        assert accepts(grammar, sample(result, seed))
    assert normalized(result) == result


def endless(expression: Expression) -> Iterator[Expression]:
    """What is repeated without end."""
    match expression:
        case Sequence(parts) | Choice(parts):
            for part in parts:
                yield from endless(part)
        case Repeat(item, _, most):
            if most is None:
                yield item
            yield from endless(item)
