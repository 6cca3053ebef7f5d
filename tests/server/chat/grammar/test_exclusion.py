"""Whether a value written for one schema might satisfy another."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.chat.grammar.exclusion import may_overlap, written_types
from server.chat.grammar.json_text import read_json
from server.chat.grammar.references import Document

KIND_A: dict[str, Any] = {"type": "object", "properties": {"kind": {"const": "a"}}, "required": ["kind"]}
KIND_B: dict[str, Any] = {"type": "object", "properties": {"kind": {"enum": ["b", "c"]}}, "required": ["kind"]}
MAYBE_B: dict[str, Any] = {"properties": {"kind": {"const": "b"}}}
NOT_B: dict[str, Any] = {"properties": {"kind": False}}
CLOSED_X, CLOSED_Y = (
    {"type": "object", "properties": {name: {}}, "required": [name], "additionalProperties": False} for name in "xy"
)


@pytest.mark.parametrize(
    ("written", "other", "overlap"),
    [
        ({"type": "string"}, {"type": "null"}, False),
        ({"type": "integer"}, {"type": "number"}, True),
        ({"type": "number"}, {"type": "integer"}, True),
        ({"type": ["string", "null"]}, {"type": ["null", "array"]}, True),
        ({"const": 1}, {"const": 1.0}, True),
        ({"const": 1}, {"enum": [2, True]}, False),
        ({"const": 1}, {"type": "string"}, False),
        ({"const": 1.0}, {"type": "integer"}, True),
        ({"minLength": 1}, {"minimum": 1}, True),
        ({"minLength": 1}, {"type": "number", "minimum": 1}, False),
        (KIND_A, KIND_B, False),
        (KIND_A, MAYBE_B, False),
        (MAYBE_B, KIND_A, True),
        (KIND_A, KIND_A, True),
        (KIND_A, NOT_B, False),
        (NOT_B, KIND_A, False),
        (CLOSED_X, CLOSED_Y, False),
        (CLOSED_X, {"type": "object", "required": ["y"]}, False),
        ({"properties": {"x": {}}}, {"type": "object", "required": ["y"]}, False),
        ({"properties": {"x": {}}, "required": ["y"]}, {"type": "object", "required": ["y"]}, True),
        ({"type": "object"}, CLOSED_Y, True),
        ({"properties": {}}, CLOSED_Y, False),
        (CLOSED_X, {"properties": {"x": {}}, "additionalProperties": False}, True),
        (KIND_A, False, False),
        ({}, {}, True),
    ],
)
def test_may_overlap(written: Any, other: Any, overlap: bool) -> None:
    document = Document(read_json(json.dumps({"$defs": {"one": written, "two": other}})))
    one, two = (document.shape(document.node((f"/$defs/{name}",)).owns) for name in ("one", "two"))
    assert may_overlap(one, two, document) == overlap


@pytest.mark.parametrize(
    ("schema", "types"),
    [
        ({"required": ["a"]}, {"object"}),
        ({"enum": [None, "a"]}, {"null", "string"}),
        ({"minimum": 1, "items": {}}, {"number", "integer", "array"}),
        ({"type": "boolean"}, {"boolean"}),
    ],
)
def test_written_types(schema: Any, types: set[str]) -> None:
    assert written_types(Document(schema).shape(("",))) == types
