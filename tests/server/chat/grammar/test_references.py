"""Which schemas hold together."""

from __future__ import annotations

from typing import Any

import pytest

from server.chat.grammar.expressions import GuideError
from server.chat.grammar.limits import Budget
from server.chat.grammar.references import Document, Node

DEFINITIONS: dict[str, Any] = {
    "base": {"type": "object", "properties": {"a": {}}},
    "both": {"allOf": [{"$ref": "#/$defs/base"}, {"required": ["a"]}], "properties": {"b": {}}},
    "again": {"$ref": "#/$defs/both", "allOf": [{"$ref": "#/$defs/base"}]},
    "either": {"anyOf": [{"$ref": "#/$defs/base"}, {"type": "null"}]},
    "next to": {"minimum": 1, "anyOf": [{"type": "null"}, {"anyOf": [{"maximum": 2}, {"maximum": 3}]}]},
    "twice": {"allOf": [{"anyOf": [{"minimum": 1}, {"minimum": 2}]}, {"oneOf": [{"maximum": 3}, False]}]},
    "nothing": {"title": "nothing", "allOf": [True]},
}


def document() -> Document:
    return Document({"$defs": DEFINITIONS})


def place(name: str) -> str:
    return f"/$defs/{name}"


@pytest.mark.parametrize(
    ("name", "owns", "choices"),
    [
        ("base", ["base"], []),
        ("both", ["base", "both/allOf/1", "both"], []),
        ("again", ["base", "both/allOf/1", "both"], []),
        ("either", [], ["either/anyOf"]),
        ("next to", ["next to"], ["next to/anyOf"]),
        ("nothing", [], []),
    ],
)
def test_node(name: str, owns: list[str], choices: list[str]) -> None:
    assert document().node((place(name),)) == Node(tuple(map(place, owns)), tuple(map(place, choices)))


@pytest.mark.parametrize(
    ("name", "cases"),
    [
        ("base", [["base"]]),
        ("either", [["base"], ["either/anyOf/1"]]),
        ("next to", [["next to", f"next to/anyOf/{each}"] for each in ("0", "1/anyOf/0", "1/anyOf/1")]),
        (
            "twice",
            [
                ["twice/allOf/0/anyOf/0", "twice/allOf/1/oneOf/0"],
                ["twice/allOf/0/anyOf/0", "twice/allOf/1/oneOf/1"],
                ["twice/allOf/0/anyOf/1", "twice/allOf/1/oneOf/0"],
                ["twice/allOf/0/anyOf/1", "twice/allOf/1/oneOf/1"],
            ],
        ),
    ],
)
def test_cases(name: str, cases: list[list[str]]) -> None:
    known = document()
    found = known.cases(known.node((place(name),)))
    assert [list(each.owns) for each in found] == [list(map(place, each)) for each in cases]


def test_cases_know_what_was_taken_of_one_of() -> None:
    known = document()
    found = known.cases(known.node((place("twice"),)))
    assert [each.taken for each in found[:2]] == [(place("twice/allOf/1/oneOf/0"),), (place("twice/allOf/1/oneOf/1"),)]


def test_is_reference() -> None:
    known = document()
    assert known.is_reference((place("both"),))
    assert not known.is_reference((place("either"), place("base")))
    assert known.is_false((place("base"), place("twice/allOf/1/oneOf/1")))


def test_shapes_are_put_together() -> None:
    known = document()
    shape = known.shape(known.node((place("again"),)).owns)
    assert shape.types == {"object"}
    assert list(shape.members.properties) == ["a", "b"]
    assert shape.members.required == ("a",)


@pytest.mark.parametrize("index", ["00", "01", "-1", "+0", "1", "9" * 5_000, "²", "٠", ""])
def test_only_an_index_leads_into_a_list(index: str) -> None:
    known = Document({"allOf": [{"type": "null"}], "$ref": f"#/allOf/{index}"})
    with pytest.raises(GuideError, match="which isn't there"):
        known.node(("",))


def test_work_is_paid_for() -> None:
    budget = Budget(100)
    with pytest.raises(GuideError, match="too large together"):
        Document({}, budget).count(100)
    assert budget.symbols < 0


def test_work_is_bounded() -> None:
    known = document()
    with pytest.raises(GuideError, match="becomes too large"):
        known.count(100_000)
