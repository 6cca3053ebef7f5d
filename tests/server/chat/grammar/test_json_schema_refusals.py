"""What schemas are refused for, and where the complaint points to."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from server.chat.grammar.expressions import GuideError
from server.chat.grammar.json_schema import schema_fragment
from server.chat.grammar.limits import Budget

COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
ENDLESS = {"required": ["a"], "properties": {"a": {"$ref": "#"}}}
KINDS = [{"properties": {"kind": {"const": kind}}} for kind in ("a", "b")]

REFUSALS: list[tuple[Any, str, str]] = [
    # Keywords that are not supported.
    ({"not": {}}, "/not", "not is not supported; leave it out"),
    ({"properties": {"a": {"contains": {}}}}, "/properties/a/contains", "contains is not supported"),
    ({"if": {}}, "/if", "use anyOf"),
    ({"type": "array", "uniqueItems": True}, "/uniqueItems", "uniqueItems is not supported"),
    ({"type": "integer", "multipleOf": 5}, "/multipleOf", "multipleOf is not supported; leave it out"),
    ({"type": "number", "multipleOf": 1}, "/multipleOf", "use type integer"),
    ({"patternProperties": {}}, "/patternProperties", "patternProperties is not supported"),
    ({"nullable": True, "type": "string"}, "/nullable", '["string", "null"]'),
    ({"propertyNames": {"maxLength": 9}}, "/propertyNames", "propertyNames is not supported"),
    ({"propertyNames": 1}, "/propertyNames", "propertyNames is not supported"),
    ({"type": ["string", "integer"], "format": "int"}, "/format", "must be one of date"),
    ({"type": "string", "format": "int32"}, "/format", "must be one of date"),
    ({"type": "array", "format": "int32"}, "/format", "does not apply to type array"),
    ({"dependentRequired": {}}, "/dependentRequired", "dependentRequired is not supported"),
    ({"type": "object", "unevaluatedProperties": False}, "/unevaluatedProperties", "use additionalProperties"),
    ({"type": "array", "unevaluatedItems": False}, "/unevaluatedItems", "use items"),
    ({"$dynamicRef": "#a"}, "/$dynamicRef", "use $ref"),
    ({"properties": {"a": {"$id": "x"}}}, "/properties/a/$id", "$id is not supported"),
    ({"$anchor": "a"}, "/$anchor", "$ref"),
    ({"type": "object", "citty": {}}, "/citty", "citty is not supported"),
    ({"a\n" * 99: 1}, "/" + "a\n" * 99, '"a\\na\\n'),
    ({"properties": {"a/b~": {"not": {}}}}, "/properties/a~1b~0/not", "not"),
    # Keywords of other types.
    ({"type": "integer", "minLength": 2}, "/minLength", "does not apply to type integer; leave it out"),
    ({"type": ["array", "null"], "minimum": 2}, "/minimum", "does not apply to type array or null"),
    # Values of keywords.
    ({"type": "text"}, "/type", "must be one of object, array"),
    ({"type": []}, "/type", "must be one of"),
    ({"minLength": -1}, "/minLength", "whole number"),
    ({"minLength": 1.5}, "/minLength", "whole number"),
    ({"minLength": 10_001}, "/minLength", "up to 10,000"),
    ({"minItems": 1_001}, "/minItems", "up to 1,000"),
    ({"minLength": 1e308}, "/minLength", "up to 10,000"),
    ({"minItems": 1e300}, "/minItems", "up to 1,000"),
    ({"minProperties": 1e308}, "/minProperties", "lower it"),
    *(({name: -1e308}, f"/{name}", "whole number") for name in COUNTS),
    ({"type": "integer", "multipleOf": 1e308}, "/multipleOf", "leave it out"),
    ({"minimum": 1e308}, "", "supported up to"),
    ({"maximum": -1e308}, "", "supported up to"),
    ({"exclusiveMinimum": 1e308}, "", "supported up to"),
    ({"type": "integer", "exclusiveMaximum": -1e308}, "", "supported up to"),
    ({"minimum": "1"}, "/minimum", "must be a number"),
    ({"minimum": 1, "exclusiveMinimum": True}, "/exclusiveMinimum", "older draft"),
    ({"properties": {"a": {"required": True}}}, "/properties/a/required", "older draft"),
    ({"required": ["a", "a"]}, "/required", "each of them once"),
    ({"required": [1]}, "/required", "list of strings"),
    ({"properties": []}, "/properties", "object of schemas"),
    ({"properties": {"a": 1}}, "/properties/a", "must be a schema"),
    ({"items": [{}]}, "/items", "prefixItems"),
    ({"prefixItems": []}, "/prefixItems", "at least one schema"),
    ({"anyOf": {}}, "/anyOf", "at least one schema"),
    ({"enum": []}, "/enum", "at least one value"),
    ({"enum": list(range(1_001))}, "/enum", "up to 1,000 values"),
    ({"format": "regex"}, "/format", "date, date-time, duration, email"),
    ({"pattern": 1}, "/pattern", "must be a string"),
    ({"pattern": "a(?=b)"}, "/pattern", "character"),
    # Strings.
    ({"pattern": "^a+$", "maxLength": 5}, "/pattern", "maxLength can't be combined with pattern"),
    ({"pattern": "^a*$", "minLength": 1}, "/pattern", "minLength can't be combined with pattern"),
    ({"format": "uuid", "maxLength": 5}, "", "maxLength can't be combined with format"),
    ({"format": "uuid", "pattern": "a"}, "/pattern", "leave out the pattern"),
    # References.
    ({"$ref": "https://example.org/a"}, "/$ref", "a place in this schema"),
    ({"$ref": "#a"}, "/$ref", "a place in this schema"),
    ({"$ref": "#/$defs/a"}, "/$ref", "which isn't there"),
    ({"$ref": "#/required/1", "required": []}, "/$ref", "which isn't there"),
    ({"$ref": "#"}, "", "leads back to itself"),
    ({"allOf": [{"$ref": "#"}]}, "", "leads back to itself"),
    ({"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "/anyOf/0", "leads back to itself"),
    ({"type": "object", "anyOf": [{"$ref": "#"}, {"required": ["a"]}]}, "/anyOf/0", "leads back to itself"),
    # What nothing satisfies.
    (False, "", "no value can satisfy this"),
    (ENDLESS, "", "without end"),
    ({"anyOf": [False]}, "/anyOf", "no value can satisfy this"),
    ({"minimum": 3, "maximum": 2}, "", "no number is within these bounds"),
    ({"properties": {"a": {"type": "integer", "minimum": 0.1, "maximum": 0.9}}}, "/properties/a", "no number"),
    ({"minLength": 3, "maxLength": 2}, "", "no string has at least 3"),
    ({"minItems": 3, "maxItems": 2}, "", "no array can have at least 3"),
    ({"type": "string", "enum": [1, 2]}, "", "none of the values"),
    ({"enum": [1], "const": True}, "", "none of the values"),
    ({"allOf": [{"type": "string"}, {"type": "null"}]}, "/allOf/0", "no type is allowed"),
    ({"required": ["a"], "additionalProperties": False}, "/required", '"a", which is not allowed here'),
    ({"required": ["a"], "properties": {"a": False}}, "/required", '"a", which is not allowed here'),
    # Counts of members.
    ({"minProperties": 2, "properties": {"a": {}}}, "/minProperties", "up to what is required"),
    ({"maxProperties": 1, "properties": {"a": {}, "b": {}}}, "/maxProperties", "raise it"),
    # Combinations.
    ({"enum": [{}], "properties": {}}, "", "enum and const can't be combined"),
    ({"allOf": [{"pattern": "a"}, {"pattern": "b"}]}, "/allOf/1/pattern", "two different patterns"),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "/oneOf", "use anyOf"),
    ({"oneOf": [{"type": "string", "pattern": "a"}, {"type": "string", "pattern": "b"}]}, "/oneOf", "use anyOf"),
    ({"oneOf": KINDS}, "/oneOf", "use anyOf"),  # without the kind, both hold
    ({"oneOf": [{**each, "required": ["kind"]} for each in KINDS], "minLength": 1}, "/oneOf", "use anyOf"),
    ({"oneOf": [{"minLength": 1}, {"minimum": 1}]}, "/oneOf", "use anyOf"),
    ({"minimum": 1, "anyOf": [{"oneOf": [{"minItems": 1}, {"maximum": 2}]}]}, "/anyOf/0/oneOf", "use anyOf"),
    # Numbers.
    ({"type": "integer", "minimum": 10**19}, "", "supported up to 1,000,000,000,000,000,000"),
    ({"minimum": 0.12345678901234567}, "", "15 digits"),
]


@pytest.mark.parametrize(("schema", "place", "words"), REFUSALS, ids=[json.dumps(each[0])[:60] for each in REFUSALS])
def test_refuses(schema: Any, place: str, words: str) -> None:
    with pytest.raises(GuideError) as caught:
        schema_fragment(json.dumps(schema))
    assert caught.value.place == place
    assert words in caught.value.problem


@pytest.mark.parametrize(
    "schema", [{}, True, {"type": ["object", "null"]}, {"anyOf": [{"type": "object"}, {"const": 1}]}]
)
def test_refuses_what_is_no_object(schema: Any) -> None:
    with pytest.raises(GuideError, match="nothing but objects"):
        schema_fragment(json.dumps(schema), object_only=True)


PAIRS = [{"anyOf": [{"properties": {f"{name}{each}": {}}} for name in "ab"]} for each in range(8)]


def kind(index: int) -> Any:
    return {"type": "object", "properties": {"kind": {"const": index}}, "required": ["kind"]}


HOSTILE: dict[str, tuple[str, str]] = {
    "not JSON": ("{", "is not JSON: .*line 1"),
    "NaN": ('{"minimum": NaN}', "NaN"),
    "duplicate names": ('{"type": "null", "type": "null"}', '"type" twice'),
    "deep": ("[" * 100_000, "nested deeper than 64"),
    "deep and closed": ('{"items": ' * 100 + "{}" + "}" * 100, "nested deeper than 64"),
    "huge": ('{"title": "' + "x" * 1_000_000 + '"}', "longer than 1,000,000 characters"),
    "many values": (json.dumps({"enum": list(range(50_000))}), "more than 5,000 values"),
    "long number": ('{"minimum": ' + "9" * 5_000 + "}", "too many digits"),
    "big number": ('{"minimum": 1e999}', "out of the range of doubles"),
    "big exponent": ('{"maximum": 1e-9999999999999999999999}', "number"),
    "half a character": ('{"const": "\\ud83d"}', "half a surrogate pair"),
    "half a name": ('{"properties": {"\\ud83d": {}}}', "half a surrogate pair"),
    "long string": (json.dumps({"const": "x" * 60_000}), "more than 50,000 symbols"),
    "long pattern": (json.dumps({"pattern": "x" * 20_000}), "character"),
    "many cases": (
        json.dumps({"allOf": [{"anyOf": [{"required": [f"a{each}"]}, {"required": ["b"]}]} for each in range(40)]}),
        "more than 256 cases",
    ),
    "long chain": (
        json.dumps({"$defs": {str(each): {"$ref": f"#/$defs/{each + 1}"} for each in range(500)}, "$ref": "#/$defs/0"}),
        "more than 64 references in a row",
    ),
    "many kinds": (json.dumps({"oneOf": [kind(each) for each in range(250)]}), "becomes too large"),
    "many patterns": (
        json.dumps({"properties": {f"p{each}": {"pattern": f"[a-z]{{2}}{each}" * 900} for each in range(40)}}),
        "more than 75,000 symbols",
    ),
    "many combinations": (
        json.dumps({"properties": {f"z{each}": {"allOf": PAIRS[:5]} for each in range(60)}, "allOf": PAIRS}),
        "becomes too large|more than 75,000 symbols",
    ),
    "many exclusions": (json.dumps({"oneOf": [{"const": each} for each in range(1_500)]}), "more than 256 cases"),
    "many digits": (
        json.dumps(
            {"properties": {f"p{each}": {"minimum": each + 0.123456, "maximum": 1234567.1} for each in range(900)}}
        ),
        "more than 75,000 symbols",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_refuses_hostile_schemas(name: str) -> None:
    text, words = HOSTILE[name]
    with pytest.raises(GuideError, match=words):
        schema_fragment(text)


def _definitions(count: int, each: Any) -> str:
    definitions = {str(index): each(f"#/$defs/{index + 1}") for index in range(count)}
    return json.dumps({"$defs": {**definitions, str(count): {"type": "null"}}, "$ref": "#/$defs/0"})


@pytest.mark.parametrize(
    "schema",
    [
        _definitions(60, lambda target: {"anyOf": [{"$ref": target}, {"$ref": target}, {"const": target}]}),
        _definitions(60, lambda target: {"items": {"$ref": target}, "minItems": 1_000, "maxItems": 1_000}),
        _definitions(25, lambda target: {"allOf": [{"$ref": target}, {"$ref": target}]}),
        _definitions(400, lambda target: {"properties": {"a": {"$ref": target}, "b": {"$ref": target}}}),
        '{"items": ' * 60 + "{}" + "}" * 60,
        json.dumps({"properties": {f"name {index}": {"type": "integer"} for index in range(1_000)}}),
        json.dumps({"properties": {"x" * 5_000: {}}, "additionalProperties": True}),
        json.dumps({"items": {"type": "string", "maxLength": 10_000}, "maxItems": 1_000}),
    ],
    ids=["options", "items", "allOf", "members", "deep", "many members", "long name", "long items"],
)
def test_big_schemas_make_grammars_of_their_size(schema: str) -> None:
    assert len(schema_fragment(schema).rules) < 2_500


EXPENSIVE = {
    "ranges": {f"p{each}": {"minimum": each - 123.456789012, "maximum": 98765.4321012345 + each} for each in range(70)},
    "combinations": {"p": {"allOf": PAIRS}},
    "constants": {"p": {"oneOf": [{"const": each} for each in range(256)]}},
    "kinds": {"p": {"oneOf": [kind(each) for each in range(140)]}},
}


@pytest.mark.parametrize("name", EXPENSIVE)
def test_the_worst_schemas_take_little_time(name: str) -> None:
    start = time.process_time()
    schema_fragment(json.dumps({"properties": EXPENSIVE[name]}))
    assert time.process_time() - start < 3  # at most 0.3 s on a machine of its own


def test_schemas_of_a_request_share_a_budget() -> None:
    schema = json.dumps({"properties": EXPENSIVE["ranges"]})
    budget = Budget()
    schema_fragment(schema, budget=budget)
    schema_fragment(schema, budget=budget)
    with pytest.raises(GuideError, match="offer fewer or simpler ones"):
        schema_fragment(schema, budget=budget)
    with pytest.raises(GuideError, match="offer fewer or simpler ones"):
        schema_fragment('{"type": "null"}', budget=budget)
    assert schema_fragment('{"type": "null"}').rules == {}
