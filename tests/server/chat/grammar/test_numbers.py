"""Ranges of numbers: every derived text is within the bounds, and plainly written numbers within them are derived."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from server.chat.grammar.expressions import Expression, Grammar
from server.chat.grammar.json_values import RULES
from server.chat.grammar.numbers import (
    UNBOUNDED,
    Range,
    RangeError,
    common_range,
    integer_expression,
    is_within,
    lower_bound,
    number_expression,
    upper_bound,
)
from tests.grammar_tools import accepts, sample

Number = int | Decimal


def between(low: Number | None, high: Number | None, *, open_low: bool = False, open_high: bool = False) -> Range:
    return Range(
        None if low is None else lower_bound(low, exclusive=open_low),
        None if high is None else upper_bound(high, exclusive=open_high),
    )


def grammar(expression: Expression) -> Grammar:
    return Grammar({**RULES, "root": expression})


def obeys(text: str, low: Number | None, high: Number | None, *, open_low: bool, open_high: bool) -> bool:
    """By exact reading and by doubles, as different readers of JSON have it."""
    for read in (Decimal, lambda number: float(str(number)) if not str(number).lstrip("-").isdigit() else int(number)):
        value = read(text)
        if low is not None and not (value > read(str(low)) or (value == read(str(low)) and not open_low)):
            return False
        if high is not None and not (value < read(str(high)) or (value == read(str(high)) and not open_high)):
            return False
    return True


whole_numbers = (
    st.integers(-(10**18), 10**18) | st.integers(-200, 200) | st.sampled_from([10**15, 2**53 + 1, 10**17 + 9])
)
decimals = st.builds(
    lambda digits, places: Decimal(digits).scaleb(-places), st.integers(-(10**9), 10**9), st.integers(0, 6)
) | st.builds(Decimal, st.integers(-50, 50))
bounds = whole_numbers.map(lambda each: each if abs(each) < 10**15 else each // 10_000) | decimals


@settings(max_examples=150, deadline=None)
@given(
    st.none() | whole_numbers | decimals, st.none() | whole_numbers | decimals, st.booleans(), st.booleans(), st.data()
)
def test_integers(
    low: Number | None, high: Number | None, open_low: bool, open_high: bool, data: st.DataObject
) -> None:
    wanted = between(low, high, open_low=open_low, open_high=open_high)
    try:
        made = grammar(integer_expression(wanted))
    except RangeError:
        near = [int(each) + shift for each in (low, high) if each is not None for shift in (-1, 0, 1)]
        assert not any(is_within(each, wanted) and abs(each) <= 10**18 for each in near)
        return
    for seed in range(8):
        text = sample(made, seed)
        assert str(int(text)) == text
        assert obeys(text, low, high, open_low=open_low, open_high=open_high)
    number = data.draw(_numbers_near(low, high))
    assert accepts(made, str(number)) == (is_within(number, wanted) and abs(number) <= _largest(wanted))


def _numbers_near(low: Number | None, high: Number | None) -> st.SearchStrategy[int]:
    ends = [int(each) for each in (low, high) if each is not None] or [0]
    near = st.builds(lambda end, shift: end + shift, st.sampled_from(ends), st.integers(-30, 30))
    return near | st.integers(min(ends) - 10, max(ends) + 10)


def _largest(wanted: Range) -> int:
    return 10**18 - 1 if wanted == UNBOUNDED else 10**18


@settings(max_examples=200, deadline=None)
@given(st.none() | bounds, st.none() | bounds, st.booleans(), st.booleans())
def test_numbers(low: Number | None, high: Number | None, open_low: bool, open_high: bool) -> None:
    assume(low is not None or high is not None)
    wanted = between(low, high, open_low=open_low, open_high=open_high)
    try:
        made = grammar(number_expression(wanted))
    except RangeError:
        assert low is None or high is None or high - low < 1
        return
    for seed in range(10):
        text = sample(made, seed, repeats=9)
        assert obeys(text, low, high, open_low=open_low, open_high=open_high)
    for end, is_open in ((low, open_low), (high, open_high)):
        if end is not None and is_within(end, wanted):
            assert accepts(made, f"{end:f}" if isinstance(end, Decimal) else str(end)) != is_open


@settings(max_examples=200, deadline=None)
@given(st.integers(-3000, 3000), st.integers(0, 4000), st.integers(-3100, 7100), st.integers(0, 3), st.booleans())
def test_numbers_are_complete(low: int, width: int, number: int, places: int, is_open: bool) -> None:
    """With bounds and numbers counted in thousandths, written with as many zeros at the end as `places` leaves."""
    bounds = between(Decimal(low).scaleb(-3), Decimal(low + width).scaleb(-3), open_low=is_open)
    try:
        made = grammar(number_expression(bounds))
    except RangeError:
        assert width == 0
        assert is_open
        return
    value = Decimal(number).scaleb(-3)
    text = f"{value.normalize():f}"
    if "." in text:
        text += "0" * places
    assert accepts(made, text) == is_within(value, bounds)
    assert not accepts(made, f"0{text}")


TABLE: list[tuple[Callable[[Range], Expression], Range, list[str], list[str]]] = [
    (integer_expression, between(0, 0), ["0"], ["-0", "1", "00"]),
    (integer_expression, between(-1, 1), ["-1", "0", "1"], ["-0", "2", "-2"]),
    (integer_expression, between(8, 12), ["8", "12"], ["7", "13", "08"]),
    (integer_expression, between(95, 1005), ["95", "100", "999", "1005"], ["94", "1006", "095"]),
    (integer_expression, between(1, None), ["1", str(10**18)], ["0", "-1", str(10**18 + 1)]),
    (integer_expression, between(None, -5), ["-5", "-1000000"], ["-4", "5"]),
    (integer_expression, between(Decimal("0.5"), Decimal("2.5")), ["1", "2"], ["0", "3"]),
    (integer_expression, between(-(2**63), 2**63 - 1), ["0", str(-(10**18)), str(10**18)], [str(2 * 10**18)]),
    (
        number_expression,
        between(0, 1),
        ["0", "1", "0.5", "1.0", "0.000001"],
        ["-0.1", "1.1", "1.000001", "-0", "0.0000001"],
    ),
    (
        number_expression,
        between(0, 1, open_low=True, open_high=True),
        ["0.5", "0.000001", "0.999999"],
        ["0", "1", "0.0"],
    ),
    (number_expression, between(Decimal("-1.5"), Decimal("-0.25")), ["-1.5", "-1", "-0.25"], ["-1.6", "-0.2", "0.5"]),
    (number_expression, between(Decimal("1e-9"), None), ["0.000000001", "1", "999999"], ["0", "0.0000000001"]),
    (number_expression, between(Decimal("3.1"), Decimal("3.1")), ["3.1", "3.10"], ["3", "3.11"]),
    (number_expression, between(5, None), ["5", "5.5", "100000000000000"], ["4.9"]),
    (number_expression, between(10**14, None), ["100000000000000"], ["99999999999999.5"]),
]


@pytest.mark.parametrize(("make", "wanted", "good", "bad"), TABLE)
def test_table(make: Callable[[Range], Expression], wanted: Range, good: list[str], bad: list[str]) -> None:
    made = grammar(make(wanted))
    assert [each for each in good if not accepts(made, each)] == []
    assert [each for each in bad if accepts(made, each)] == []


@pytest.mark.parametrize(
    ("make", "wanted", "words"),
    [
        (integer_expression, between(2, 1), "no number is within"),
        (integer_expression, between(1, 2, open_low=True, open_high=True), "no number is within"),
        (integer_expression, between(10**18 + 1, None), "up to 1,000,000,000,000,000,000"),
        (number_expression, between(1, 1, open_high=True), "no number is within"),
        (number_expression, between(10**15, None), "up to 1,000,000,000,000,000"),
        (number_expression, between(Decimal("0.1234567890123456"), None), "15 digits"),
        (number_expression, between(Decimal("12345678.12345678"), None), "15 digits"),
    ],
)
def test_refuses(make: Callable[[Range], Expression], wanted: Range, words: str) -> None:
    with pytest.raises(RangeError, match=words):
        make(wanted)


def test_common_range_is_the_tighter_one() -> None:
    one, other = between(1, 9, open_high=True), between(1, 9, open_low=True)
    assert common_range(one, other) == between(1, 9, open_low=True, open_high=True)
    assert common_range(between(0, 5), UNBOUNDED, between(3, None)) == between(3, 5)


def test_doubles_that_round_inwards() -> None:
    """The bound reads as 100000000000000016 where numbers are doubles."""
    wanted = between(Decimal("100000000000000009.5"), None)
    assert not accepts(grammar(integer_expression(wanted)), "100000000000000010")
    assert accepts(grammar(integer_expression(wanted)), "100000000000000016")
