"""Grammars that no engine can work with are refused by the rule; size is computed, never written out."""

from __future__ import annotations

import time

import pytest

from server.chat.grammar.expressions import (
    ANY_CHARACTER,
    EMPTY,
    ROOT,
    Characters,
    Expression,
    Grammar,
    GuideError,
    Literal,
    Reference,
    Repeat,
    characters,
    choice,
    optional,
    sequence,
)
from server.chat.grammar.limits import MAX_RULE_SYMBOLS, MAX_RULES, Budget, check_grammar, expanded_size

A, B = Literal("a"), Literal("b")
LOOP = Reference(ROOT)


def rules(root: Expression, **others: Expression) -> dict[str, Expression]:
    return {ROOT: root, **others}


@pytest.mark.parametrize(
    "good",
    [
        pytest.param(rules(A), id="one_rule"),
        pytest.param(rules(EMPTY), id="empty_text_only"),
        pytest.param(rules(choice(sequence(A, LOOP), EMPTY)), id="right_recursion"),
        pytest.param(rules(choice(sequence(A, LOOP, B), EMPTY)), id="recursion_in_the_middle"),
        pytest.param(rules(sequence(A, optional(LOOP))), id="optional_recursion"),
        pytest.param(rules(sequence(A, Repeat(LOOP, 0, None))), id="repeated_recursion"),
        pytest.param(rules(A, unused=sequence(A, Reference("unused"))), id="unreachable_and_endless"),
        pytest.param(rules(Repeat(Repeat(A, 0, None), 0, None)), id="endless_repeat_of_what_can_be_empty"),
        pytest.param(rules(Reference("x"), x=Reference("y"), y=A), id="chain"),
        pytest.param(rules(Repeat(A, 0, MAX_RULE_SYMBOLS)), id="largest_rule"),
    ],
)
def test_accepted(good: dict[str, Expression]) -> None:
    check_grammar(Grammar(good))


REFUSED = [
    ({}, "", "there is no rule root"),
    (rules(sequence(A, Reference("x"))), "rule root", "refers to x"),
    (rules(A, y=Reference("x")), "rule y", "refers to x"),
    (rules(choice(sequence(LOOP, A), B)), "rule root", "begin with itself (root -> root)"),
    (rules(sequence(Repeat(A, 0, None), LOOP)), "rule root", "begin with itself"),
    (rules(sequence(EMPTY, Reference("x"), LOOP, A), x=optional(A)), "rule root", "begin with itself"),
    (rules(Repeat(choice(LOOP, A), 1, 2)), "rule root", "begin with itself"),
    (
        rules(A, x=choice(sequence(Reference("y"), A), A), y=choice(B, Reference("x"))),
        "rule x",
        "(x -> y -> x)",
    ),
    (rules(sequence(A, LOOP)), "rule root", "never end"),
    (rules(Reference("x"), x=sequence(A, Repeat(Reference("x"), 1, None))), "rule root", "never end"),
    (rules(choice(A, Reference("x")), x=sequence(B, Reference("x"))), "rule x", "never end"),
    (rules(Repeat(A, 0, MAX_RULE_SYMBOLS + 1)), "rule root", "has 50,001 symbols"),
    (rules(Repeat(Repeat(Literal("abc"), 0, 1_000), 0, 1_000)), "rule root", "has 3,000,000 symbols"),
    ({ROOT: A, **{f"r{index}": A for index in range(MAX_RULES)}}, "", "has 10,001 rules"),
    (rules(A, **{f"r{index}": Literal("x" * 40_000) for index in range(14)}), "", "the grammar takes 560,"),
]


@pytest.mark.parametrize(("bad", "place", "problem"), REFUSED)
def test_refused(bad: dict[str, Expression], place: str, problem: str) -> None:
    with pytest.raises(GuideError) as caught:
        check_grammar(Grammar(bad))
    assert caught.value.place == place
    assert problem in caught.value.problem


@pytest.mark.parametrize(
    ("expression", "size"),
    [
        (EMPTY, 0),
        (Literal("abc"), 3),
        (ANY_CHARACTER, 1),
        (characters("acegikmoqsuwy02468"), 2),
        (Characters(((0, 9),), negated=True), 1),
        (Reference("x"), 1),
        (sequence(Literal("ab"), Reference("x")), 3),
        (choice(Literal("ab"), Reference("x")), 3),
        (Repeat(Literal("ab"), 2, 5), 10),
        (Repeat(Literal("ab"), 2, None), 6),
        (Repeat(A, 0, 0), 0),
        (Repeat(Repeat(EMPTY, 0, 100), 0, 100), 10_000),
    ],
)
def test_size_with_repeats_written_out(expression: Expression, size: int) -> None:
    assert expanded_size(expression) == size


def test_size_of_deep_repeats_takes_no_longer() -> None:
    expression: Expression = A
    for _ in range(50):
        expression = Repeat(expression, 10_000, 10_000)
    assert expanded_size(expression) == 10_000**50


def chain(last: Expression) -> dict[str, Expression]:
    """A rule that refers to all of a chain of rules, so that a naive search would go over it again and again."""
    count = MAX_RULES - 1
    links: dict[str, Expression] = {f"r{index}": Reference(f"r{index + 1}") for index in range(count - 1)}
    everything = sequence(*(Reference(f"r{index}") for index in reversed(range(count))))
    return {ROOT: everything, **links, f"r{count - 1}": last}


@pytest.mark.parametrize(
    ("last", "problem"),
    [(EMPTY, None), (A, None), (Reference("r0"), "begin with itself"), (sequence(A, Reference("r5")), "never end")],
)
def test_long_chains_take_neither_stack_nor_time(last: Expression, problem: str | None) -> None:
    start = time.process_time()
    if problem is None:
        check_grammar(Grammar(chain(last)))
    else:
        with pytest.raises(GuideError, match=problem):
            check_grammar(Grammar(chain(last)))
    assert time.process_time() - start < 10  # 0.3 s; a search in squares would take minutes


def test_a_budget_is_used_up() -> None:
    budget = Budget(10)
    budget.spend(4, "/a")
    budget.spend(6, "/b")
    for place in ("/c", "/d"):
        with pytest.raises(GuideError, match="too large together; offer fewer or simpler ones") as caught:
            budget.spend(1, place)
        assert caught.value.place == place
