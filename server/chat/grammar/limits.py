"""What a grammar may be: which ones no engine can work with, and how big one may get.

Knows no notation. Goes along rules without recursion, since they may form long chains; within one rule it recurses,
so whoever builds an expression bounds its nesting.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from .expressions import (
    ROOT,
    Characters,
    Choice,
    Expression,
    Grammar,
    GuideError,
    Literal,
    Reference,
    Repeat,
    Rules,
    Sequence,
    to_ebnf,
)
from .nullable import is_nullable, nullable_rules, productive_rules

MAX_SYMBOLS = 150_000  # of all schemas of a request together
MAX_RULES = 10_000
MAX_RULE_SYMBOLS = 50_000
MAX_TEXT_BYTES = 512 * 1024


@dataclass(slots=True)
class Budget:
    """How many symbols may still be made, by several schemas together. Other work is paid for in symbols, too."""

    symbols: int = MAX_SYMBOLS

    def spend(self, count: int, place: str) -> None:
        """Raises GuideError where no more is left, also ever after."""
        self.symbols -= count
        if self.symbols < 0:
            raise GuideError(place, "the schemas are too large together; offer fewer or simpler ones")


def check_grammar(grammar: Grammar) -> None:
    """Raises GuideError where a grammar is too big, refers to nothing, is left-recursive or derives no text."""
    rules = grammar.rules
    if ROOT not in rules:
        raise GuideError("", f"there is no rule {ROOT}")
    _check_size(grammar)
    _check_references(rules)
    _check_left_recursion(rules)
    productive = productive_rules(rules)
    for name in _reachable(rules):
        if name not in productive:
            raise GuideError(f"rule {name}", "it can never end: each of its options needs a rule that needs it")


def expanded_size(expression: Expression) -> int:
    """How many symbols the expression has with its repeats written out.

    A literal counts its characters, a class one for every 16 ranges begun, a reference one.
    """
    match expression:
        case Literal(text):
            return len(text)
        case Characters(ranges):
            return 1 + len(ranges) // 16
        case Sequence(parts) | Choice(parts):
            return sum(map(expanded_size, parts))
        case Repeat(item, least, most):
            return (least + 1 if most is None else most) * max(1, expanded_size(item))
        case _:
            return 1


def _check_size(grammar: Grammar) -> None:
    if len(grammar.rules) > MAX_RULES:
        raise GuideError("", f"the grammar has {len(grammar.rules):,} rules; {MAX_RULES:,} are possible")
    for name, rule in grammar.rules.items():
        size = expanded_size(rule)
        if size > MAX_RULE_SYMBOLS:
            problem = f"it has {size:,} symbols with its repeats written out; {MAX_RULE_SYMBOLS:,} are possible"
            raise GuideError(f"rule {name}", problem)
    length = len(to_ebnf(grammar))  # of ASCII alone
    if length > MAX_TEXT_BYTES:
        raise GuideError("", f"the grammar takes {length:,} bytes; {MAX_TEXT_BYTES:,} are possible")


def _check_references(rules: Rules) -> None:
    for name, rule in rules.items():
        for reference in _references(rule):
            if reference not in rules:
                raise GuideError(f"rule {name}", f"it refers to {reference}, and there is no such rule")


def _check_left_recursion(rules: Rules) -> None:
    nullable = nullable_rules(rules)
    graph = {name: dict.fromkeys(_first_references(rule, nullable)) for name, rule in rules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle = list(reversed(error.args[1]))
        shown = " -> ".join(cycle if len(cycle) < 6 else [*cycle[:3], "...", cycle[-1]])
        problem = f"it can begin with itself ({shown}); repeat with * or put what is repeated last"
        raise GuideError(f"rule {cycle[0]}", problem) from error


def _first_references(expression: Expression, nullable: frozenset[str]) -> Iterator[str]:
    """Rules that the expression may have to look into before any character is read."""
    match expression:
        case Reference(name):
            yield name
        case Repeat(item):
            yield from _first_references(item, nullable)
        case Choice(options):
            for option in options:
                yield from _first_references(option, nullable)
        case Sequence(parts):
            for part in parts:
                yield from _first_references(part, nullable)
                if not is_nullable(part, nullable):
                    return


def _references(expression: Expression) -> Iterator[str]:
    match expression:
        case Reference(name):
            yield name
        case Repeat(item):
            yield from _references(item)
        case Sequence(parts) | Choice(parts):
            for part in parts:
                yield from _references(part)


def _reachable(rules: Rules) -> list[str]:
    """Rules that `root` needs, in a fixed order."""
    found = {ROOT: None}
    open_names = [ROOT]
    while open_names:
        for name in _references(rules[open_names.pop()]):
            if name not in found:
                found[name] = None
                open_names.append(name)
    return list(found)
