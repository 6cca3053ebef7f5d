"""Tools, choice and format: what the answer may then be."""

from __future__ import annotations

from typing import Any

import pytest
from llamarpc.v1 import chat_pb2
from llamarpc.v1.text_generation_pb2 import GenerateRequest

from server.chat.model import (
    AnyJsonObject,
    AnyText,
    Ebnf,
    FunctionTool,
    JsonSchema,
    Regex,
    ReplyShape,
    TextWithoutCalls,
)
from server.reply_shape import functions_of, reply_shape_of


def tool(name: str, parameters: str = "") -> chat_pb2.Tool:
    return chat_pb2.Tool(function=chat_pb2.FunctionTool(name=name, description=f"does {name}", parameters=parameters))


def function(name: str) -> FunctionTool:
    return FunctionTool(name=name, description=f"does {name}", parameters='{"type": "object", "properties": {}}')


def mode(value: Any) -> chat_pb2.ToolChoice:
    return chat_pb2.ToolChoice(mode=value)


TOOLS = [tool("f"), tool("g")]
FUNCTIONS = (function("f"), function("g"))
JSON = chat_pb2.ResponseFormat(json_object=chat_pb2.JsonObjectFormat())


@pytest.mark.parametrize(
    ("fields", "shape"),
    [
        pytest.param({}, ReplyShape(text=AnyText()), id="nothing_asked"),
        pytest.param({"tool_choice": mode(chat_pb2.TOOL_CHOICE_MODE_AUTO)}, ReplyShape(text=AnyText()), id="no_tools"),
        pytest.param({"tools": TOOLS}, ReplyShape(text=TextWithoutCalls(), functions=FUNCTIONS), id="auto_by_default"),
        pytest.param(
            {"tools": TOOLS, "tool_choice": mode(chat_pb2.TOOL_CHOICE_MODE_AUTO)},
            ReplyShape(text=TextWithoutCalls(), functions=FUNCTIONS),
            id="auto",
        ),
        pytest.param(
            {"tools": TOOLS, "tool_choice": mode(chat_pb2.TOOL_CHOICE_MODE_UNSPECIFIED)},
            ReplyShape(text=TextWithoutCalls(), functions=FUNCTIONS),
            id="unspecified",
        ),
        pytest.param(
            {"tools": TOOLS, "tool_choice": mode(chat_pb2.TOOL_CHOICE_MODE_NONE)},
            ReplyShape(text=TextWithoutCalls()),
            id="none",
        ),
        pytest.param(
            {"tools": TOOLS, "tool_choice": mode(chat_pb2.TOOL_CHOICE_MODE_REQUIRED)},
            ReplyShape(text=None, functions=FUNCTIONS),
            id="required",
        ),
        pytest.param(
            {"tools": TOOLS, "tool_choice": chat_pb2.ToolChoice(function_name="g")},
            ReplyShape(text=None, functions=FUNCTIONS[1:], single_call=True),
            id="named",
        ),
        pytest.param({"response_format": JSON}, ReplyShape(text=AnyJsonObject()), id="json_object"),
        pytest.param(
            {"response_format": JSON, "tools": TOOLS},
            ReplyShape(text=AnyJsonObject(), functions=FUNCTIONS),
            id="calls_or_json",
        ),
        pytest.param(
            {"response_format": chat_pb2.ResponseFormat(json_schema="{}")},
            ReplyShape(text=JsonSchema("{}")),
            id="schema",
        ),
        pytest.param({"response_format": chat_pb2.ResponseFormat(regex="a")}, ReplyShape(text=Regex("a")), id="regex"),
        pytest.param(
            {"response_format": chat_pb2.ResponseFormat(grammar='root ::= "a"')},
            ReplyShape(text=Ebnf('root ::= "a"')),
            id="grammar",
        ),
    ],
)
def test_shapes(fields: dict[str, Any], shape: ReplyShape) -> None:
    assert reply_shape_of(GenerateRequest(prompt="Hi", **fields)) == shape


def test_functions_as_code_come_after_tools() -> None:
    code = "def h(n: int): ..."
    request = GenerateRequest(tools=[tool("f", '{"type": "object"}')], functions=[{"name": "h", "code": code}])
    first, second = functions_of(request)
    assert first.parameters == '{"type": "object"}'
    assert (second.name, second.code) == ("h", code)
    assert '"n"' in second.parameters
