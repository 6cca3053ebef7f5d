"""Whether two schemas can both hold for one value: what oneOf needs to know. Errs on the side of saying yes."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass

from .expressions import GuideError
from .json_text import types_of
from .keywords import TYPES
from .references import Case, Document
from .shapes import Members, Shape

_NUMERIC = frozenset({"number", "integer"})


@dataclass(frozen=True, slots=True)
class _Options:
    """The options of one oneOf, each with the shapes that it can have.

    `owners`: by value, for shapes that list theirs, the option that has it; "" where several have.
    """

    shapes: tuple[tuple[str, Shape], ...]
    unlisted: tuple[tuple[str, Shape], ...]
    owners: Mapping[Hashable, str]

    def overlap(self, written: Shape, taken: str, document: Document) -> bool:
        """Whether a value written for the shape might satisfy another option than the one taken."""
        if not written.impossible and any(self.owners.get(each, taken) != taken for each in written.values or ()):
            return True
        others = self.shapes if written.values is None else self.unlisted
        document.count(len(others))
        return any(option != taken and may_overlap(written, shape, document) for option, shape in others)


def check_exclusive(cases: Iterable[Case], document: Document) -> None:
    """Raises GuideError where a value of a case might satisfy another option of a oneOf that the case chose from."""
    known: dict[str, _Options] = {}
    for case in cases:
        written = document.shape(case.owns)
        for taken in case.taken:
            place = taken.rpartition("/")[0]
            if place not in known:
                known[place] = _options(place, document)
            if known[place].overlap(written, taken, document):
                raise GuideError(place, "has options that one value could satisfy together; use anyOf")


def _options(place: str, document: Document) -> _Options:
    shapes = tuple(
        (option, document.shape(case.owns))
        for option in document.options(place)
        for case in document.cases(document.node((option,)))
    )
    owners: dict[Hashable, str] = {}
    for option, shape in shapes:
        for each in () if shape.impossible else shape.values or ():
            owners[each] = "" if owners.get(each, option) != option else option
    return _Options(shapes, tuple(each for each in shapes if each[1].values is None), owners)


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
    """Whether all that is written has a member that the other shape forbids, or lacks one that it requires."""
    return any(_is_forbidden(name, written, other, document) for name in written.members.required) or any(
        _is_never_written(name, written.members, document) for name in other.members.required
    )


def _is_forbidden(name: str, written: Shape, other: Shape, document: Document) -> bool:
    """Whether the other shape has no room for the member with the value that is written."""
    if document.is_false(other.members.group_of(name)):
        return True
    if name not in other.members.properties:
        return False
    mine, theirs = (_values(shape, name, document) for shape in (written, other))
    return mine is not None and theirs is not None and frozenset(mine).isdisjoint(theirs)


def _is_never_written(name: str, members: Members, document: Document) -> bool:
    if name in members.properties or members.additional is not None:
        return document.is_false(members.group_of(name))
    return members.are_listed and name not in members.required


def _values(shape: Shape, name: str, document: Document) -> Collection[Hashable] | None:
    node = document.node(shape.members.group_of(name))
    return document.shape(node.owns).values
