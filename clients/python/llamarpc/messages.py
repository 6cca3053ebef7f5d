"""Short ways to write what requests are made of: messages, tools, results and formats, from Python values.

Each gives a plain protobuf message, so they mix with messages made by hand. Knows no channel.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .v1.chat_pb2 import (
    ROLE_ASSISTANT,
    ROLE_SYSTEM,
    ROLE_TOOL,
    ROLE_USER,
    TOOL_CHOICE_MODE_NONE,
    TOOL_CHOICE_MODE_REQUIRED,
    FunctionTool,
    Message,
    ResponseFormat,
    Tool,
    ToolCall,
    ToolChoice,
)
from .v1.text_generation_pb2 import GenerateResponse

NO_TOOLS = ToolChoice(mode=TOOL_CHOICE_MODE_NONE)
ANY_TOOL = ToolChoice(mode=TOOL_CHOICE_MODE_REQUIRED)


def system(content: str) -> Message:
    """Instructions for the whole conversation."""
    return Message(role=ROLE_SYSTEM, content=content)


def user(content: str) -> Message:
    """What the person asks."""
    return Message(role=ROLE_USER, content=content)


def assistant(answer: str | GenerateResponse) -> Message:
    """An earlier answer of the model: its text, or all of an answer, with the calls it made."""
    if isinstance(answer, str):
        return Message(role=ROLE_ASSISTANT, content=answer)
    return Message(role=ROLE_ASSISTANT, content=answer.response, tool_calls=answer.tool_calls)


def tool_result(call: ToolCall, result: Any) -> Message:
    """What came of a call: text as it is, anything else as JSON."""
    content = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)
    return Message(role=ROLE_TOOL, content=content, tool_call_id=call.id, name=call.name)


def function_tool(name: str, *, description: str = "", parameters: Mapping[str, Any] | None = None) -> Tool:
    """A function that the model may call. `parameters` is the JSON Schema of its arguments; None: it takes none."""
    schema = "" if parameters is None else json.dumps(parameters, ensure_ascii=False)
    return Tool(function=FunctionTool(name=name, description=description, parameters=schema))


def call_of(name: str) -> ToolChoice:
    """As `tool_choice`: exactly one call of this function."""
    return ToolChoice(function_name=name)


def json_schema(schema: Mapping[str, Any]) -> ResponseFormat:
    """As `response_format`: JSON that satisfies the schema."""
    return ResponseFormat(json_schema=json.dumps(schema, ensure_ascii=False))
