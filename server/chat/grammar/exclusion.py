"""Whether two schemas can both hold for one value: what oneOf needs to know. Errs on the side of saying yes."""

from __future__ import annotations

from collections.abc import Collection, Hashable

from .expressions import GuideError
from .json_text import types_of
from .keywords import TYPES
from .references import Case, Document
from .shapes import Shape

_NUMERIC = frozenset({"number", "integer"})


def check_exclusive(case: Case, document: Document) -> None:
    """Raises GuideError where a value of the case might satisfy another option of a oneOf that the case chose from."""
    written = document.shape(case.owns)
    for taken in case.taken:
        place = taken.rpartition("/")[0]
        for option in document.options(place):
            others = document.cases(document.node((option,))) if option != taken else ()
            if any(may_overlap(written, document.shape(other.owns), document) for other in others):
                raise GuideError(place, "has options that one value could satisfy together; use anyOf")


def may_overlap(written: Shape, other: Shape, document: Document) -> bool:
    """Whether a value that is written for the one shape might also satisfy the other.

    Only some types are written where a schema names none, but such a schema is satisfied by values of all types.
    """
    if written.impossible or other.impossible:
        return False
    if written.values is not None and other.values is not None:
        return not written.values.keys().isdisjoint(other.values)
    shared = written_types(written) & _accepted_types(other)
    if shared != {"object"}:
        return bool(shared)
    return not _told_apart(written, other, document)


def written_types(shape: Shape) -> frozenset[str]:
    """The types of the values that are written for a shape."""
    if shape.values is not None:
        return _types_of_values(shape)
    types = shape.types if shape.types is not None else shape.implied_types or frozenset(TYPES)
    return types | _NUMERIC if types & _NUMERIC else types


def _accepted_types(shape: Shape) -> frozenset[str]:
    if shape.values is not None:
        return _types_of_values(shape)
    types = frozenset(TYPES) if shape.types is None else shape.types
    return types | _NUMERIC if types & _NUMERIC else types


def _types_of_values(shape: Shape) -> frozenset[str]:
    types = frozenset[str]().union(*map(types_of, (shape.values or {}).values()))
    return types | _NUMERIC if types & _NUMERIC else types


def _told_apart(written: Shape, other: Shape, document: Document) -> bool:
    """Whether a member that is always written has a value that the other shape forbids."""
    for name in written.members.required:
        if name in other.members.properties:
            mine, theirs = (_values(shape, name, document) for shape in (written, other))
            if mine is not None and theirs is not None and frozenset(mine).isdisjoint(theirs):
                return True
    return False


def _values(shape: Shape, name: str, document: Document) -> Collection[Hashable] | None:
    node = document.node(shape.members.group_of(name))
    return document.shape(node.owns).values
