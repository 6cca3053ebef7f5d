"""From a request's tools, tool choice and response format to the shape that its answer must have.

Knows protobuf messages and the chat pipeline's values; checks nothing (`check_tools.py` does).
"""

from __future__ import annotations

from llamarpc.v1 import chat_pb2, text_generation_pb2

from .chat.function_code import parameters_of
from .chat.model import (
    AnyJsonObject,
    AnyText,
    Ebnf,
    FunctionTool,
    JsonSchema,
    Regex,
    ReplyShape,
    TextShape,
    TextWithoutCalls,
)

_NO_ARGUMENTS = '{"type": "object", "properties": {}}'


def functions_of(message: text_generation_pb2.GenerateRequest) -> tuple[FunctionTool, ...]:
    """All offered functions: `tools`, then `functions`."""
    described = (
        FunctionTool(
            name=tool.function.name,
            description=tool.function.description,
            parameters=_NO_ARGUMENTS if _is_empty(tool.function.parameters) else tool.function.parameters,
        )
        for tool in message.tools
    )
    coded = (
        FunctionTool(name=each.name, description="", parameters=parameters_of(each.name, each.code), code=each.code)
        for each in message.functions
    )
    return (*described, *coded)


def _is_empty(parameters: str) -> bool:
    """Nothing, or a schema without a word: other APIs take both for a function without arguments."""
    return len(parameters) < 100 and "".join(parameters.split()) in ("", "{}")


def calls_are_possible(message: text_generation_pb2.GenerateRequest) -> bool:
    """Whether tools are offered and the choice lets the model call them."""
    is_none = message.tool_choice.mode == chat_pb2.TOOL_CHOICE_MODE_NONE
    return bool(message.tools or message.functions) and not is_none


def reply_shape_of(message: text_generation_pb2.GenerateRequest) -> ReplyShape:
    """What the answer may be."""
    text = _text_shape(message.response_format)
    if isinstance(text, AnyText) and (message.tools or message.functions or _has_called(message)):
        # Also where calls are ruled out: a model that sees calls it has made would write more of them as text.
        text = TextWithoutCalls()
    if not calls_are_possible(message):
        return ReplyShape(text=text)
    functions, choice = functions_of(message), message.tool_choice
    if choice.WhichOneof("choice") == "function_name":
        named = tuple(each for each in functions if each.name == choice.function_name)
        return ReplyShape(text=None, functions=named, single_call=True)
    if choice.mode == chat_pb2.TOOL_CHOICE_MODE_REQUIRED:
        return ReplyShape(text=None, functions=functions)
    return ReplyShape(text=text, functions=functions)


def _has_called(message: text_generation_pb2.GenerateRequest) -> bool:
    return not message.raw and any(each.tool_calls or each.role == chat_pb2.ROLE_TOOL for each in message.messages)


def _text_shape(response_format: chat_pb2.ResponseFormat) -> TextShape:
    kind = response_format.WhichOneof("format")
    if kind == "json_object":
        return AnyJsonObject()
    if kind == "json_schema":
        return JsonSchema(response_format.json_schema)
    if kind == "regex":
        return Regex(response_format.regex)
    if kind == "grammar":
        return Ebnf(response_format.grammar)
    return AnyText()
