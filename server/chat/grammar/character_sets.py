"""Sets of characters as sorted ranges of code points, and those that \\d, \\w and \\s stand for. Knows no patterns."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TypeAlias

from .expressions import Characters, GuideError, merged

Ranges: TypeAlias = tuple[tuple[int, int], ...]

LAST = 0x10FFFF
_SURROGATES: Ranges = ((0xD800, 0xDFFF),)

DIGITS: Ranges = ((0x30, 0x39),)
WORD: Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
SPACE: Ranges = ((0x09, 0x0D), (0x20, 0x20))

# All that some dialect of regular expressions takes for such a character.
ANY_WORD: Ranges = merged((*WORD, (0x80, LAST)))
ANY_SPACE: Ranges = merged(
    (
        *SPACE,
        *((0x1C, 0x1F), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x180E, 0x180E), (0x2000, 0x200A)),
        *((0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)),
    )
)


@lru_cache(maxsize=1)
def any_digits() -> Ranges:
    """Decimal digits of all scripts; there are none beyond the second plane."""
    return merged((code_point, code_point) for code_point in range(0x20000) if chr(code_point).isdecimal())


def union(sets: Iterable[Ranges]) -> Ranges:
    """What is in one of the sets."""
    return merged(each for ranges in sets for each in ranges)


def complement(ranges: Ranges) -> Ranges:
    """All characters that are not in the set."""
    taken = union((ranges, _SURROGATES))
    starts = (0, *(last + 1 for _, last in taken))
    ends = (*(first - 1 for first, _ in taken), LAST)
    return tuple((first, last) for first, last in zip(starts, ends, strict=True) if first <= last)


def difference(ranges: Ranges, without: Ranges) -> Ranges:
    """What is in the first set and not in the second."""
    return complement(union((complement(ranges), without)))


def members(characters: Characters) -> Ranges:
    """The characters that a class stands for."""
    return complement(characters.ranges) if characters.negated else characters.ranges


def class_of(ranges: Ranges) -> Characters:
    """The way to write the set that names what it leaves out, or what it has. Raises GuideError where it is empty."""
    outside = complement(ranges)
    inside = complement(outside)
    if not inside:
        raise GuideError("", "a set of characters has none that can be written; nothing would match it")
    return Characters(outside, negated=True) if outside and inside[-1][1] == LAST else Characters(inside)
