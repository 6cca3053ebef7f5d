"""Deterministic automata for texts in which an expression does not occur, minimal and made by steps of the expression.

A step (Antimirov's partial derivative) is what may follow in an expression once a character was read; a state is the
set of all that may follow after some text. Knows no notation and no JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TypeAlias

from .character_sets import LAST, Ranges, members, union
from .expressions import (
    ANY_CHARACTER,
    EMPTY,
    Characters,
    Choice,
    Expression,
    Literal,
    Repeat,
    Sequence,
    sequence,
)
from .nullable import is_nullable

_State: TypeAlias = frozenset[Expression]


@dataclass(frozen=True, slots=True)
class Automaton:
    """For each state, by number, the states to go to and the characters that lead there. It starts in 0.

    A text belongs to it that can be read to its end; the forbidden characters of a state lead nowhere.
    """

    edges: tuple[Mapping[int, Ranges], ...]


def automaton_without(forbidden: Expression) -> Automaton:
    """Of all texts in which nothing of `forbidden` occurs, which has no references and is not nullable."""
    blocks = _blocks(forbidden)
    anywhere = Repeat(ANY_CHARACTER, 0, None)
    start: _State = frozenset({sequence(anywhere, forbidden)})
    states = {start: 0}
    table: list[list[int | None]] = []
    step = lru_cache(maxsize=None)(_after)
    for state in _growing(states):
        targets = [frozenset(each for item in state for each in step(item, first)) for first, _ in blocks]
        table.append([None if _is_found(target) else states.setdefault(target, len(states)) for target in targets])
    return _merged(table, blocks)


def _growing(states: dict[_State, int]) -> Iterable[_State]:
    """The states, also those that are added meanwhile."""
    done = 0
    while done < len(states):
        yield from list(states)[done : (done := len(states))]


def _is_found(state: _State) -> bool:
    return any(is_nullable(item, frozenset()) for item in state)


def _after(expression: Expression, code_point: int) -> set[Expression]:
    """What may follow in the expression after this character."""
    match expression:
        case Literal(text):
            return {Literal(text[1:])} if text and ord(text[0]) == code_point else set()
        case Characters():
            return {EMPTY} if any(first <= code_point <= last for first, last in members(expression)) else set()
        case Choice(options):
            return {each for option in options for each in _after(option, code_point)}
        case Repeat(item, least, most):
            again = Repeat(item, max(0, least - 1), None if most is None else most - 1)
            return {sequence(each, again) for each in _after(item, code_point)} if most != 0 else set()
        case Sequence((first, *others)):
            rest = sequence(*others)
            found = {sequence(each, rest) for each in _after(first, code_point)}
            return found | _after(rest, code_point) if is_nullable(first, frozenset()) else found
        case _:
            return set()


def _blocks(expression: Expression) -> list[tuple[int, int]]:
    """All characters, cut into ranges that the expression treats alike."""
    cuts = {0, LAST + 1}
    for first, last in (*ANY_CHARACTER.ranges, *_ranges(expression)):
        cuts |= {first, last + 1}
    ends = sorted(cuts)
    blocks = [(first, end - 1) for first, end in pairwise(ends)]
    return [block for block in blocks if block[0] != 0xD800]


def _ranges(expression: Expression) -> Iterable[tuple[int, int]]:
    match expression:
        case Literal(text):
            yield from ((ord(each), ord(each)) for each in text)
        case Characters():
            yield from members(expression)
        case Sequence(parts) | Choice(parts):
            for part in parts:
                yield from _ranges(part)
        case Repeat(item):
            yield from _ranges(item)


def _merged(table: list[list[int | None]], blocks: list[tuple[int, int]]) -> Automaton:
    """With states made one from which the same texts can be read (Moore's refinement)."""
    classes, count = [0] * len(table), 1
    while True:
        seen: dict[tuple[int | None, ...], int] = {}
        rows = [tuple(None if to is None else classes[to] for to in row) for row in table]
        refined = [seen.setdefault((classes[state], *row), len(seen)) for state, row in enumerate(rows)]
        if len(seen) == count:
            break
        classes, count = refined, len(seen)
    return Automaton(tuple(_edges(table[classes.index(each)], classes, blocks) for each in range(count)))


def _edges(row: list[int | None], classes: list[int], blocks: list[tuple[int, int]]) -> dict[int, Ranges]:
    reached: dict[int, list[tuple[int, int]]] = {}
    for to, block in zip(row, blocks, strict=True):
        if to is not None:
            reached.setdefault(classes[to], []).append(block)
    return {to: union((tuple(ranges),)) for to, ranges in reached.items()}
