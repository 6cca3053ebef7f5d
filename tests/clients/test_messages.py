"""What the short ways write is what one would write by hand."""

from __future__ import annotations

import json

import pytest
from google.protobuf.message import Message as AnyMessage
from llamarpc import (
    ANY_TOOL,
    NO_TOOLS,
    FunctionTool,
    GenerateResponse,
    Message,
    ResponseFormat,
    Role,
    Tool,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
    assistant,
    call_of,
    function_tool,
    json_schema,
    system,
    tool_result,
    user,
)

CALL = ToolCall(id="1", name="f", arguments="{}")


@pytest.mark.parametrize(
    ("short", "long"),
    [
        (system("S"), Message(role=Role.ROLE_SYSTEM, content="S")),
        (user("U"), Message(role=Role.ROLE_USER, content="U")),
        (assistant("A"), Message(role=Role.ROLE_ASSISTANT, content="A")),
        (assistant(GenerateResponse(response="A")), Message(role=Role.ROLE_ASSISTANT, content="A")),
        (assistant(GenerateResponse(tool_calls=[CALL])), Message(role=Role.ROLE_ASSISTANT, tool_calls=[CALL])),
        (tool_result(CALL, "é"), Message(role=Role.ROLE_TOOL, content="é", tool_call_id="1", name="f")),
        (tool_result(CALL, {"é": 1}), Message(role=Role.ROLE_TOOL, content='{"é": 1}', tool_call_id="1", name="f")),
        (function_tool("f"), Tool(function=FunctionTool(name="f"))),
        (call_of("f"), ToolChoice(function_name="f")),
        (NO_TOOLS, ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_NONE)),
        (ANY_TOOL, ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_REQUIRED)),
        (json_schema({"type": "null"}), ResponseFormat(json_schema='{"type": "null"}')),
    ],
)
def test_short_ways(short: AnyMessage, long: AnyMessage) -> None:
    assert short == long


def test_schemas_keep_their_order() -> None:
    parameters = {"type": "object", "properties": {"z": {}, "a": {}}}
    tool = function_tool("f", description="d", parameters=parameters)
    assert tool.function.parameters == json.dumps(parameters)
