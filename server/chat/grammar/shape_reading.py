"""What the keywords of one schema say, as a Shape. Knows no other schemas and no grammar."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from .formats import FORMATS
from .json_text import JsonValue, identity, step
from .keywords import Keywords
from .numbers import Range, common_range, lower_bound, upper_bound
from .shapes import Items, Members, Shape, common_values
from .strings import MAX_LENGTH, Texts

MAX_ITEMS = 1_000
MAX_ENUM = 1_000


def shape_of(keywords: Keywords) -> Shape:
    """What the schema's own keywords say, without $ref, allOf, anyOf and oneOf. Raises GuideError."""
    return Shape(
        place=keywords.place,
        types=keywords.types,
        implied_types=keywords.implied_types,
        values=_values(keywords),
        numbers=_numbers(keywords),
        texts=_texts(keywords),
        members=_members(keywords),
        items=_items(keywords),
    )


def _values(keywords: Keywords) -> Mapping[Hashable, JsonValue] | None:
    values: Mapping[Hashable, JsonValue] | None = None
    if "enum" in keywords:
        values = {identity(each): each for each in keywords.values("enum", most=MAX_ENUM)}
    if "const" in keywords:
        values = common_values({identity(keywords.value("const")): keywords.value("const")}, values)
    return values


def _numbers(keywords: Keywords) -> Range:
    _check_multiple(keywords)
    ranges = [Range()]
    for name, exclusive in (("minimum", False), ("exclusiveMinimum", True)):
        if (limit := keywords.number(name)) is not None:
            ranges.append(Range(low=lower_bound(limit, exclusive=exclusive)))
    for name, exclusive in (("maximum", False), ("exclusiveMaximum", True)):
        if (limit := keywords.number(name)) is not None:
            ranges.append(Range(high=upper_bound(limit, exclusive=exclusive)))
    return common_range(*ranges)


def _check_multiple(keywords: Keywords) -> None:
    multiple = keywords.number("multipleOf")
    types = keywords.types or frozenset({"number"})
    if multiple is not None and (multiple != 1 or "number" in types):
        advice = "use type integer" if multiple == 1 else "leave it out"
        raise keywords.error("multipleOf", f"is not supported; {advice}")


def _texts(keywords: Keywords) -> Texts:
    known = keywords.text("format")
    if known is not None and known not in FORMATS:
        raise keywords.error("format", f"must be one of {', '.join(sorted(FORMATS))}; leave others out")
    return Texts(
        shortest=keywords.count("minLength", most=MAX_LENGTH) or 0,
        longest=keywords.count("maxLength"),
        pattern=keywords.text("pattern"),
        format=known,
    )


def _members(keywords: Keywords) -> Members:
    if "unevaluatedProperties" in keywords and (
        keywords.value("unevaluatedProperties") is not False or "additionalProperties" not in keywords
    ):
        raise keywords.error("unevaluatedProperties", "is not supported; use additionalProperties")
    additional = (step(keywords.place, "additionalProperties"),) if "additionalProperties" in keywords else None
    return Members(
        properties={name: (place,) for name, place in keywords.named_places("properties").items()},
        are_listed="properties" in keywords,
        required=keywords.texts("required"),
        additional=additional,
        fewest=keywords.count("minProperties") or 0,
        most=keywords.count("maxProperties"),
    )


def _items(keywords: Keywords) -> Items:
    if "unevaluatedItems" in keywords and (keywords.value("unevaluatedItems") is not False or "items" not in keywords):
        raise keywords.error("unevaluatedItems", "is not supported; use items")
    if "uniqueItems" in keywords and keywords.value("uniqueItems") is not False:
        raise keywords.error("uniqueItems", "is not supported; leave it out")
    if "items" in keywords and isinstance(keywords.value("items"), list):
        raise keywords.error("items", "must be one schema; use prefixItems for a list of them")
    most = keywords.count("maxItems")
    return Items(
        prefix=tuple((place,) for place in keywords.places("prefixItems")) if "prefixItems" in keywords else (),
        rest=(step(keywords.place, "items"),) if "items" in keywords else None,
        fewest=keywords.count("minItems", most=MAX_ITEMS) or 0,
        most=None if most is None else min(most, MAX_ITEMS),
    )
