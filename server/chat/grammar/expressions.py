"""What grammars are made of: a small algebra over Unicode characters, and its notation as EBNF.

The notation is the part that llama.cpp's GBNF and XGrammar's EBNF share, so every engine reads it the same way. Knows
no JSON and no tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from typing_extensions import assert_never

ROOT = "root"


class GuideError(Exception):
    """A schema, pattern or grammar of the caller's can't be used. `place` is inside it, such as `/properties/age`."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}" if place else problem)
        self.place = place
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Literal:
    """This very text; may be empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Characters:
    """One character out of `ranges` (first and last code point of each, in order, apart); `negated`: not one."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Sequence:
    """All parts, one after another."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the options; at least one is there."""

    options: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """`item` from `least` to `most` times; None is without end."""

    item: Expression
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Reference:
    """What the rule of this name says."""

    name: str


Expression: TypeAlias = Literal | Characters | Sequence | Choice | Repeat | Reference
Rules: TypeAlias = Mapping[str, Expression]  # by name: letters, digits and `-`, a letter first


@dataclass(frozen=True, slots=True)
class Grammar:
    """Rules, of which `root` derives the whole text."""

    rules: Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragment:
    """A part of a grammar: what it derives, and the rules it refers to."""

    start: Expression
    rules: Rules


EMPTY = Literal("")
ANY_CHARACTER = Characters(((0, 0xD7FF), (0xE000, 0x10FFFF)))  # surrogates are no characters of any text


def sequence(*parts: Expression) -> Expression:
    """The parts one after another, with neighbouring literals joined and empty ones dropped."""
    flat: list[Expression] = []
    for part in _flattened(parts):
        if isinstance(part, Literal) and flat and isinstance(flat[-1], Literal):
            flat[-1] = Literal(flat[-1].text + part.text)
        elif part != EMPTY:
            flat.append(part)
    return flat[0] if len(flat) == 1 else Sequence(tuple(flat)) if flat else EMPTY


def choice(*options: Expression) -> Expression:
    """One of the options, each named once."""
    flat = [each for option in options for each in (option.options if isinstance(option, Choice) else (option,))]
    unique = tuple(dict.fromkeys(flat))
    return unique[0] if len(unique) == 1 else Choice(unique)


def optional(item: Expression) -> Expression:
    """The item or nothing."""
    return Repeat(item, 0, 1)


def characters(text: str) -> Characters:
    """One of the characters of `text`."""
    return Characters(merged((ord(each), ord(each)) for each in text))


def merged(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The ranges in order, those that touch or overlap made one."""
    result: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(result[-1][1], last))
        else:
            result.append((first, last))
    return tuple(result)


def to_ebnf(grammar: Grammar) -> str:
    """The grammar's text, `root` first. The same grammar always gives the same text."""
    names = [ROOT, *(name for name in grammar.rules if name != ROOT)]
    return "".join(f"{name} ::= {_written(grammar.rules[name], within=Choice)}\n" for name in names)


def _flattened(parts: Iterable[Expression]) -> Iterable[Expression]:
    for part in parts:
        if isinstance(part, Sequence):
            yield from part.parts
        else:
            yield part


def _written(expression: Expression, *, within: type) -> str:
    """The text of an expression inside one of the kind `within`: Choice, Sequence or Repeat, from loose to tight."""
    match expression:
        case Literal(text):
            return '"' + "".join(_in_literal(ord(each)) for each in text) + '"'
        case Characters():
            return _class(expression)
        case Reference(name):
            return name
        case Repeat(item, least, most):
            text = _written(item, within=Repeat) + _count(least, most)
            return f"({text})" if within is Repeat else text  # no dialect reads a** or a*?
        case Sequence(parts):
            text = " ".join(_written(part, within=Sequence) for part in parts or (EMPTY,))
            return f"({text})" if within is Repeat else text
        case Choice(options):
            text = " | ".join(_written(option, within=Choice) for option in options)
            return text if within is Choice else f"({text})"
        case _:
            assert_never(expression)


def _count(least: int, most: int | None) -> str:
    if (least, most) == (0, 1):
        return "?"
    if most is None:
        return {0: "*", 1: "+"}.get(least, f"{{{least},}}")
    return f"{{{least}}}" if least == most else f"{{{least},{most}}}"


def _class(characters: Characters) -> str:
    if not characters.negated:
        return f"[{''.join(_range(*each) for each in characters.ranges)}]"
    if all(last < 0x80 for _, last in characters.ranges):
        return f"[^{''.join(_range(*each) for each in characters.ranges)}]"
    # XGrammar (seen with 0.1.25 to 0.1.32) takes the members of a negated class beyond ASCII for others.
    return f"[{''.join(_range(*each) for each in _others(characters.ranges))}]"


def _others(ranges: tuple[tuple[int, int], ...]) -> Iterable[tuple[int, int]]:
    """All characters but those of the ranges; surrogates are none."""
    start = 0
    for first, last in merged([*ranges, (0xD800, 0xDFFF), (0x110000, 0x110000)]):
        if start < first:
            yield start, first - 1
        start = last + 1


def _range(first: int, last: int) -> str:
    return _in_class(first) if first == last else f"{_in_class(first)}-{_in_class(last)}"


_ESCAPES = {0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r", 0x22: '\\"', 0x5C: "\\\\"}


def _in_literal(code_point: int) -> str:
    return _ESCAPES.get(code_point) or _plain(code_point)


def _in_class(code_point: int) -> str:
    # Dialects differ in which of these they let be escaped with a backslash; all know numbers.
    return f"\\u{code_point:04X}" if chr(code_point) in '"[]\\^-' else _ESCAPES.get(code_point) or _plain(code_point)


def _plain(code_point: int) -> str:
    """Printable ASCII as it is, all else by number."""
    if 0x20 <= code_point < 0x7F:
        return chr(code_point)
    # Not as \xHH even where that would do: XGrammar takes all hex digits that follow an \x for its number.
    return f"\\u{code_point:04X}" if code_point < 0x10000 else f"\\U{code_point:08X}"
