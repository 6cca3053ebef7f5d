"""Client of a llamarpc server: `from llamarpc import Client`, or `python -m llamarpc --help`.

The generated code of the whole contract, for callers with grpc.aio too, is in `llamarpc.v1`.
"""

from __future__ import annotations

from .client import Client, Priority
from .errors import CallError, Violation
from .messages import ANY_TOOL, NO_TOOLS, assistant, call_of, function_tool, json_schema, system, tool_result, user
from .v1.chat_pb2 import (
    FunctionCode,
    FunctionTool,
    JsonObjectFormat,
    Message,
    ResponseFormat,
    Role,
    Tool,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
)
from .v1.model_pb2 import Model
from .v1.text_generation_pb2 import CountTokensResponse, FinishReason, GenerateResponse, StreamGenerateResponse, Usage

__all__ = [
    "ANY_TOOL",
    "NO_TOOLS",
    "CallError",
    "Client",
    "CountTokensResponse",
    "FinishReason",
    "FunctionCode",
    "FunctionTool",
    "GenerateResponse",
    "JsonObjectFormat",
    "Message",
    "Model",
    "Priority",
    "ResponseFormat",
    "Role",
    "StreamGenerateResponse",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "ToolChoiceMode",
    "Usage",
    "Violation",
    "assistant",
    "call_of",
    "function_tool",
    "json_schema",
    "system",
    "tool_result",
    "user",
]
