"""Which schemas hold together in one place: follows $ref and allOf, and splits anyOf and oneOf into cases.

Knows what single schemas say as a `Shape`, and no grammar.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import reduce
from urllib.parse import unquote

from .expressions import GuideError
from .json_text import JsonValue, clipped, step
from .keywords import Keywords
from .limits import Budget
from .shape_reading import shape_of
from .shapes import Group, Shape, both

MAX_CHAIN = 64
MAX_CASES = 256
MAX_WORK = 25_000
_SYMBOLS_PER_STEP = 2  # what a step of work is worth

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Node:
    """Schemas that must all hold, flattened.

    `owns`: places of schemas whose own keywords count, in the order in which their properties are written.
    `choices`: places of anyOf and oneOf lists.
    """

    owns: Group = ()
    choices: Group = ()

    def joined(self, other: Node) -> Node:
        """All schemas of both."""
        return Node(tuple(dict.fromkeys(self.owns + other.owns)), tuple(dict.fromkeys(self.choices + other.choices)))


@dataclass(frozen=True, slots=True)
class Case:
    """Schemas whose own keywords must all hold. `taken`: options of oneOf lists that were chosen for it."""

    owns: Group
    taken: Group


@dataclass(frozen=True, slots=True)
class _Open:
    """A case in the making. `opened`: all choices that it has had so far."""

    node: Node
    opened: frozenset[str]
    taken: Group


@dataclass(slots=True)
class _Found:
    """A node in the making; places in order, each once."""

    owns: dict[str, None] = field(default_factory=dict)
    choices: dict[str, None] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)


class Document:
    """One schema text, read. Places in it are JSON Pointers; those of `choices` end in the keyword."""

    def __init__(self, root: JsonValue, budget: Budget | None = None) -> None:
        self._root = root
        self._budget = Budget() if budget is None else budget
        self._keywords: dict[str, Keywords | bool] = {}
        self._shapes: dict[Group, Shape] = {}
        self._nodes: dict[Group, Node] = {}
        self._cases: dict[Node, tuple[Case, ...]] = {}
        self._work = 0

    def is_false(self, group: Group) -> bool:
        """Whether one of the schemas is plainly `false`."""
        return any(self._schema(place) is False for place in group)

    def is_reference(self, group: Group) -> bool:
        """Whether following the group leads anywhere through a $ref."""
        waiting = list(group)
        seen = set(waiting)
        while waiting:
            keywords = self._schema(waiting.pop())
            if isinstance(keywords, bool):
                continue
            if "$ref" in keywords:
                return True
            places = keywords.places("allOf") if "allOf" in keywords else ()
            waiting += [place for place in places if place not in seen]
            seen.update(places)
        return False

    def node(self, group: Group) -> Node:
        """The group with $ref and allOf followed. Raises GuideError for cycles and bad references."""
        if group not in self._nodes:
            found = _Found()
            for place in group:
                self._collect(place, (), found)
            self._nodes[group] = Node(tuple(found.owns), tuple(found.choices))
        return self._nodes[group]

    def options(self, place: str) -> tuple[str, ...]:
        """The places of the schemas in an anyOf or oneOf list."""
        above, _, name = place.rpartition("/")
        keywords = self._schema(above)
        return () if isinstance(keywords, bool) else keywords.places(name)

    def shape(self, owns: Group) -> Shape:
        """What the own keywords of all these schemas say together."""
        if owns not in self._shapes:
            shapes = [self._own_shape(place) for place in owns]
            self.count(sum(3 + len(each.members.properties) + len(each.items.prefix) for each in shapes))
            while len(shapes) > 1:  # in pairs, as what is put together keeps growing
                shapes = [reduce(both, shapes[at : at + 2]) for at in range(0, len(shapes), 2)]
            self._shapes[owns] = shapes[0] if shapes else Shape(place="")
        return self._shapes[owns]

    def cases(self, node: Node) -> tuple[Case, ...]:
        """All ways to choose from anyOf and oneOf."""
        if node not in self._cases:
            self._cases[node] = self._all_cases(node)
        return self._cases[node]

    def _all_cases(self, node: Node) -> tuple[Case, ...]:
        found: dict[Case, None] = {}
        seen: set[tuple[Node, Group]] = set()
        waiting = [_Open(node, frozenset(node.choices), ())]
        while waiting:
            each = waiting.pop()
            if (each.node, each.taken) in seen:
                continue
            seen.add((each.node, each.taken))
            self.count(1 + len(each.node.owns))
            if not each.node.choices:
                found[Case(each.node.owns, each.taken)] = None
            if len(found) > MAX_CASES:
                raise GuideError(
                    node.choices[0], f"makes more than {MAX_CASES} cases, all combinations counted; give fewer options"
                )
            waiting += reversed(list(self._opened(each)))
        return tuple(found)

    def count(self, steps: int) -> None:
        """Notes work done. Raises GuideError when it gets out of hand."""
        self._work += steps
        if self._work > MAX_WORK:
            raise GuideError("", "becomes too large once its references and cases are put together")
        self._budget.spend(_SYMBOLS_PER_STEP * steps, "")

    def _opened(self, case: _Open) -> Iterator[_Open]:
        """The case with each option of its first choice."""
        owns, choices = case.node.owns, case.node.choices
        for place in self.options(choices[0]) if choices else ():
            more = self.node((place,))
            if not case.opened.isdisjoint(more.choices):
                raise GuideError(place, "leads back to itself without a property or item in between")
            taken = (*case.taken, place) if choices[0].endswith("/oneOf") else case.taken
            yield _Open(Node(owns, choices[1:]).joined(more), case.opened.union(more.choices), taken)

    def _collect(self, place: str, trail: Group, found: _Found) -> None:
        if place in trail:
            raise GuideError(place, "leads back to itself without a property or item in between")
        if place in found.done:
            return
        if len(trail) >= MAX_CHAIN:
            raise GuideError(place, f"is reached through more than {MAX_CHAIN} references in a row")
        self.count(1)
        keywords = self._schema(place)
        if isinstance(keywords, bool):
            found.owns.update({} if keywords else {place: None})
        else:
            for name in keywords.order_of(frozenset({"properties", "$ref", "allOf"})):
                if name == "properties":  # in the schema's order among those of its bases
                    found.owns[place] = None
                for base in self._bases(keywords, name):
                    self._collect(base, (*trail, place), found)
            names = keywords.order_of(frozenset({"anyOf", "oneOf"}))
            found.choices.update(dict.fromkeys(step(place, name) for name in names))
            found.owns.update({place: None} if keywords.constraints else {})
        found.done.add(place)

    def _bases(self, keywords: Keywords, name: str) -> Group:
        if name == "$ref":
            return (self._target(keywords),)
        return keywords.places(name) if name == "allOf" else ()

    def _target(self, keywords: Keywords) -> str:
        reference = keywords.text("$ref") or ""
        pointer = unquote(reference[1:])
        if not reference.startswith("#") or not (pointer == "" or pointer.startswith("/")):
            raise keywords.error("$ref", 'must lead to a place in this schema, such as "#/$defs/name"')
        try:
            self._schema(pointer)
        except LookupError:
            raise keywords.error("$ref", f"leads to {clipped(reference)}, which isn't there") from None
        return pointer

    def _own_shape(self, place: str) -> Shape:
        if (place,) not in self._shapes:
            keywords = self._schema(place)
            if isinstance(keywords, bool):
                self._shapes[place,] = Shape(place=place, impossible=not keywords)
            else:
                self._shapes[place,] = shape_of(keywords)
        return self._shapes[place,]

    def _schema(self, place: str) -> Keywords | bool:
        """Raises LookupError where there is no such place, GuideError for what is no schema."""
        if place not in self._keywords:
            value = _at(self._root, place)
            if not isinstance(value, dict | bool):
                raise GuideError(place, "must be a schema: an object, true or false")
            self._keywords[place] = value if isinstance(value, bool) else Keywords(value, place)
        return self._keywords[place]


def _at(value: JsonValue, place: str) -> JsonValue:
    for name in place.split("/")[1:]:
        name = name.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list) and _INDEX.fullmatch(name):
            value = value[int(name)]
        elif isinstance(value, dict):
            value = value[name]
        else:
            raise LookupError(place)
    return value
