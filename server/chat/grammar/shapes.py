"""What one schema says about values, and what several say together. Knows schemas by place, not what is in them.

A group of schemas that must all hold is the tuple of their places; the empty group allows anything.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import TypeAlias

from .expressions import GuideError
from .json_text import JsonValue, step
from .numbers import Range, common_range
from .strings import Texts

Group: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """Objects. `additional`: the group for names that are not among `properties`; None where nothing was said.

    `are_listed`: some schema has `properties`, be it an empty one; without `additional` no other names are written.
    """

    properties: Mapping[str, Group] = field(default_factory=dict)
    are_listed: bool = False
    required: tuple[str, ...] = ()
    additional: Group | None = None
    fewest: int = 0
    most: int | None = None

    def group_of(self, name: str) -> Group:
        """What holds for the member of this name."""
        return self.properties.get(name, self.additional or ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """Arrays. `rest`: the group for items after the `prefix`; None where nothing was said."""

    prefix: tuple[Group, ...] = ()
    rest: Group | None = None
    fewest: int = 0
    most: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """All that is said of a value. `types`: None for no `type`; `implied_types`: those that keywords are about.

    `values`: the only ones, by identity; None for no such list. `impossible`: one of the
    schemas is false. `place`: where to complain.
    """

    place: str
    types: frozenset[str] | None = None
    implied_types: frozenset[str] = frozenset()
    values: Mapping[Hashable, JsonValue] | None = None
    impossible: bool = False
    numbers: Range = Range()
    texts: Texts = Texts()
    members: Members = Members()
    items: Items = Items()


def both(one: Shape, other: Shape) -> Shape:
    """What both say together. Raises GuideError where that can't be kept."""
    return replace(
        one,
        types=_common_types(one.types, other.types),
        implied_types=one.implied_types | other.implied_types,
        values=common_values(one.values, other.values),
        impossible=one.impossible or other.impossible,
        numbers=common_range(one.numbers, other.numbers),
        texts=_both_texts(one, other),
        members=_both_members(one.members, other.members),
        items=_both_items(one.items, other.items),
    )


def _common_types(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return one if other is None else other
    common = one & other
    return common | {"integer"} if "integer" in one | other and _has_number(one) and _has_number(other) else common


def _has_number(types: frozenset[str]) -> bool:
    return not types.isdisjoint({"number", "integer"})


def common_values(
    one: Mapping[Hashable, JsonValue] | None, other: Mapping[Hashable, JsonValue] | None
) -> Mapping[Hashable, JsonValue] | None:
    """The values that are in both; None is any value."""
    if one is None or other is None:
        return one if other is None else other
    return {key: each for key, each in one.items() if key in other}


def _both_texts(one: Shape, other: Shape) -> Texts:
    for name, mine, theirs in (
        ("pattern", one.texts.pattern, other.texts.pattern),
        ("format", one.texts.format, other.texts.format),
    ):
        if mine is not None and theirs is not None and mine != theirs:
            raise GuideError(step(other.place, name), f"two different {name}s can't be combined; leave one of them out")
    return Texts(
        shortest=max(one.texts.shortest, other.texts.shortest),
        longest=_smaller(one.texts.longest, other.texts.longest),
        pattern=other.texts.pattern if one.texts.pattern is None else one.texts.pattern,
        format=other.texts.format if one.texts.format is None else one.texts.format,
    )


def _both_members(one: Members, other: Members) -> Members:
    names = dict.fromkeys([*one.properties, *other.properties])
    additional = _joined(one.additional, other.additional)
    return Members(
        properties={name: _union(one.group_of(name), other.group_of(name)) for name in names},
        are_listed=one.are_listed or other.are_listed,
        required=_union(one.required, other.required),
        additional=additional,
        fewest=max(one.fewest, other.fewest),
        most=_smaller(one.most, other.most),
    )


def _both_items(one: Items, other: Items) -> Items:
    prefix = tuple(
        _union(one.rest or () if mine is None else mine, other.rest or () if theirs is None else theirs)
        for mine, theirs in zip_longest(one.prefix, other.prefix)
    )
    return Items(
        prefix=prefix,
        rest=_joined(one.rest, other.rest),
        fewest=max(one.fewest, other.fewest),
        most=_smaller(one.most, other.most),
    )


def _union(one: Group, other: Group) -> Group:
    return tuple(dict.fromkeys(one + other))


def _joined(one: Group | None, other: Group | None) -> Group | None:
    return other if one is None else one if other is None else _union(one, other)


def _smaller(one: int | None, other: int | None) -> int | None:
    return min((each for each in (one, other) if each is not None), default=None)
