"""Which rules can be empty, and grammars rewritten so that no endless repeat can go around on nothing.

Such repeats, as in `("a"*)*`, mean nothing new and make some engines loop. Knows no notation and no limits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from .expressions import (
    EMPTY,
    Characters,
    Choice,
    Expression,
    Grammar,
    Literal,
    Reference,
    Repeat,
    Rules,
    Sequence,
    choice,
    sequence,
)


def is_nullable(expression: Expression, rules: frozenset[str]) -> bool:
    """Whether the expression derives the empty text, given the rules that do."""
    match expression:
        case Literal(text):
            return not text
        case Characters():
            return False
        case Sequence(parts):
            return all(is_nullable(part, rules) for part in parts)
        case Choice(options):
            return any(is_nullable(option, rules) for option in options)
        case Repeat(item, least, _):
            return least == 0 or is_nullable(item, rules)
        case Reference(name):
            return name in rules


def nullable_rules(rules: Rules) -> frozenset[str]:
    """Rules that derive the empty text."""
    return rules_where(rules, lambda symbol: symbol == EMPTY)


def productive_rules(rules: Rules) -> frozenset[str]:
    """Rules that derive some text."""
    return rules_where(rules, lambda symbol: True)


def rules_where(
    rules: Rules, holds: Callable[[Literal | Characters], bool], *, some_part: bool = False
) -> frozenset[str]:
    """Rules with a property that some symbols have by themselves and the rest get from their parts.

    A choice has it if an option has; a sequence if all its parts have, or with `some_part` if one has. References to
    rules that don't exist don't have it. Takes time in proportion to the grammar, however the rules depend.
    """
    graph = _Graph(holds, some_part)
    nodes = {name: graph.add(rule) for name, rule in rules.items()}
    for name, node in nodes.items():
        for reference in graph.references.get(name, ()):
            graph.users[node].append(reference)
    graph.spread()
    return frozenset(name for name, node in nodes.items() if graph.missing[node] <= 0)


class _Graph:
    """Expressions as numbered nodes; each has its property once `missing` of its parts, down to 0, have it."""

    def __init__(self, holds: Callable[[Literal | Characters], bool], some_part: bool) -> None:
        self._holds = holds
        self._some_part = some_part
        self.missing: list[int] = []
        self.users: list[list[int]] = []
        self.references: dict[str, list[int]] = {}

    def add(self, expression: Expression) -> int:
        match expression:
            case Literal() | Characters():
                return self._node(0 if self._holds(expression) else 1)
            case Sequence(parts):
                return self._node(1 if self._some_part else len(parts), parts)
            case Choice(options):
                return self._node(1, options)
            case Repeat(_, 0, _) if not self._some_part:
                return self._node(0)
            case Repeat(item, _, most):
                return self._node(1, (item,) if most != 0 else ())
            case Reference(name):
                node = self._node(1)
                self.references.setdefault(name, []).append(node)
                return node

    def _node(self, missing: int, parts: tuple[Expression, ...] = ()) -> int:
        node = len(self.missing)
        self.missing.append(missing)
        self.users.append([])
        for part in parts:
            self.users[self.add(part)].append(node)
        return node

    def spread(self) -> None:
        """From those that have the property to those that get it from them."""
        found = [node for node, missing in enumerate(self.missing) if missing == 0]
        while found:
            for user in self.users[found.pop()]:
                self.missing[user] -= 1
                if self.missing[user] == 0:
                    found.append(user)


def normalized(grammar: Grammar) -> Grammar:
    """The same texts, and no endless repeat of something that can be empty. The grammar is not left-recursive."""
    return _Normalizer(grammar).normalized()


class _Normalizer:
    """An endless repeat of a nullable item is one of its cores: what can't be empty and repeats to the same texts."""

    def __init__(self, grammar: Grammar) -> None:
        self._rules = grammar.rules
        self._nullable = nullable_rules(grammar.rules)
        self._filled = rules_where(grammar.rules, lambda symbol: symbol != EMPTY, some_part=True)
        self._free = _free_prefix(grammar.rules)
        self._core_names: dict[str, str] = {}
        self._wanted: list[str] = []

    def normalized(self) -> Grammar:
        rules = {name: self._rewritten(rule) for name, rule in self._rules.items()}
        while self._wanted:  # a core may need the cores of further rules
            name = self._wanted.pop()
            rules[self._core_names[name]] = choice(*self._cores(self._rules[name]))
        return Grammar(rules)

    def _rewritten(self, expression: Expression) -> Expression:
        match expression:
            case Sequence(parts):
                return sequence(*map(self._rewritten, parts))
            case Choice(options):
                return choice(*map(self._rewritten, options))
            case Repeat(item, _, None) if is_nullable(item, self._nullable):
                cores = self._cores(item)
                return Repeat(choice(*cores), 0, None) if cores else EMPTY
            case Repeat(item, least, most):
                return Repeat(self._rewritten(item), least, most)
            case _:
                return expression

    def _cores(self, expression: Expression) -> list[Expression]:
        """Options that can't be empty, and that repeated derive what the expression derives repeated."""
        if not is_nullable(expression, self._nullable):
            return [self._rewritten(expression)]
        match expression:
            case Sequence(parts) | Choice(parts):  # in a nullable sequence all parts but one can be left out
                return [core for part in parts for core in self._cores(part)]
            case Repeat(item, _, most) if most != 0:
                return self._cores(item)
            case Reference(name) if name in self._filled:
                return [Reference(self._core_name(name))]
            case _:
                return []

    def _core_name(self, name: str) -> str:
        if name not in self._core_names:
            self._core_names[name] = self._free + name
            self._wanted.append(name)
        return self._core_names[name]


def _free_prefix(names: Iterable[str]) -> str:
    """What no name begins with."""
    longest = max((len(match.group()) for name in names if (match := re.match("(?:filled-)*", name))), default=0)
    return "filled-" * (longest // len("filled-") + 1)
