"""Sets of characters: the algebra, and what every dialect agrees on."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.chat.grammar.character_sets import (
    ANY_SPACE,
    ANY_WORD,
    DIGITS,
    SPACE,
    WORD,
    Ranges,
    any_digits,
    class_of,
    complement,
    difference,
    members,
    union,
)
from server.chat.grammar.expressions import ANY_CHARACTER, Characters, GuideError

ALL = range(0x110000)
SETS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)), max_size=5).map(
    lambda pairs: union([tuple((first, first + more) for first, more in pairs)])
)


def contains(ranges: Ranges, code_point: int) -> bool:
    return any(first <= code_point <= last for first, last in ranges)


@given(SETS, SETS)
def test_algebra(one: Ranges, other: Ranges) -> None:
    for code_point in (*range(75), 0xD7FF, 0xE000, 0x10FFFF):
        there, here = contains(one, code_point), contains(other, code_point)
        assert contains(complement(one), code_point) == (not there)
        assert contains(union([one, other]), code_point) == (there or here)
        assert contains(difference(one, other), code_point) == (there and not here)


@given(SETS)
def test_a_class_has_the_members_of_its_set(ranges: Ranges) -> None:
    if ranges:
        assert members(class_of(ranges)) == ranges
    assert members(class_of(complement(ranges))) == complement(ranges)


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        (((0x61, 0x7A),), Characters(((0x61, 0x7A),))),
        (((0x0B, 0x10FFFF),), Characters(((0, 0x0A), (0xD800, 0xDFFF)), negated=True)),
        (((0, 0x10FFFF),), ANY_CHARACTER),
        (((0xD000, 0xDFFF),), Characters(((0xD000, 0xD7FF),))),
    ],
)
def test_classes(ranges: Ranges, expected: Characters) -> None:
    assert members(class_of(ranges)) == members(expected)


def test_a_class_is_never_empty() -> None:
    with pytest.raises(GuideError, match="nothing would match"):
        class_of(((0xD800, 0xDFFF),))


@pytest.mark.parametrize(
    ("kind", "strict", "broad"), [("d", DIGITS, any_digits()), ("w", WORD, ANY_WORD), ("s", SPACE, ANY_SPACE)]
)
def test_python_is_between_strict_and_broad(kind: str, strict: Ranges, broad: Ranges) -> None:
    everything = "".join(chr(code_point) for code_point in ALL if not 0xD800 <= code_point <= 0xDFFF)
    ascii_only = {ord(each) for each in re.findall(rf"\{kind}", everything, re.ASCII)}
    unicode = {ord(each) for each in re.findall(rf"\{kind}", everything)}
    assert ascii_only == {code_point for first, last in strict for code_point in range(first, last + 1)}
    assert unicode <= {code_point for first, last in broad for code_point in range(first, last + 1)}
