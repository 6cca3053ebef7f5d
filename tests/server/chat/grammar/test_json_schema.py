"""JSON Schema to grammar: which texts each keyword lets through."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.chat.grammar.expressions import Fragment, Grammar, Reference
from server.chat.grammar.json_schema import any_object, schema_fragment
from tests.grammar_tools import accepts, sample


def compiled(schema: Any, **options: Any) -> Grammar:
    return _grammar(schema_fragment(schema if isinstance(schema, str) else json.dumps(schema), **options))


def _grammar(fragment: Fragment) -> Grammar:
    return Grammar({"root": fragment.start, **fragment.rules})


TREE = {
    "$defs": {
        "tree": {
            "type": "object",
            "properties": {"value": {"type": "boolean"}, "left": {"$ref": "#/$defs/tree"}},
            "required": ["value"],
        }
    },
    "$ref": "#/$defs/tree",
}
A_AND_B = {"a": {"const": 1}, "b": {"const": 2}}
CASES: list[tuple[str, Any, list[str], list[str]]] = [
    ("anything", {}, ['{"a": [1, null]}', '"x"', "-1.5e+3", "[]"], ["{'a': 1}", "[1,2]", "01", "nul", ""]),
    ("head", {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "x", "type": "null"}, ["null"], ["1"]),
    ("true", True, ["true", "{}"], ["yes"]),
    ("annotations", {"title": "t", "x-order": 3, "default": 1, "$comment": "c"}, ["null"], ["", " null"]),
    ("boolean", {"type": "boolean"}, ["true", "false"], ["null", "0", "True"]),
    ("types", {"type": ["integer", "null"]}, ["1", "null"], ["1.0", '"1"']),
    ("integer", {"type": "integer"}, ["0", "-7", "9" * 18], ["-0", "1.0", "01", "9" * 19, "1e3", "+1"]),
    ("number", {"type": "number"}, ["0", "-7.25", "1e-7"], [".5", "1.", "01", "NaN"]),
    ("string", {"type": "string"}, ['"é😀"', '"a\\"b\\n"', '""'], ['"a\nb"', '"\\u0041"', '"\\x"', '"a', "a"]),
    ("no type", {"minLength": 2}, ['"ab"'], ['"a"', "5"]),
    ("lengths", {"type": "string", "minLength": 1, "maxLength": 2}, ['"a"', '"\\n😀"'], ['""', '"abc"']),
    ("pattern", {"type": "string", "pattern": "b+"}, ['"abc"', '"b"'], ['"ac"']),
    ("anchored pattern", {"pattern": '^"[a-z]\\\\$', "maxLength": 3}, ['"\\"a\\\\"'], ['"a"']),
    ("format", {"type": "string", "format": "date"}, ['"2024-02-29"'], ['"2023-02-29"', '"2024-13-01"']),
    ("enum", {"enum": ["a", 1, None, {"b": [1.50]}]}, ['"a"', "1", "null", '{"b": [1.5]}'], ['"b"', "1.0"]),
    ("enum of a type", {"type": "string", "enum": ["a", 1]}, ['"a"'], ["1"]),
    ("enum within limits", {"enum": ["a", "abc", 1, 9], "maxLength": 2, "minimum": 5}, ['"a"', "9"], ['"abc"', "1"]),
    ("enum and const", {"enum": ["a", "b"], "const": "a"}, ['"a"'], ['"b"']),
    ("const", {"const": 'quo"te\n'}, ['"quo\\"te\\n"'], ['"quo"']),
    ("1 is not true", {"enum": [True], "const": True}, ["true"], ["1"]),
    ("whole multiples", {"type": "integer", "multipleOf": 1, "minimum": 3, "maximum": 4}, ["3", "4"], ["2", "5"]),
    ("range", {"type": "integer", "exclusiveMinimum": 0.5, "exclusiveMaximum": 3}, ["1", "2"], ["0", "3"]),
    ("number range", {"type": "number", "minimum": 0.5, "maximum": 1}, ["0.5", "0.75", "1", "1.0"], ["0.4", "1.1"]),
    ("any object", {"type": "object"}, ["{}", '{"a": {"b": []}}'], ["[]", '{"a":1}']),
    ("no properties", {"type": "object", "properties": {}}, ["{}"], ['{"a": 1}']),
    ("no properties but open", {"properties": {}, "additionalProperties": True}, ["{}", '{"a": 1}'], ["[]"]),
    ("no properties but required", {"properties": {}, "required": ["a"]}, ['{"a": 1}'], ["{}", '{"a": 1, "b": 1}']),
    ("no properties here", {"type": "object", "allOf": [{"properties": {}}]}, ["{}"], ['{"a": 1}']),
    ("any names", {"type": "object", "propertyNames": {"type": "string"}}, ["{}", '{"a": 1}'], ["[]"]),
    ("not nullable", {"type": "string", "nullable": False}, ['"a"'], ["null"]),
    ("format of a number", {"type": "integer", "format": "int32"}, ["1"], ['"1"', "1.5"]),
    ("unknown format of a number", {"type": ["number", "null"], "format": "money"}, ["1.5", "null"], ['"1"']),
    ("format of numbers and strings", {"type": ["number", "string"], "format": "double"}, ["1.5", '"a"'], ["null"]),
    ("format of strings and numbers", {"type": ["number", "string"], "format": "date"}, ["1.5"], ['"a"']),
    ("huge values", {"enum": [1e300, -1e308, 5]}, ["1E+300", "-1E+308", "5"], ["1"]),
    ("huge integers", {"type": "integer", "enum": [1e29, 1.5]}, ["1E+29"], ["1.5"]),
    ("huge constant", '{"const": 123456789012345678901234567890.5}', ["123456789012345678901234567890.5"], ["1"]),
    ("huge lengths", {"minLength": 1, "maxLength": 1e308}, ['"a"'], ['""', '"' + "a" * 10_001 + '"']),
    ("huge arrays", {"items": {"const": 1}, "maxItems": 1e40}, ["[]", "[1, 1]"], ["[2]"]),
    ("huge objects", {"type": "object", "maxProperties": 1e308}, ["{}", '{"a": 1}'], ["[]"]),
    ("huge bounds", {"type": "integer", "minimum": -1e308, "maximum": 1e308}, ["-5", "5"], ["5.5"]),
    ("url", {"format": "uri", "minLength": 1, "maxLength": 2083}, ['"https://a.example/b"'], ['"a"']),
    (
        "oneOf closed objects",
        {"oneOf": [{"properties": {n: {}}, "required": [n], "additionalProperties": False} for n in "ab"]},
        ['{"a": 1}', '{"b": 1}'],
        ["{}", '{"a": 1, "b": 1}'],
    ),
    (
        "optional members",
        {"properties": A_AND_B},
        ["{}", '{"a": 1}', '{"b": 2}', '{"a": 1, "b": 2}'],
        ['{"b": 2, "a": 1}', '{"a": 1, }', '{, "b": 2}', '{"c": 3}', '{"a": 1 "b": 2}'],
    ),
    (
        "required members",
        {"properties": {**A_AND_B, "c": {"const": 3}}, "required": ["b"]},
        ['{"b": 2}', '{"a": 1, "b": 2}', '{"b": 2, "c": 3}', '{"a": 1, "b": 2, "c": 3}'],
        ["{}", '{"a": 1}', '{"a": 1, "c": 3}'],
    ),
    ("required beyond properties", {"required": ["x"]}, ['{"x": []}', '{"x": 1, "y": 2}'], ["{}", '{"y": 2}']),
    ("forbidden member", {"properties": {"a": False, "b": {"const": 2}}}, ["{}", '{"b": 2}'], ['{"a": 1}']),
    (
        "more members",
        {"properties": {"ab": {"const": 1}, "a": {"const": 1}}, "additionalProperties": {"type": "null"}},
        ['{"ab": 1, "x": null, "abc": null}', '{"": null}', '{"b": null, "aa": null}', "{}"],
        ['{"ab": null}', '{"a": null}', '{"x": 1}', '{"x": null, "a": 1}', '{"\\n": null}'],
    ),
    ("open", {"properties": {"a": {"const": 1}}, "additionalProperties": True}, ['{"b": []}'], ['{"a": 2}']),
    ("map", {"additionalProperties": {"type": "integer"}}, ["{}", '{"\\n": 1, "b": 2}'], ['{"a": "b"}']),
    ("closed", {"type": "object", "additionalProperties": False}, ["{}"], ['{"a": 1}']),
    ("closed twice", {"properties": {}, "additionalProperties": False, "unevaluatedProperties": False}, ["{}"], []),
    ("not empty", {"properties": A_AND_B, "minProperties": 1}, ['{"b": 2}'], ["{}"]),
    ("few members", {"type": "object", "maxProperties": 1}, ["{}", '{"a": 1}'], ['{"a": 1, "b": 2}']),
    ("names", {"properties": {'q"\n😀': {"const": 1}}, "required": ['q"\n😀']}, ['{"q\\"\\n😀": 1}'], ["{}"]),
    ("any array", {"type": "array"}, ["[]", '[1, "a", [null]]'], ["[1,2]", "{}", "[1, ]"]),
    ("items", {"items": {"type": "integer"}, "minItems": 1, "maxItems": 2}, ["[1]", "[1, 2]"], ["[]", "[1, 2, 3]"]),
    ("no items", {"type": "array", "maxItems": 0}, ["[]"], ["[1]"]),
    ("many items", {"items": {"const": 1}, "minItems": 2}, ["[1, 1]", "[1, 1, 1]"], ["[1]"]),
    (
        "tuple",
        {"prefixItems": [{"const": 1}, {"const": 2}], "items": {"const": 3}, "minItems": 1},
        ["[1]", "[1, 2]", "[1, 2, 3, 3]"],
        ["[]", "[2]", "[1, 3]"],
    ),
    ("tuple and more", {"prefixItems": [{"const": 1}], "minItems": 2}, ["[1, null]"], ["[1]"]),
    ("short tuple", {"prefixItems": [{"const": 1}, {"const": 2}], "maxItems": 1}, ["[1]", "[]"], ["[1, 2]"]),
    ("ending tuple", {"prefixItems": [{"const": 1}, False]}, ["[1]", "[]"], ["[1, 2]"]),
    ("anyOf", {"anyOf": [{"type": "null"}, {"type": "integer"}]}, ["null", "5"], ["true"]),
    ("anyOf without hope", {"anyOf": [{"type": "null"}, False]}, ["null"], ["5"]),
    (
        "anyOf next to others",
        {"type": "object", "properties": A_AND_B, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        ['{"a": 1}', '{"b": 2}', '{"a": 1, "b": 2}'],
        ["{}"],
    ),
    ("contradicting case", {"type": "string", "anyOf": [{"type": "null"}, {"const": "a"}]}, ['"a"'], ["null"]),
    ("oneOf types", {"oneOf": [{"type": "string"}, {"type": "integer"}]}, ['"a"', "1"], ["1.5"]),
    ("oneOf values", {"oneOf": [{"const": 1}, {"enum": [2, 3]}]}, ["1", "3"], ["4"]),
    (
        "oneOf kinds",
        {
            "type": "object",
            "properties": {"kind": True, "n": {"const": 0}},
            "required": ["kind"],
            "oneOf": [{"properties": {"kind": {"const": "a"}}}, {"properties": {"kind": {"enum": ["b", "c"]}}}],
        },
        ['{"kind": "a"}', '{"kind": "c", "n": 0}'],
        ['{"kind": "d"}'],
    ),
    ("allOf", {"allOf": [{"minimum": 1}, {"maximum": 2}], "type": "integer"}, ["1", "2"], ["0", "3"]),
    (
        "allOf of objects",
        {
            "allOf": [
                {"properties": {"a": {"type": "integer", "minimum": 1}}},
                {"properties": {"a": {"maximum": 1}, "b": {"const": 2}}, "required": ["a"]},
            ]
        },
        ['{"a": 1}', '{"a": 1, "b": 2}'],
        ["{}", '{"a": 2}'],
    ),
    (
        "allOf with a closed one",
        {"allOf": [{"properties": {"a": True}, "additionalProperties": False}, {"properties": {"b": True}}]},
        ["{}", '{"a": 1}'],
        ['{"b": 1}'],
    ),
    ("allOf of types", {"allOf": [{"type": ["number", "null"]}, {"type": ["integer", "string"]}]}, ["1"], ["1.5"]),
    (
        "allOf of tuples",
        {"allOf": [{"items": {"type": "integer"}}, {"prefixItems": [{"minimum": 5}]}]},
        ["[5, 1]"],
        ["[1]"],
    ),
    ("reference", TREE, ['{"value": true, "left": {"value": false}}'], ['{"left": {"value": true}}']),
    ("reference to all", {"properties": {"a": {"$ref": "#"}}}, ['{"a": {"a": {}}}'], ['{"a": 1}']),
    (
        "reference with others",
        {
            "properties": {"a": {"$ref": "#/$defs/n%20m", "minimum": 3}},
            "$defs": {"n m": {"type": "integer", "maximum": 4}},
        },
        ['{"a": 3}', '{"a": 4}'],
        ['{"a": 2}', '{"a": 5}'],
    ),
    ("reference anywhere", {"properties": {"a/b": {"const": 1}, "c": {"$ref": "#/properties/a~1b"}}}, ['{"c": 1}'], []),
    (
        "recursion through cases",
        {"type": "object", "properties": {"x": {"type": "object", "anyOf": [{"$ref": "#"}, {"required": ["q"]}]}}},
        ['{"x": {"x": {"x": {}}}}', '{"x": {"q": 1}}'],
        ['{"x": {"x": 1}}'],
    ),
]


@pytest.mark.parametrize(("schema", "good", "bad"), [each[1:] for each in CASES], ids=[each[0] for each in CASES])
def test_lets_through(schema: Any, good: list[str], bad: list[str]) -> None:
    grammar = compiled(schema)
    assert [text for text in good if not accepts(grammar, text)] == []
    assert [text for text in bad if accepts(grammar, text)] == []


def test_any_object() -> None:
    grammar = _grammar(any_object())
    assert accepts(grammar, '{"a": [1, {"b": null}]}')
    assert not accepts(grammar, "[]")
    assert json.loads(sample(grammar, 5)) is not None


def test_prefix_keeps_schemas_apart() -> None:
    one, other = (schema_fragment(json.dumps(TREE), prefix=prefix) for prefix in ("one-", "two-"))
    assert set(one.rules) & set(other.rules) == {name for name in one.rules if name.startswith("json-")}
    assert all(name.startswith(("one-", "json-")) for name in one.rules)


def test_only_used_rules() -> None:
    assert schema_fragment('{"type": "boolean"}').rules == {}
    assert set(schema_fragment('{"type": "string"}').rules) == {"json-string", "json-character", "json-plain"}


def test_a_target_is_compiled_once() -> None:
    point = {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}}
    names = [f"p{index}" for index in range(20)]
    schema = {"properties": {name: {"$ref": "#/$defs/p"} for name in names}, "required": names, "$defs": {"p": point}}
    own = [name for name in schema_fragment(json.dumps(schema)).rules if not name.startswith("json-")]
    assert len(own) == 1


def test_members_make_a_grammar_of_their_size() -> None:
    schema = {"properties": {f"p{index}": {"type": "integer"} for index in range(200)}}
    grammar = compiled(schema)
    assert len(grammar.rules) < 300
    assert accepts(grammar, '{"p3": 1, "p199": 2}')
    assert not accepts(grammar, '{"p199": 1, "p3": 2}')


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"required": ["a"]},
        {"const": {}},
        {"$ref": "#/$defs/o", "$defs": {"o": {"properties": {}}}},
        {"anyOf": [{"type": "object"}, {"allOf": [{"type": ["object", "null"]}, {"type": "object"}]}, False]},
    ],
)
def test_object_only(schema: Any) -> None:
    assert isinstance(json.loads(sample(compiled(schema, object_only=True), 1)), dict)


def test_deterministic() -> None:
    assert compiled(TREE) == compiled(TREE)
    assert isinstance(schema_fragment("{}").start, Reference)
