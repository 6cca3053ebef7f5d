"""Plain text that a model may write where it does not call a tool: all but what looks like a call.

Made as a grammar of loops, since engines differ in how they bear recursion: with one rule per state, each leading to
the next, llguidance gives up after 2,000 characters. Knows one shape of calls in JSON, whatever opens them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TypeAlias

from .automaton import Automaton, automaton_without
from .character_sets import Ranges, class_of
from .expressions import EMPTY, Choice, Expression, Fragment, Literal, Reference, Repeat, choice, optional, sequence
from .limits import expanded_size
from .regex import whole_expression

# What tells a call in JSON, also without what should open it: `"arguments": {`. Other JSON stays possible. To look for
# the name in front of it as well would make twice as many states, each of which costs engines time.
_CALL = r'"(arguments|parameters)"_:_\{'.replace("_", r"[ \t\n\r]*")

_INLINE_SYMBOLS = 8
_END = -1

_Paths: TypeAlias = dict[int, dict[int, Expression]]  # for each state what leads to which


@lru_cache(maxsize=8)
def text_without_calls(opener: str) -> Fragment:
    """Texts, not empty, in which neither `opener` nor the beginning of a call in JSON occurs."""
    return _loops(automaton_without(whole_expression(f"{re.escape(opener)}|{_CALL}")))


def _loops(automaton: Automaton) -> Fragment:
    """What the automaton reads, but for the empty text: round after round from its start to its start, then an end."""
    paths: _Paths = {state: {**_steps(edges), _END: EMPTY} for state, edges in enumerate(automaton.edges)}
    rules: dict[str, Expression] = {}
    while len(paths) > 1:
        state = min(paths.keys() - {0}, key=lambda each: (_cost(each, paths), -each))
        _take_out(state, paths, rules)
    around, end = paths[0][0], paths[0][_END]
    ends = end.options if isinstance(end, Choice) else (end,)
    filled_end = _named("text-end", choice(*(each for each in ends if each != EMPTY)), rules)
    return Fragment(start=choice(sequence(Repeat(around, 1, None), optional(filled_end)), filled_end), rules=rules)


def _steps(edges: Mapping[int, Ranges]) -> dict[int, Expression]:
    return {to: Literal(chr(r[0][0])) if r[0][0] == r[-1][1] else class_of(r) for to, r in edges.items()}


def _take_out(state: int, paths: _Paths, rules: dict[str, Expression]) -> None:
    """What led through the state then leads past it: into it, around its loop, and out."""
    onward = paths.pop(state)
    around = Repeat(_named(f"text-{state}", onward.pop(state), rules), 0, None) if state in onward else EMPTY
    sources = [source for source, targets in paths.items() if state in targets]
    if len(sources) > 1:
        onward = {to: _named(f"text-{state}-{to}", path, rules) for to, path in onward.items()}
    for source in sources:
        into = _named(f"text-{source}-{state}", paths[source].pop(state), rules)
        for to, path in onward.items():
            past = sequence(into, around, path)
            paths[source][to] = choice(paths[source][to], past) if to in paths[source] else past


def _cost(state: int, paths: _Paths) -> int:
    """How many new paths it takes to do without the state."""
    sources = sum(state in targets for source, targets in paths.items() if source != state)
    return sources * len(paths[state])


def _named(name: str, path: Expression, rules: dict[str, Expression]) -> Expression:
    """The path, by a rule's name if it is long."""
    if expanded_size(path) <= _INLINE_SYMBOLS:
        return path
    name = name.replace(f"-{_END}", "-end")
    rules[name] = path
    return Reference(name)
