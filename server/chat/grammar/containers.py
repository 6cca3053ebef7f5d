"""Objects and arrays as grammar, made of the grammars of what is in them. Knows no schemas.

Grammars stay as small as the objects are: what is needed twice becomes a rule, through `share`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from .expressions import (
    EMPTY,
    Characters,
    Expression,
    Literal,
    Repeat,
    choice,
    merged,
    optional,
    sequence,
)
from .json_text import write_json
from .json_values import NOT_PLAIN, PLAIN, STRING

Share: TypeAlias = Callable[[Expression], Expression]

_COMMA = Literal(", ")
_END = ""  # as a character: no further one
_MAX_KEY_STEPS, _MAX_KEY_DEPTH = 1_000, 64
_LEVELS_PER_RULE = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One named member of an object."""

    name: str
    value: Expression
    required: bool


def object_expression(
    members: Sequence[Member], *, extra: Expression | None, most_extra: int | None, may_be_empty: bool, share: Share
) -> Expression:
    """The members in this order, then up to `most_extra` times `extra`, which is a name with its value.

    With only optional members in front, the first one written decides what may follow it, so that there is neither a
    comma too many nor one option for each subset.
    """
    pairs = [sequence(Literal(f"{write_json(each.name)}: "), each.value) for each in members]
    first = next((index for index, each in enumerate(members) if each.required), len(members))
    pairs[:first] = map(share, pairs[:first])
    steps = [
        sequence(_COMMA, pair) if each.required else optional(sequence(_COMMA, pair))
        for each, pair in zip(members, pairs, strict=True)
    ]
    more = EMPTY if extra is None else _items(extra, 0, most_extra, after=True)
    options: list[Expression] = []
    after: Expression = more
    if first < len(members):
        after = sequence(*steps[first + 1 :], more)
        options.append(sequence(pairs[first], after))
        after = sequence(steps[first], after)
    elif extra is not None:
        options.append(_items(extra, 1, most_extra, after=False))
    for index in reversed(range(first)):
        after = share(after)
        options.append(sequence(pairs[index], after))
        after = sequence(steps[index], after)
    content: Expression = choice(*reversed(options)) if options else EMPTY
    if options and first == len(members) and may_be_empty:
        content = optional(content)
    return sequence(Literal("{"), content, Literal("}"))


def array_expression(
    prefix: Sequence[Expression], item: Expression | None, *, least: int, most: int | None, share: Share
) -> Expression:
    """First those of the `prefix`, then any number of `item`, from `least` to `most` in all; None is without end."""
    prefix = prefix[:most]
    tail: Expression = EMPTY
    if item is not None:
        left = None if most is None else most - len(prefix)
        tail = _items(item, max(0, least - len(prefix)), left, after=bool(prefix))
    for index in reversed(range(len(prefix))):
        tail = sequence(_COMMA if index else EMPTY, prefix[index], tail)
        if index >= least:
            tail = optional(tail)
        if index % _LEVELS_PER_RULE == 0 and index:
            tail = share(tail)
    return sequence(Literal("["), tail, Literal("]"))


def _items(item: Expression, least: int, most: int | None, *, after: bool) -> Expression:
    """From `least` to `most` items, `after` others or not."""
    if most == 0:
        return EMPTY
    if after:
        return Repeat(sequence(_COMMA, item), least, most)
    rest = most if most is None else most - 1
    more = EMPTY if rest == 0 else Repeat(sequence(_COMMA, item), max(0, least - 1), rest)
    return sequence(item, more) if least else optional(sequence(item, more))


def any_key(*, but: Iterable[str], share: Share) -> Expression:
    """Names of members as JSON text. With names to leave out, those that need no escapes."""
    names = frozenset(but)
    if not names:
        return STRING
    return sequence(Literal('"'), _other_than(names, 0, _depth(names), share), Literal('"'))


def _depth(names: frozenset[str]) -> int:
    """How many characters of the names can be told apart without a grammar that grows out of hand."""
    steps = 0
    for depth in range(_MAX_KEY_DEPTH):
        steps += len({name[: depth + 1] for name in names if len(name) > depth})
        if steps > _MAX_KEY_STEPS:
            return depth
    return _MAX_KEY_DEPTH


def _other_than(texts: frozenset[str], depth: int, most: int, share: Share) -> Expression:
    """Plain texts that are none of `texts`, character by character as far as they agree with one of them.

    From depth `most` on, whatever begins like one of the texts is left out.
    """
    by_first: dict[str, set[str]] = {}
    for text in texts:
        by_first.setdefault(text[:1], set()).add(text[1:])
    other = Characters(merged([*NOT_PLAIN, *((ord(each), ord(each)) for each in by_first if each)]), negated=True)
    options: list[Expression] = [sequence(other, Repeat(PLAIN, 0, None))]
    for first, rests in sorted(by_first.items()):
        if first != _END and _is_plain(first) and depth < most:
            options.append(sequence(Literal(first), _other_than(frozenset(rests), depth + 1, most, share)))
    result = choice(*options) if _END in by_first else optional(choice(*options))
    return share(result) if depth % _LEVELS_PER_RULE == 0 and depth else result


def _is_plain(character: str) -> bool:
    return not any(low <= ord(character) <= high for low, high in NOT_PLAIN)
