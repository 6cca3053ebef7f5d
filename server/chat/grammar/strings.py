"""Strings as grammar, with the quotes around them: their length, a pattern or a format. Knows no schemas."""

from __future__ import annotations

from dataclasses import dataclass

from .expressions import (
    Characters,
    Choice,
    Expression,
    GuideError,
    Literal,
    Reference,
    Repeat,
    Sequence,
    sequence,
)
from .formats import format_expression
from .json_values import CHARACTER, STRING
from .regex import json_string_content, search_expression

MAX_LENGTH = 10_000  # longer ones are not written, be they allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """What strings may be. Lengths are counted in characters; of `pattern` and `format` at most one can be kept."""

    shortest: int = 0
    longest: int | None = None
    pattern: str | None = None
    format: str | None = None


def string_expression(texts: Texts) -> Expression:
    """The strings as JSON text. Raises GuideError, whose place is inside the pattern."""
    if texts == Texts():
        return STRING
    if texts.longest is not None and texts.shortest > texts.longest:
        raise GuideError("", f"no string has at least {texts.shortest:,} and at most {texts.longest:,} characters")
    if texts.pattern is None and texts.format is None:
        longest = None if texts.longest is None else min(texts.longest, MAX_LENGTH)
        return _quoted(Repeat(CHARACTER, texts.shortest, longest))
    if texts.pattern is not None and texts.format is not None:
        raise GuideError("", "pattern can't be combined with format; leave out the pattern")
    if texts.pattern is not None:
        content = search_expression(texts.pattern)
    else:
        content = format_expression(texts.format or "", bounded=texts.longest is not None)
    _check_lengths(content, texts)
    return _quoted(json_string_content(content) if texts.pattern is not None else content)


def _check_lengths(content: Expression, texts: Texts) -> None:
    """Lengths can't be kept next to a pattern or format, but they may follow from it."""
    least, most = _lengths(content)
    said = "pattern" if texts.pattern is not None else "format"
    if least < texts.shortest:
        raise GuideError("", f"minLength can't be combined with {said}, which allows shorter strings; leave one out")
    if texts.longest is not None and (most is None or most > texts.longest):
        raise GuideError("", f"maxLength can't be combined with {said}, which allows longer strings; leave one out")


def _lengths(expression: Expression) -> tuple[int, int | None]:
    """Characters of the shortest and of the longest text; None is without end."""
    match expression:
        case Literal(text):
            return len(text), len(text)
        case Characters():
            return 1, 1
        case Sequence(parts):
            lengths = [_lengths(part) for part in parts]
            return sum(each[0] for each in lengths), _total([each[1] for each in lengths])
        case Choice(options):
            lengths = [_lengths(option) for option in options]
            longest = [each[1] for each in lengths if each[1] is not None]
            return min(each[0] for each in lengths), max(longest) if len(longest) == len(lengths) else None
        case Repeat(item, least, most):
            shortest, longest_item = _lengths(item)
            return shortest * least, None if most is None or longest_item is None else longest_item * most
        case Reference():
            return 0, None


def _total(lengths: list[int | None]) -> int | None:
    known = [each for each in lengths if each is not None]
    return sum(known) if len(known) == len(lengths) else None


def _quoted(content: Expression) -> Expression:
    return sequence(Literal('"'), content, Literal('"'))
