"""One shape as grammar. Knows what is said of a value, and asks whoever knows the schemas for the parts of it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Protocol

from .containers import Member, any_key, array_expression, object_expression
from .expressions import Expression, GuideError, Literal, choice, sequence
from .json_text import JsonValue, clipped, step, types_of, write_json
from .json_values import OBJECT, VALUE
from .keywords import TYPES
from .numbers import RangeError, integer_expression, is_within, number_expression
from .regex_syntax import MAX_CHARACTERS
from .shape_reading import MAX_ITEMS
from .shapes import Group, Members, Shape
from .strings import string_expression

_SYMBOLS_PER_PATTERN_CHARACTER = 5  # what reading a pattern takes besides writing what it stands for


class NoValue(GuideError):
    """No value satisfies the schema; there may be another case."""


class Parts(Protocol):
    """What there is to ask about other schemas."""

    def value(self, group: Group, place: str) -> Expression:
        """The values for which the group holds: something small, or a rule."""
        ...

    def share(self, expression: Expression, place: str) -> Expression:
        """The expression as something small, or as a rule."""
        ...

    def spend(self, symbols: int, place: str) -> None:
        """Notes work that is worth so many symbols. Raises GuideError where it gets too much."""
        ...

    def is_false(self, group: Group) -> bool:
        """Whether one of the group is plainly `false`."""
        ...


def shape_expression(shape: Shape, parts: Parts) -> Expression:
    """The values that the shape allows. Raises GuideError, NoValue where there are none."""
    if shape.impossible:
        raise NoValue(shape.place, "no value can satisfy this")
    if shape.values is not None:
        return _values(shape, shape.values)
    if shape.types is None and not shape.implied_types:
        return VALUE
    types = shape.implied_types if shape.types is None else shape.types
    written = [each for each in TYPES if each in types and not (each == "integer" and "number" in types)]
    if not written:
        raise NoValue(shape.place, "no type is allowed by all of the schemas that hold here")
    return choice(*(_of_type(each, shape, parts) for each in written))


def _of_type(kind: str, shape: Shape, parts: Parts) -> Expression:
    match kind:
        case "object":
            return _object(shape, parts)
        case "array":
            return _array(shape, parts)
        case "string":
            return _string(shape, parts)
        case "number" | "integer":
            return _number(shape, whole=kind == "integer")
        case "boolean":
            return choice(Literal("true"), Literal("false"))
        case _:
            return Literal("null")


def _values(shape: Shape, values: Mapping[object, JsonValue]) -> Expression:
    others = shape.implied_types & {"object", "array"}
    if others or shape.texts.pattern is not None or shape.texts.format is not None:
        raise GuideError(
            shape.place, "enum and const can't be combined with keywords about their values; leave those out"
        )
    texts = [write_json(each) for each in values.values() if _is_allowed(each, shape)]
    if not texts:
        raise NoValue(shape.place, "none of the values of enum and const is allowed here")
    return choice(*map(Literal, texts))


def _is_allowed(value: JsonValue, shape: Shape) -> bool:
    """Whether a value of enum or const keeps the other keywords about single values."""
    if shape.types is not None and shape.types.isdisjoint(types_of(value)):
        return False
    if isinstance(value, str):
        longest = shape.texts.longest
        return shape.texts.shortest <= len(value) and (longest is None or len(value) <= longest)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return True
    return is_within(value, shape.numbers)


def _string(shape: Shape, parts: Parts) -> Expression:
    characters = min(len(shape.texts.pattern or ""), MAX_CHARACTERS)  # longer ones are refused unread
    parts.spend(_SYMBOLS_PER_PATTERN_CHARACTER * characters, shape.place)
    try:
        return string_expression(shape.texts)
    except GuideError as error:
        inside = error.place and f"{error.place}: "
        place = step(shape.place, "pattern") if shape.texts.pattern is not None else shape.place
        raise GuideError(place, inside + error.problem) from None


def _number(shape: Shape, *, whole: bool) -> Expression:
    try:
        return (integer_expression if whole else number_expression)(shape.numbers)
    except RangeError as error:
        raise NoValue(shape.place, str(error)) from None


def _object(shape: Shape, parts: Parts) -> Expression:
    members = shape.members
    names = dict.fromkeys([*members.properties, *members.required])
    written = [each for each in names if _is_written(each, shape, parts)]
    extra = _extra(members, tuple(names), shape.place, parts)
    _check_count(members, len(written), is_open=extra is not None, place=shape.place)
    most_extra = None if members.most is None else min(members.most - len(written), MAX_ITEMS)
    if members == Members():
        return OBJECT
    found = [
        Member(
            name=name,
            value=parts.value(members.group_of(name), step(shape.place, "properties", name)),
            required=name in members.required,
        )
        for name in written
    ]
    return object_expression(
        found,
        extra=None if most_extra == 0 else extra,
        most_extra=most_extra,
        may_be_empty=not members.fewest,
        share=lambda each: parts.share(each, shape.place),
    )


def _is_written(name: str, shape: Shape, parts: Parts) -> bool:
    if not parts.is_false(shape.members.group_of(name)):
        return True
    if name in shape.members.required:
        raise NoValue(step(shape.place, "required"), f"required names {clipped(name)}, which is not allowed here")
    return False


def _extra(members: Members, names: tuple[str, ...], place: str, parts: Parts) -> Expression | None:
    """A member that is not among the properties, name and value; None where there is none."""
    group = members.additional
    if parts.is_false(group or ()) or (group is None and members.are_listed):
        return None
    key = any_key(but=names, share=lambda each: parts.share(each, place))
    value = parts.value(group or (), step(place, "additionalProperties"))
    return parts.share(sequence(key, Literal(": "), value), place)


def _check_count(members: Members, count: int, *, is_open: bool, place: str) -> None:
    """Refuses counts of members that don't follow from the other keywords."""
    is_closed = not is_open or members.most == count
    if members.fewest > max(1, len(members.required)) or (members.fewest and not count and is_closed):
        raise GuideError(step(place, "minProperties"), "minProperties is supported up to what is required; lower it")
    if members.most is not None and members.most < count:
        raise GuideError(
            step(place, "maxProperties"), "maxProperties is supported from what properties name on; raise it"
        )


def _array(shape: Shape, parts: Parts) -> Expression:
    items, most, rest = shape.items, shape.items.most, shape.items.rest
    if rest is None and (not items.prefix or items.fewest > len(items.prefix)):
        rest = ()
    # A position for which nothing is allowed ends the array before it.
    end = next((at for at, each in enumerate(items.prefix) if parts.is_false(each)), None)
    if end is None and parts.is_false(rest or ()):
        end = len(items.prefix)
    most = min((each for each in (most, end) if each is not None), default=None)
    if most is not None and items.fewest > most:
        raise NoValue(shape.place, f"no array can have at least {items.fewest:,} and at most {most:,} items")
    prefix = items.prefix[:most]
    return array_expression(
        [parts.value(each, step(shape.place, "prefixItems", at)) for at, each in enumerate(prefix)],
        None if rest is None or len(prefix) == most else parts.value(rest, step(shape.place, "items")),
        least=items.fewest,
        most=most,
        share=lambda each: parts.share(each, shape.place),
    )
