"""Two readings of a grammar for tests: texts that it derives, and whether it derives a text. Small texts only."""

from __future__ import annotations

import random

from server.chat.grammar.expressions import (
    ROOT,
    Characters,
    Choice,
    Expression,
    Grammar,
    Literal,
    Reference,
    Repeat,
    Sequence,
)


def sample(grammar: Grammar, seed: int, *, depth: int = 8, repeats: int = 3) -> str:
    """A random text that the grammar derives. Below `depth` rule calls the shortest options are taken."""
    return _Sampler(grammar, random.Random(seed), depth, repeats).text(grammar.rules[ROOT], 0)


class _Sampler:
    def __init__(self, grammar: Grammar, draw: random.Random, depth: int, repeats: int) -> None:
        self._rules = grammar.rules
        self._draw = draw
        self._depth = depth
        self._repeats = repeats
        self._heights = _heights(grammar)

    def text(self, expression: Expression, depth: int) -> str:
        match expression:
            case Literal(text):
                return text
            case Characters():
                return _any_of(expression, self._draw)
            case Sequence(parts):
                return "".join(self.text(part, depth) for part in parts)
            case Choice(options):
                if depth > self._depth:
                    return self.text(min(options, key=lambda each: _height(each, self._heights)), depth)
                return self.text(self._draw.choice(options), depth)
            case Repeat(item, least, most):
                top = least + self._repeats if most is None else min(most, least + self._repeats)
                count = least if depth > self._depth else self._draw.randint(least, top)
                return "".join(self.text(item, depth) for _ in range(count))
            case Reference(name):
                return self.text(self._rules[name], depth + 1)


def _any_of(expression: Characters, draw: random.Random) -> str:
    if not expression.negated:
        first, last = draw.choice(expression.ranges)
        return chr(draw.randint(first, min(last, first + 300)))
    candidates = [*range(0x20, 0x7F), 0x0A, 0xE9, 0x4E2D, 0x1F600]
    allowed = [each for each in candidates if not any(low <= each <= high for low, high in expression.ranges)]
    return chr(draw.choice(allowed))


def _heights(grammar: Grammar) -> dict[str, float]:
    """How many rule calls the shallowest text of each rule takes."""
    heights = dict.fromkeys(grammar.rules, float("inf"))
    for _ in range(len(heights) + 1):
        heights = {name: 1 + _height(rule, heights) for name, rule in grammar.rules.items()}
    return heights


def _height(expression: Expression, heights: dict[str, float]) -> float:
    match expression:
        case Sequence(parts):
            return max((_height(part, heights) for part in parts), default=0)
        case Choice(options):
            return min(_height(option, heights) for option in options)
        case Repeat(item, least, _):
            return _height(item, heights) if least else 0
        case Reference(name):
            return heights[name]
        case _:
            return 0


def accepts(grammar: Grammar, text: str) -> bool:
    """Whether the grammar derives the whole text.

    Must not be left-recursive. Rules that recurse at their end take Python's stack for every round, so at most some
    hundred; repeats don't.
    """
    return len(text) in _Reader(grammar, text).ends(grammar.rules[ROOT], 0)


class _Reader:
    def __init__(self, grammar: Grammar, text: str) -> None:
        self._rules = grammar.rules
        self._text = text
        self._known: dict[tuple[int, int], frozenset[int]] = {}

    def ends(self, expression: Expression, start: int) -> frozenset[int]:
        key = (id(expression), start)  # by identity: hashing a deep expression takes as long as it is big
        if key not in self._known:
            self._known[key] = self._found(expression, start)
        return self._known[key]

    def _found(self, expression: Expression, start: int) -> frozenset[int]:
        match expression:
            case Literal(text):
                return frozenset({start + len(text)} if self._text.startswith(text, start) else ())
            case Characters(ranges, negated):
                if start == len(self._text):
                    return frozenset()
                inside = any(low <= ord(self._text[start]) <= high for low, high in ranges)
                return frozenset({start + 1} if inside != negated else ())
            case Sequence(parts):
                ends = frozenset({start})
                for part in parts:
                    ends = frozenset(end for each in ends for end in self.ends(part, each))
                return ends
            case Choice(options):
                return frozenset(end for option in options for end in self.ends(option, start))
            case Repeat(item, least, most):
                return self._repeated(item, least, most, start)
            case Reference(name):
                return self.ends(self._rules[name], start)

    def _repeated(self, item: Expression, least: int, most: int | None, start: int) -> frozenset[int]:
        found: set[int] = set()
        level, count = frozenset({start}), 0
        while level and (most is None or count <= most):
            if count >= least:
                if level <= found:
                    break
                found |= level
            level = frozenset(end for each in level for end in self.ends(item, each))
            count += 1
        return frozenset(found)
