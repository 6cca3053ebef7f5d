"""Guides derive what the answer may be and nothing else: what they let through, the reader and a validator take."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator

from server.chat.call_reader import CallReader
from server.chat.grammar.ebnf import parse_ebnf
from server.chat.guides import MAX_CALLS, Part, ShapeError, guide_of
from server.chat.model import (
    AnyJsonObject,
    AnyText,
    Ebnf,
    FunctionTool,
    JsonSchema,
    Regex,
    ReplyShape,
    TextShape,
    TextWithoutCalls,
    ToolCall,
)
from server.chat.tool_text import calls_text
from tests.grammar_tools import accepts, sample
from tests.schema_samples import random_schema


def function(name: str, schema: str = '{"type": "object", "properties": {}}', code: str = "") -> FunctionTool:
    return FunctionTool(name=name, description="", parameters=schema, code=code)


def derives(shape: ReplyShape, text: str) -> bool:
    guide = guide_of(shape)
    assert guide is not None
    return accepts(parse_ebnf(guide), text)


def call(name: str, arguments: str = "{}") -> ToolCall:
    return ToolCall(id="", name=name, arguments=arguments)


F, G = function("f"), function("g.h-1_", '{"type": "object", "properties": {"n": {"enum": [1]}}, "required": ["n"]}')
AUTO = ReplyShape(text=TextWithoutCalls(), functions=(F, G))
REQUIRED = ReplyShape(text=None, functions=(F, G))
NAMED = ReplyShape(text=None, functions=(G,), single_call=True)
CALL_F, CALL_G = call("f"), call("g.h-1_", '{"n": 1}')


def test_any_text_needs_no_guide() -> None:
    assert guide_of(ReplyShape(text=AnyText())) is None


@pytest.mark.parametrize(
    ("text", "auto", "required", "named"),
    [
        pytest.param("Hello.", True, False, False, id="text"),
        pytest.param("", False, False, False, id="nothing"),
        pytest.param(calls_text([CALL_F]), True, True, False, id="one"),
        pytest.param(calls_text([CALL_G]), True, True, True, id="the_other"),
        pytest.param(calls_text([CALL_G, CALL_F, CALL_G]), True, True, False, id="several"),
        pytest.param(calls_text([CALL_F] * MAX_CALLS), True, True, False, id="as_many_as_possible"),
        pytest.param(calls_text([CALL_F] * (MAX_CALLS + 1)), False, False, False, id="one_more"),
        pytest.param(calls_text([CALL_F])[:-1], False, False, False, id="cut"),
        pytest.param("Sure: " + calls_text([CALL_F]), False, False, False, id="a_mix"),
        pytest.param(calls_text([CALL_F]) + "\nDone.", False, False, False, id="a_mix_the_other_way"),
        pytest.param(calls_text([call("other")]), False, False, False, id="not_offered"),
        pytest.param(calls_text([call("g.h-1_", '{"n": 2}')]), False, False, False, id="against_the_schema"),
        pytest.param(calls_text([call("f", '{"x": 1}')]), False, False, False, id="arguments_for_none"),
        pytest.param('{"name": "f", "arguments": {}}', False, False, False, id="a_call_without_its_mark"),
    ],
)
def test_tool_choices(text: str, auto: bool, required: bool, named: bool) -> None:
    assert [derives(shape, text) for shape in (AUTO, REQUIRED, NAMED)] == [auto, required, named]


@pytest.mark.parametrize(
    ("shape", "right", "wrong"),
    [
        (AnyJsonObject(), '{"a": [1, null]}', "[1]"),
        (JsonSchema('{"type": "array", "items": {"type": "boolean"}}'), "[true, false]", "[1]"),
        (Regex("a+|b"), "aaa", "ab"),
        (Ebnf('root ::= "(" root ")" | "x"'), "((x))", "((x)"),
        (TextWithoutCalls(), '{"name": "Bob"}', calls_text([CALL_F])),
    ],
)
def test_shapes_of_text(shape: TextShape, right: str, wrong: str) -> None:
    assert derives(ReplyShape(text=shape), right)
    assert not derives(ReplyShape(text=shape), wrong)


def test_calls_or_json() -> None:
    shape = ReplyShape(text=AnyJsonObject(), functions=(F,))
    assert derives(shape, '{"a": 1}')
    assert derives(shape, calls_text([CALL_F]))
    assert not derives(shape, "text")


@pytest.mark.parametrize("seed", range(40))
def test_what_a_guide_derives_is_read_as_calls_that_satisfy_their_schemas(seed: int) -> None:
    schemas = {name: random_schema(seed * 2 + index) for index, name in enumerate(("a", "b"))}
    functions = tuple(function(name, json.dumps(schema)) for name, schema in schemas.items())
    guide = guide_of(ReplyShape(text=None, functions=functions))
    assert guide is not None
    for draw in range(3):
        reader = CallReader(lambda: "id")
        reader.feed(sample(parse_ebnf(guide), draw))
        assert reader.may_end
        for made in reader.calls:
            Draft202012Validator(schemas[made.name]).validate(json.loads(made.arguments))


BROKEN = function("broken", '{"type": "object", "properties": {"a": {"not": {}}}}')


def test_every_problem_is_told_with_its_part() -> None:
    with pytest.raises(ShapeError) as caught:
        guide_of(ReplyShape(text=JsonSchema("{"), functions=(F, BROKEN, function("g", "[]"))))
    assert [problem.part for problem in caught.value.problems] == [1, 2, Part.TEXT]
    assert caught.value.problems[0].error.place == "/properties/a/not"


def test_a_schema_read_from_code_falls_back_to_any_object() -> None:
    coded = function("coded", BROKEN.parameters, code="def coded(a): ...")
    assert derives(ReplyShape(text=None, functions=(coded,)), calls_text([call("coded", '{"x": [1]}')]))


def test_many_large_schemas_share_one_limit() -> None:
    properties = {f"p{index}": {"type": "number", "minimum": index + 0.1234567} for index in range(20)}
    large = json.dumps({"type": "object", "properties": properties})
    functions = tuple(function(f"f{index}", large) for index in range(100))
    with pytest.raises(ShapeError) as caught:
        guide_of(ReplyShape(text=None, functions=functions))
    (problem,) = caught.value.problems
    assert problem.part is Part.FUNCTIONS
    assert "offer fewer or simpler ones" in str(problem.error)


def test_the_same_shape_gives_the_same_text() -> None:
    first = guide_of(AUTO)
    guide_of.cache_clear()
    assert guide_of(AUTO) == first
