"""Rules of a grammar as they are handed to llguidance, and what must not be among them. Knows no notation of EBNF."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple, TypeAlias


class Part(NamedTuple):
    """A rule by its name (without one: nothing at all), and Lark's `?`, `*`, `+` or `{2,3}`, or empty for once."""

    name: str
    repetition: str = ""

    @property
    def can_be_absent(self) -> bool:
        """Whether it derives the empty text whatever its rule says."""
        return not self.name or self.repetition.startswith(("?", "*", "{0,"))

    def __str__(self) -> str:
        return self.name + self.repetition if self.name else '""'


Rule: TypeAlias = Sequence[Sequence[Part]]  # alternatives, each of parts in order


def lark_of(name: str, rule: Rule) -> str:
    """The rule as a line of Lark text."""
    return f"{name}: " + " | ".join(" ".join(map(str, option)) for option in rule)


def left_recursion(rules: Mapping[str, Rule]) -> Sequence[str]:
    """Names of rules each of which can begin with the next, the last being the first again; empty where none can.

    Many of them make a parser like llguidance's take time that grows with the third power of their number.
    """
    nullable = _nullable(rules)
    graph = {name: set(_beginnings(rule, nullable)) for name, rule in rules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        return cycle[::-1]
    return ()


def _beginnings(rule: Rule, nullable: set[str]) -> Iterator[str]:
    """The rules that may come before any character of `rule`."""
    for option in rule:
        for part in option:
            if part.name:
                yield part.name
            if not part.can_be_absent and part.name not in nullable:
                break


def _nullable(rules: Mapping[str, Rule]) -> set[str]:
    """The rules that derive the empty text, in one pass over every part."""
    uses: defaultdict[str, list[list[str]]] = defaultdict(list)
    found: list[str] = []
    for name, rule in rules.items():
        for option in rule:
            needed = [part.name for part in option if not part.can_be_absent]
            open_option = [name, *needed]  # shrinks to the rule's own name as what it needs turns out nullable
            for each in needed:
                uses[each].append(open_option)
            if not needed:
                found.append(name)
    nullable: set[str] = set()
    while found:
        name = found.pop()
        if name not in nullable:
            nullable.add(name)
            for open_option in uses[name]:
                open_option.pop()
                if len(open_option) == 1:
                    found.append(open_option[0])
    return nullable
