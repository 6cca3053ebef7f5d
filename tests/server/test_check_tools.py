"""Tools, calls, results and formats of a request: every fault by its path, schemas by the place inside them."""

from __future__ import annotations

from typing import Any

import pytest
from llamarpc.v1 import chat_pb2
from llamarpc.v1.text_generation_pb2 import GenerateRequest

from server.check import TextLimits, check_generate_request
from server.errors import InvalidRequest

LIMITS = TextLimits(field_characters=2_000, prompt_characters=4_000)
USER, ASSISTANT, TOOL = chat_pb2.ROLE_USER, chat_pb2.ROLE_ASSISTANT, chat_pb2.ROLE_TOOL


def tool(name: str = "f", parameters: str = "", description: str = "") -> chat_pb2.Tool:
    return chat_pb2.Tool(function=chat_pb2.FunctionTool(name=name, parameters=parameters, description=description))


def code(name: str = "g", text: str = "def g(): ...") -> chat_pb2.FunctionCode:
    return chat_pb2.FunctionCode(name=name, code=text)


def call(id_: str = "1", name: str = "f", arguments: str = "{}") -> chat_pb2.ToolCall:
    return chat_pb2.ToolCall(id=id_, name=name, arguments=arguments)


def asked(content: str = "Hi") -> chat_pb2.Message:
    return chat_pb2.Message(role=USER, content=content)


def called(*calls: chat_pb2.ToolCall) -> chat_pb2.Message:
    return chat_pb2.Message(role=ASSISTANT, tool_calls=calls)


def answered(id_: str = "", **fields: Any) -> chat_pb2.Message:
    return chat_pb2.Message(role=TOOL, tool_call_id=id_, **fields)


def schema(text: str) -> chat_pb2.ResponseFormat:
    return chat_pb2.ResponseFormat(json_schema=text)


NAMED = chat_pb2.ToolChoice(function_name="f")
REQUIRED = chat_pb2.ToolChoice(mode=chat_pb2.TOOL_CHOICE_MODE_REQUIRED)
NONE = chat_pb2.ToolChoice(mode=chat_pb2.TOOL_CHOICE_MODE_NONE)


def violations_of(**fields: Any) -> dict[str, str]:
    if "messages" not in fields:
        fields["prompt"] = "Hi"
    try:
        check_generate_request(GenerateRequest(**fields), LIMITS)
    except InvalidRequest as error:
        return {each.field: each.description for each in error.violations}
    return {}


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"tools": [tool("a" * 64), tool("A-b_c.9")], "functions": [code()]}, id="tools_and_functions"),
        pytest.param({"tools": [tool(str(index)) for index in range(128)]}, id="many_tools"),
        pytest.param({"tools": [tool()], "tool_choice": NAMED}, id="named"),
        pytest.param({"functions": [code("f")], "tool_choice": NAMED}, id="named_function_as_code"),
        pytest.param({"tools": [tool()], "tool_choice": REQUIRED}, id="required"),
        pytest.param({"tool_choice": NONE}, id="none_without_tools"),
        pytest.param({"functions": [code(text="not code at all {{{")]}, id="code_that_nobody_understands"),
        pytest.param({"messages": [asked(), called(call()), answered("1")]}, id="a_call_and_its_result"),
        pytest.param(
            {"messages": [asked(), called(call("1"), call("2")), answered("2"), answered("1")]}, id="in_another_order"
        ),
        pytest.param({"messages": [asked(), called(call("1")), answered(name="f")]}, id="a_result_without_an_id"),
        pytest.param({"messages": [asked(), called(call("")), answered()]}, id="calls_without_ids"),
        pytest.param({"messages": [asked(), called(call("1")), asked()]}, id="a_call_that_was_never_answered"),
        pytest.param(
            {"messages": [asked(), called(call()), answered("1"), called(call()), answered("1")]}, id="an_id_once_more"
        ),
        pytest.param({"tools": [tool()], "response_format": schema("{}")}, id="tools_and_a_schema"),
        pytest.param(
            {"tools": [tool()], "tool_choice": NONE, "response_format": chat_pb2.ResponseFormat(regex="a")},
            id="regex_and_no_calls",
        ),
        pytest.param({"raw": True, "response_format": schema("{}")}, id="raw_with_a_schema"),
    ],
)
def test_valid(fields: dict[str, Any]) -> None:
    assert violations_of(**fields) == {}


DEEP = "[" * 1_000 + "]" * 1_000


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param(
            {"tools": [tool(""), tool("a b"), tool("é"), tool("a" * 65)]},
            {f"tools[{index}].function.name": "1 to 64 of letters" for index in range(4)},
            id="names",
        ),
        pytest.param(
            {"tools": [tool("f"), tool("f")], "functions": [code("f")]},
            {
                "tools[1].function.name": "the same as tools[0].function.name",
                "functions[0].name": "the same as tools[0].function.name",
            },
            id="the_same_name",
        ),
        pytest.param({"tools": [tool(str(index)) for index in range(129)]}, {"tools": "129 tools"}, id="too_many"),
        pytest.param({"tools": [chat_pb2.Tool()]}, {"tools[0]": "must set function"}, id="empty_tool"),
        pytest.param(
            {"functions": [code(text=" \n")]}, {"functions[0].code": "must hold source code"}, id="empty_code"
        ),
        pytest.param({"tool_choice": REQUIRED}, {"tool_choice.mode": "no tools are offered"}, id="required_nothing"),
        pytest.param(
            {"tools": [tool("g")], "tool_choice": NAMED},
            {"tool_choice.function_name": "offered functions: g"},
            id="unknown_name",
        ),
        pytest.param(
            {"tool_choice": NAMED}, {"tool_choice.function_name": "offered functions: none"}, id="none_offered"
        ),
        pytest.param({"tool_choice": chat_pb2.ToolChoice(mode=9)}, {"tool_choice.mode": "must be"}, id="unknown_mode"),  # type: ignore[arg-type]
        pytest.param({"raw": True, "tools": [tool()]}, {"tools": "raw leaves out"}, id="raw_tools"),
        pytest.param({"raw": True, "functions": [code()]}, {"functions": "raw leaves out"}, id="raw_functions"),
        pytest.param(
            {"raw": True, "messages": [asked(), called(call())]},
            {"messages[1].tool_calls": "raw leaves out"},
            id="raw_calls",
        ),
        pytest.param(
            {"tools": [tool()], "response_format": chat_pb2.ResponseFormat(grammar='root ::= "a"')},
            {"response_format.grammar": "can't be told apart"},
            id="grammar_and_calls",
        ),
        pytest.param(
            {"messages": [chat_pb2.Message(role=USER, content="Hi", tool_calls=[call()], tool_call_id="1")]},
            {
                "messages[0].tool_calls": "only messages of ROLE_ASSISTANT",
                "messages[0].tool_call_id": "only messages of ROLE_TOOL",
            },
            id="calls_of_a_user",
        ),
        pytest.param(
            {"messages": [asked(), answered("1"), called(call("1")), answered("2")]},
            {"messages[1].tool_call_id": "no earlier message", "messages[3].tool_call_id": "no earlier message"},
            id="results_of_no_call",
        ),
        pytest.param(
            {"messages": [asked(), called(call("1")), answered("1"), answered("1")]},
            {"messages[3].tool_call_id": "still to be answered"},
            id="a_second_result",
        ),
        pytest.param(
            {"messages": [asked(), called(call("1"), call("1"))]},
            {"messages[1].tool_calls[1].id": "another call"},
            id="one_id_twice",
        ),
        pytest.param(
            {
                "messages": [
                    asked(),
                    called(call("1", "", "{"), call("2", "f", "[]"), call("3", "f", ""), call("4", "f", DEEP[:2_000])),
                ]
            },
            {
                "messages[1].tool_calls[0].name": "1 to 64",
                **{f"messages[1].tool_calls[{index}].arguments": "a JSON object" for index in range(4)},
            },
            id="calls_that_are_none",
        ),
        pytest.param(
            {"tools": [tool(parameters=" " * 2_001, description="x" * 2_001)], "functions": [code(text="x" * 2_001)]},
            {
                "tools[0].function.parameters": "has 2,001 characters",
                "tools[0].function.description": "has 2,001 characters",
                "functions[0].code": "has 2,001 characters",
                "tools": "6,003 characters together",
            },
            id="too_long",
        ),
        pytest.param(
            {"messages": [asked(), called(call(arguments='{"a": "' + "x" * 2_000 + '"}'))]},
            {"messages[1].tool_calls[0].arguments": "has 2,009 characters"},
            id="too_long_arguments",
        ),
        # What is wrong inside a schema, a pattern or a grammar.
        pytest.param(
            {"tools": [tool(), tool("g", '{"type": "object", "properties": {"a": {"not": {}}}}')]},
            {"tools[1].function.parameters": "/properties/a/not: "},
            id="a_keyword_that_cant_be_kept",
        ),
        pytest.param(
            {"tools": [tool(parameters="{"), tool("g", '{"type": "string"}')]},
            {"tools[0].function.parameters": "JSON", "tools[1].function.parameters": "object"},
            id="every_schema_is_looked_at",
        ),
        pytest.param(
            {"tools": [tool("g"), tool("f", '{"type": 1}')], "tool_choice": NAMED},
            {"tools[1].function.parameters": "type"},
            id="a_named_function_keeps_its_place",
        ),
        pytest.param({"response_format": schema("{")}, {"response_format.json_schema": "JSON"}, id="no_json"),
        pytest.param({"response_format": schema("")}, {"response_format.json_schema": "JSON"}, id="empty_schema"),
        pytest.param(
            {"response_format": schema('{"type": "array", "items": {"multipleOf": 3}}')},
            {"response_format.json_schema": "/items/multipleOf: "},
            id="a_place_in_a_schema",
        ),
        pytest.param(
            {"response_format": chat_pb2.ResponseFormat(regex="a(b")}, {"response_format.regex": ""}, id="broken_regex"
        ),
        pytest.param(
            {"response_format": chat_pb2.ResponseFormat(grammar='root ::= "a" x')},
            {"response_format.grammar": "x"},
            id="a_rule_that_is_missing",
        ),
        pytest.param(
            {"tools": [tool(), tool("g", "no JSON")], "tool_choice": NAMED},
            {"tools[1].function.parameters": "JSON"},
            id="what_may_not_be_called_this_time",
        ),
        pytest.param(
            {"tools": [tool(parameters="{")], "tool_choice": NONE},
            {"tools[0].function.parameters": "JSON"},
            id="nor_at_all",
        ),
        pytest.param(
            {"messages": [asked(), called(call(arguments='{"a": NaN}'))]},
            {"messages[1].tool_calls[0].arguments": "a JSON object"},
            id="no_number",
        ),
        pytest.param(
            {"functions": [code(str(index)) for index in range(129)]}, {"functions": "129 tools"}, id="functions"
        ),
        pytest.param(
            {"temperature": 9, "tools": [tool(parameters="{")]},
            {"temperature": "from 0 to 5", "tools[0].function.parameters": "JSON"},
            id="together_with_other_faults",
        ),
    ],
)
def test_wrong(fields: dict[str, Any], expected: dict[str, str]) -> None:
    found = violations_of(**fields)
    assert set(found) == set(expected)
    assert all(expected[field] in description for field, description in found.items())
