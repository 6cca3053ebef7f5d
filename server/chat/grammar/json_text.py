"""JSON of callers: read with care, compared as JSON Schema compares, written in one style. Knows no schemas.

Numbers stay exact: whole ones are int, all others Decimal. Values that were read hold no duplicate names, no NaN and no
lone surrogates, and are small enough to be walked without a second thought.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Hashable, Iterator
from decimal import Decimal, InvalidOperation
from typing import TypeAlias

from typing_extensions import assert_never

from .expressions import GuideError

JsonValue: TypeAlias = "dict[str, JsonValue] | list[JsonValue] | str | int | Decimal | bool | None"

MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 64
MAX_VALUES = 5_000
_LARGEST = Decimal(sys.float_info.max)
_MIN_EXPONENT, _MAX_DIGITS = -307, 400

_SURROGATE = re.compile("[\ud800-\udfff]")


def read_json(text: str) -> JsonValue:
    """The value that the text stands for. Raises GuideError."""
    if len(text) > MAX_CHARACTERS:
        raise GuideError("", f"is longer than {MAX_CHARACTERS:,} characters")
    try:
        value: JsonValue = json.loads(
            text, parse_float=Decimal, parse_constant=_refuse_constant, object_pairs_hook=_object
        )
    except RecursionError:
        raise GuideError("", f"is nested deeper than {MAX_DEPTH} levels") from None
    except json.JSONDecodeError as error:
        raise GuideError("", f"is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except (ValueError, InvalidOperation):  # what int() and Decimal() say of thousands of digits
        raise GuideError("", "has a number with too many digits") from None
    _check_bounds(value)
    return value


def step(place: str, *names: str | int) -> str:
    """The JSON Pointer of what is at `names` below `place`."""
    return place + "".join("/" + str(name).replace("~", "~0").replace("/", "~1") for name in names)


def write_json(value: JsonValue) -> str:
    """The value's text as `json.dumps` writes it, beyond ASCII as it is."""
    match value:
        case dict():
            return "{" + ", ".join(f"{write_json(name)}: {write_json(each)}" for name, each in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(write_json, value)) + "]"
        case Decimal():
            return str(value)
        case _:
            return json.dumps(value, ensure_ascii=False)


def types_of(value: JsonValue) -> frozenset[str]:
    """The names of all JSON Schema types that the value has. 1.0 is an integer."""
    match value:
        case None:
            return frozenset({"null"})
        case bool():
            return frozenset({"boolean"})
        case str():
            return frozenset({"string"})
        case dict():
            return frozenset({"object"})
        case list():
            return frozenset({"array"})
        case int() | Decimal():
            return frozenset({"integer", "number"} if is_whole(value) else {"number"})
        case _:
            assert_never(value)


def is_whole(number: int | Decimal) -> bool:
    """Whether the number has no fraction, however large it is: `number // 1` would fail from 29 digits on."""
    return isinstance(number, int) or number == number.to_integral_value()


def identity(value: JsonValue) -> Hashable:
    """The same for values that JSON Schema takes as equal: 1 and 1.0, but not 1 and true."""
    match value:
        case dict():
            return "object", frozenset((name, identity(each)) for name, each in value.items())
        case list():
            return "array", tuple(map(identity, value))
        case Decimal():
            return float(value)  # as whoever reads the answer will
        case bool():
            return "boolean", value
        case _:
            return value


def _object(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    result: dict[str, JsonValue] = {}
    for name, value in pairs:
        if name in result:
            raise GuideError("", f"has an object with the name {clipped(name)} twice")
        result[name] = value
    return result


def _refuse_constant(name: str) -> JsonValue:
    raise GuideError("", f"is not JSON: {name} is no number there")


def _check_bounds(value: JsonValue) -> None:
    waiting: list[tuple[str, int, JsonValue]] = [("", 1, value)]
    count = 0
    while waiting:
        place, depth, each = waiting.pop()
        count += 1
        if count > MAX_VALUES:
            raise GuideError("", f"holds more than {MAX_VALUES:,} values")
        if depth > MAX_DEPTH and isinstance(each, dict | list):
            raise GuideError("", f"is nested deeper than {MAX_DEPTH} levels")
        _check_value(place, each)
        waiting += reversed([(below, depth + 1, inner) for below, inner in _inside(place, each)])


def _inside(place: str, value: JsonValue) -> Iterator[tuple[str, JsonValue]]:
    if isinstance(value, list):
        yield from ((step(place, index), each) for index, each in enumerate(value))
    elif isinstance(value, dict):
        for name, each in value.items():
            _check_value(place, name)
            yield step(place, name), each


def _check_value(place: str, value: JsonValue) -> None:
    if isinstance(value, str) and _SURROGATE.search(value):
        raise GuideError(place, "holds half a surrogate pair; write whole characters")
    if isinstance(value, int | Decimal) and not isinstance(value, bool) and not _is_sane(Decimal(value)):
        raise GuideError(place, "is a number out of the range of doubles")


def _is_sane(number: Decimal) -> bool:
    parts = number.as_tuple()
    if not number:
        return abs(int(parts.exponent)) <= _MAX_DIGITS
    is_small = number.copy_abs() <= _LARGEST and len(parts.digits) <= _MAX_DIGITS
    return is_small and number.adjusted() >= _MIN_EXPONENT


def clipped(name: str) -> str:
    """A name of the caller's for a message: quoted, and not longer than a line."""
    return json.dumps(name if len(name) <= 60 else name[:57] + "...")
