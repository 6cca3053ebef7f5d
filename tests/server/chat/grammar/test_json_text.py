"""JSON of callers: reading, comparing, writing."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.chat.grammar.expressions import GuideError
from server.chat.grammar.json_text import clipped, identity, read_json, step, types_of, write_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda each: each == 0 or 1e-300 < abs(each) < 1e300)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("aé\n", max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(VALUES)
def test_what_is_read_is_written(value: Any) -> None:
    written = write_json(read_json(json.dumps(value)))
    assert json.loads(written) == value
    assert ":  " not in written.replace('"', "")


@given(VALUES, VALUES)
def test_identity_is_that_of_json_schema(one: Any, other: Any) -> None:
    first, second = read_json(json.dumps(one)), read_json(json.dumps(other))
    assert identity(first) == identity(read_json(json.dumps(one)))
    if json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True):
        assert identity(first) == identity(second)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1", "1.0", True),
        ("1", "true", False),
        ("0", "false", False),
        ("[1]", "[true]", False),
        ('"1"', "1", False),
        ('{"a": 1, "b": 2}', '{"b": 2.0, "a": 1e0}', True),
        ("[]", "{}", False),
        ("0.1", "0.10", True),
        ("null", "false", False),
    ],
)
def test_identity(one: str, other: str, same: bool) -> None:
    assert (identity(read_json(one)) == identity(read_json(other))) == same


def test_numbers_stay_exact() -> None:
    assert read_json("[1, 1.0, 1e2, 12345678901234567890]") == [
        1,
        Decimal("1.0"),
        Decimal("1E+2"),
        12345678901234567890,
    ]
    assert write_json(Decimal("1.50")) == "1.50"


@pytest.mark.parametrize(
    ("text", "types"),
    [
        ("1", {"integer", "number"}),
        ("1.0", {"integer", "number"}),
        ("1.5", {"number"}),
        ("1e29", {"integer", "number"}),
        ("-1e308", {"integer", "number"}),
        ("1e-307", {"number"}),
        ("123456789012345678901234567890.0", {"integer", "number"}),
        ("123456789012345678901234567890.5", {"number"}),
        ("true", {"boolean"}),
        ('""', {"string"}),
        ("null", {"null"}),
        ("[]", {"array"}),
        ("{}", {"object"}),
    ],
)
def test_types(text: str, types: set[str]) -> None:
    assert types_of(read_json(text)) == types


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", "", "is not JSON"),
        ("[1,]", "", "is not JSON"),
        ("Infinity", "", "Infinity is no number"),
        ('{"a": {"b": 1, "b": 2}}', "", 'the name "b" twice'),
        ('{"a": [1, "\\udc00"]}', "/a/1", "half a surrogate pair"),
        ('{"a": [1e308, 1e309]}', "/a/1", "range of doubles"),
        ('{"~/": 1e-400}', "/~0~1", "range of doubles"),
        ("1" * 4_400, "", "too many digits"),
        ("1e" + "9" * 30, "", "number"),
        ("[" * 65 + "]" * 65, "", "deeper than 64"),
    ],
)
def test_refuses(text: str, place: str, words: str) -> None:
    with pytest.raises(GuideError) as caught:
        read_json(text)
    assert caught.value.place == place
    assert words in caught.value.problem


def test_places_and_names() -> None:
    assert step("/a", "b/c~", 3) == "/a/b~1c~0/3"
    assert clipped("x" * 100) == '"' + "x" * 57 + '..."'
