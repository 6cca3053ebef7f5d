"""Ranges of digits as grammar: from one whole number to another, and behind a decimal point. Knows no bounds."""

from __future__ import annotations

from collections.abc import Iterator

from .expressions import EMPTY, Characters, Expression, Literal, Repeat, choice, sequence
from .json_values import DIGIT

_MOST_DIGITS = 19


def split_numbers(whole: int, first: int, last: int, places: int) -> Expression:
    """One whole number with the parts behind the point from `first` to `last`, less zeros at the end."""
    options: list[Expression] = []
    for head, low, high, free in _spans(first, last, width=places):
        options.append(sequence(Literal(head), _digit(low, high), _times(DIGIT, 0, free)))
        if low == 0 and head:  # the first number of this span can be written shorter
            short = head.rstrip("0")
            options.append(sequence(Literal(short or "0"), _times(Literal("0"), 0, len(head) - len(short or "0"))))
    return sequence(Literal(f"{whole}."), choice(*options))


def whole_numbers(first: int, last: int) -> Iterator[Expression]:
    """Whole numbers from `first`, at least 0, to `last`, without zeros in front."""
    spans = list(_spans(first, last, width=None))
    while spans:
        head, low, high, least = spans.pop(0)
        most = least
        while spans and spans[0] == (head, low, high, most + 1):  # [1-9] and 3 more digits, [1-9] and 4 more, ...
            most = spans.pop(0)[3]
        yield sequence(Literal(head), _digit(low, high), _times(DIGIT, least, most))


def _spans(first: int, last: int, *, width: int | None) -> Iterator[tuple[str, int, int, int]]:
    """The numbers in order as runs of a fixed head, a digit from one to another, and so many free digits.

    `width`: digits that each number has, zeros in front; None is without such zeros.
    """
    while first <= last:
        free = _free_digits(first, last, width)
        unit = 10**free
        digit = first // unit % 10
        highest = min(9, digit + (last - first + 1) // unit - 1)
        head = first // (unit * 10)
        digits = "" if width is None else "0" * (width - free - 1 - len(str(head)) * bool(head))
        yield digits + (str(head) if head else ""), digit, highest, free
        first += (highest - digit + 1) * unit


def _free_digits(first: int, last: int, width: int | None) -> int:
    free = 0
    most = width - 1 if width is not None else _MOST_DIGITS if first else 0
    while free < most and first % 10 ** (free + 1) == 0 and first + 10 ** (free + 1) <= last + 1:
        free += 1
    return free


def _digit(low: int, high: int) -> Expression:
    return Literal(str(low)) if low == high else Characters(((0x30 + low, 0x30 + high),))


def _times(item: Expression, least: int, most: int) -> Expression:
    if most == 0:
        return EMPTY
    return item if least == most == 1 else Repeat(item, least, most)
