"""Ranges of numbers as grammar, digit by digit. Knows numbers and bounds, no schemas.

Whole numbers go to 18 digits. Other numbers are written without exponent and with so few digits (15, as many as every
double keeps) that a text within its bounds is still within them once it has been read as a double.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from .digits import split_numbers, whole_numbers
from .expressions import Expression, Literal, Repeat, choice, sequence
from .json_values import DIGIT, INTEGER, NUMBER

MAX_INTEGER = 10**18
MAX_DIGITS = 15
MAX_NUMBER = 10**MAX_DIGITS
_MOST_UNITS = MAX_NUMBER - 1  # of the last place that is written
_USUAL_PLACES = 6
_DOUBLES_ARE_WHOLE_FROM = 2**53


class RangeError(ValueError):
    """No number within the bounds can be written; the text says why."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A smallest or largest value."""

    value: Fraction
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class Range:
    """What numbers may be; None is without bound."""

    low: Bound | None = None
    high: Bound | None = None


UNBOUNDED = Range()


def lower_bound(limit: int | Decimal, *, exclusive: bool) -> Bound:
    """The bound as whoever judges the answer may read it: exactly, or as a double, whichever allows less."""
    return Bound(max(_readings(limit)), exclusive)


def upper_bound(limit: int | Decimal, *, exclusive: bool) -> Bound:
    """As `lower_bound`, from the other side."""
    return Bound(min(_readings(limit)), exclusive)


def common_range(*ranges: Range) -> Range:
    """What is in all of the ranges, of which there is at least one."""
    lows = [each.low for each in ranges if each.low is not None]
    highs = [each.high for each in ranges if each.high is not None]
    return Range(
        max(lows, key=lambda each: (each.value, each.exclusive), default=None),
        min(highs, key=lambda each: (each.value, not each.exclusive), default=None),
    )


def is_within(number: int | Decimal, bounds: Range) -> bool:
    """Whether the number keeps both bounds, also when it is read as a double."""
    low, high = bounds.low, bounds.high
    readings = _readings(number)
    return (
        low is None or all(each > low.value or (each == low.value and not low.exclusive) for each in readings)
    ) and (high is None or all(each < high.value or (each == high.value and not high.exclusive) for each in readings))


def integer_expression(bounds: Range) -> Expression:
    """Whole numbers within the bounds. Raises RangeError."""
    if bounds == UNBOUNDED:
        return INTEGER
    low, high = bounds.low, bounds.high
    first = -MAX_INTEGER if low is None else max(-MAX_INTEGER, _least(low, 1))
    last = MAX_INTEGER if high is None else min(MAX_INTEGER, _most(high, 1))
    return _required(_signed(first, last, places=0), first, last, MAX_INTEGER)


def number_expression(bounds: Range) -> Expression:
    """Numbers within the bounds, with a fraction or without. Raises RangeError."""
    if bounds == UNBOUNDED:
        return NUMBER
    low, high = bounds.low, bounds.high
    ends = [end for end in (low, high) if end is not None and abs(end.value) < MAX_NUMBER]
    options = []
    for places in _scales([end.value for end in ends]):
        first = -_MOST_UNITS if low is None else max(-_MOST_UNITS, _least(low, 10**places))
        last = _MOST_UNITS if high is None else min(_MOST_UNITS, _most(high, 10**places))
        options += _signed(first, last, places=places)
    lowest, highest = (None if end is None else end.value for end in (low, high))
    return _required(options, lowest, highest, MAX_NUMBER)


def _scales(ends: list[Fraction]) -> list[int]:
    """With how many places behind the point numbers are written: few for large ones, so that no digit gets lost."""
    places = {0, _USUAL_PLACES}
    for end in ends:
        own, whole_digits = _places(end), len(str(int(abs(end)))) if abs(end) >= 1 else 0
        if own + whole_digits > MAX_DIGITS:
            raise RangeError(f"bounds may have {MAX_DIGITS} digits, in front of the point and behind it; round them")
        places |= {max(own, _USUAL_PLACES), min(MAX_DIGITS - whole_digits, _USUAL_PLACES)}
    return sorted(places)


def _readings(number: int | Decimal) -> tuple[Fraction, ...]:
    exact = Fraction(number)
    if isinstance(number, Decimal) and abs(exact) >= _DOUBLES_ARE_WHOLE_FROM:
        return exact, Fraction(float(number))
    return (exact,)


def _required(
    options: list[Expression], first: int | Fraction | None, last: int | Fraction | None, largest: int
) -> Expression:
    if options:
        return choice(*options)
    if (first is not None and first >= largest) or (last is not None and last <= -largest):
        raise RangeError(f"bounds are supported up to {largest:,}")
    raise RangeError("no number is within these bounds")


def _least(bound: Bound, scale: int) -> int:
    """The smallest whole number of 1/scale that the lower bound allows."""
    value = bound.value * scale
    return math.floor(value) + 1 if bound.exclusive else math.ceil(value)


def _most(bound: Bound, scale: int) -> int:
    value = bound.value * scale
    return math.ceil(value) - 1 if bound.exclusive else math.floor(value)


def _places(value: Fraction) -> int:
    """How many digits behind the point the value needs; one more than allowed where it needs more."""
    return next((places for places in range(MAX_DIGITS + 1) if 10**places % value.denominator == 0), MAX_DIGITS + 1)


def _signed(first: int, last: int, *, places: int) -> list[Expression]:
    """From `first` to `last`, both counted in units of the last of so many `places` behind the point."""
    positive = _magnitudes(max(first, 0), last, places)
    negative = _magnitudes(max(-last, 1), -first, places)
    return [*positive, *([sequence(Literal("-"), choice(*negative))] if negative else [])]


def _magnitudes(first: int, last: int, places: int) -> list[Expression]:
    if first > last:
        return []
    if places == 0:
        return list(whole_numbers(first, last))
    unit = 10**places
    (low, low_part), (high, high_part) = divmod(first, unit), divmod(last, unit)
    if low == high:
        return [split_numbers(low, low_part, high_part, places)]
    options = []
    if low_part:
        options.append(split_numbers(low, low_part, unit - 1, places))
        low += 1
    if high_part < unit - 1:
        options.append(split_numbers(high, 0, high_part, places))
        high -= 1
    if low <= high:
        options.append(sequence(choice(*whole_numbers(low, high)), Literal("."), Repeat(DIGIT, 1, places)))
    return options
