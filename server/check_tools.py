"""Checks what a request says about tools and the shape of its answer: offered functions, choice, calls and results.

Part of `check.py`, which see. Pure functions on protobuf messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from llamarpc.v1 import chat_pb2, text_generation_pb2

from .chat.guides import Part, ShapeError, ShapeProblem, guide_of
from .chat.model import ReplyShape
from .chat.tool_text import parsed_json
from .errors import FieldViolation, clipped
from .reply_shape import calls_are_possible, functions_of, reply_shape_of

MAX_FUNCTIONS = 128
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_NAME_RULE = "must be 1 to 64 of letters, digits, _, - and ."
# In a message, which travels in a trailer.
_LONGEST_NAMES = 200


def tool_violations(request: text_generation_pb2.GenerateRequest) -> Iterator[FieldViolation]:
    """What is wrong with tools, functions, tool_choice and response_format, their schemas and grammars unread."""
    yield from _function_violations(request)
    yield from _choice_violations(request)
    yield from _combination_violations(request)


def guide_violations(request: text_generation_pb2.GenerateRequest) -> Iterator[FieldViolation]:
    """What is wrong with the schemas and grammars of a request that is right otherwise, named by place in them."""
    shape = reply_shape_of(request)
    # What may not be called this time is read all the same: a broken schema is a fault whatever the choice.
    offered = ReplyShape(text=None, functions=functions_of(request))
    try:
        if len(offered.functions) > len(shape.functions):
            guide_of(offered)
        guide_of(shape)
    except ShapeError as error:
        for problem in error.problems:
            yield _violation(_field_of(problem, request), str(problem.error))


def message_tool_violations(request: text_generation_pb2.GenerateRequest) -> Iterator[FieldViolation]:
    """Everything that is wrong with calls and results in the conversation."""
    unanswered: dict[str, str] = {}
    for index, message in enumerate(request.messages):
        path = f"messages[{index}]"
        if message.tool_calls and request.raw:
            yield _violation(f"{path}.tool_calls", "are written by the prompt format, which raw leaves out")
        elif message.tool_calls and message.role != chat_pb2.ROLE_ASSISTANT:
            yield _violation(f"{path}.tool_calls", "only messages of ROLE_ASSISTANT have calls")
        if message.tool_call_id and message.role != chat_pb2.ROLE_TOOL:
            yield _violation(f"{path}.tool_call_id", "only messages of ROLE_TOOL answer a call")
        elif message.tool_call_id and unanswered.pop(message.tool_call_id, None) is None:
            yield _violation(
                f"{path}.tool_call_id", "no earlier message has a call of this id that is still to be answered"
            )
        for number, call in enumerate(message.tool_calls):
            yield from _call_violations(call, f"{path}.tool_calls[{number}]")
            if call.id in unanswered:
                yield _violation(f"{path}.tool_calls[{number}].id", "another call has this id; ids must differ")
            elif call.id:
                unanswered[call.id] = path


def tool_characters(request: text_generation_pb2.GenerateRequest) -> Iterator[tuple[str, int]]:
    """The fields that end up in the prompt because of tools, with their lengths in characters."""
    for index, tool in enumerate(request.tools):
        yield f"tools[{index}].function.description", len(tool.function.description)
        yield f"tools[{index}].function.parameters", len(tool.function.parameters)
    for index, function in enumerate(request.functions):
        yield f"functions[{index}].code", len(function.code)
    for index, message in enumerate(request.messages):
        for number, call in enumerate(message.tool_calls):
            yield f"messages[{index}].tool_calls[{number}].arguments", len(call.arguments)


def _function_violations(request: text_generation_pb2.GenerateRequest) -> Iterator[FieldViolation]:
    count = len(request.tools) + len(request.functions)
    if count > MAX_FUNCTIONS:
        yield _violation(
            _offered(request), f"{count} tools and functions are offered, at most {MAX_FUNCTIONS} are allowed"
        )
    names: dict[str, str] = {}
    for field, name in _names(request):
        if not _NAME.fullmatch(name):
            yield _violation(field, _NAME_RULE)
        elif name in names:
            yield _violation(field, f"is the same as {names[name]}; names must differ")
        names.setdefault(name, field)
    for index, tool in enumerate(request.tools):
        if tool.WhichOneof("tool") is None:
            yield _violation(f"tools[{index}]", "must set function")
    for index, function in enumerate(request.functions):
        if not function.code.strip():
            yield _violation(f"functions[{index}].code", "must hold source code; offer a function without it as a tool")


def _names(request: text_generation_pb2.GenerateRequest) -> Iterator[tuple[str, str]]:
    for index, tool in enumerate(request.tools):
        if tool.WhichOneof("tool") is not None:
            yield f"tools[{index}].function.name", tool.function.name
    for index, function in enumerate(request.functions):
        yield f"functions[{index}].name", function.name


def _choice_violations(request: text_generation_pb2.GenerateRequest) -> Iterator[FieldViolation]:
    choice = request.tool_choice
    offered = [name for _, name in _names(request)]
    if choice.mode not in chat_pb2.ToolChoiceMode.values():
        yield _violation("tool_choice.mode", "must be NONE, AUTO or REQUIRED")
    elif choice.mode == chat_pb2.TOOL_CHOICE_MODE_REQUIRED and not offered:
        yield _violation("tool_choice.mode", "is REQUIRED, but no tools are offered")
    elif choice.WhichOneof("choice") == "function_name" and choice.function_name not in offered:
        some = clipped(", ".join(offered[:10]) + (", …" if len(offered) > 10 else ""), _LONGEST_NAMES)
        yield _violation("tool_choice.function_name", f"is not among the offered functions: {some or 'none'}")


def _combination_violations(request: text_generation_pb2.GenerateRequest) -> Iterator[FieldViolation]:
    if request.raw and (request.tools or request.functions):
        yield _violation(_offered(request), "are told to the model by its prompt format, which raw leaves out")
    kind = request.response_format.WhichOneof("format")
    if kind in ("regex", "grammar") and calls_are_possible(request):
        yield _violation(
            f"response_format.{kind}",
            "can't be told apart from tool calls; leave tools out, or set tool_choice to NONE",
        )


def _call_violations(call: chat_pb2.ToolCall, path: str) -> Iterator[FieldViolation]:
    if not _NAME.fullmatch(call.name):
        yield _violation(f"{path}.name", _NAME_RULE)
    try:
        is_object = isinstance(parsed_json(call.arguments), dict)
    except ValueError:
        is_object = False
    if not is_object:
        yield _violation(f"{path}.arguments", "must be the text of a JSON object")


def _field_of(problem: ShapeProblem, request: text_generation_pb2.GenerateRequest) -> str:
    if problem.part is Part.TEXT:
        return f"response_format.{request.response_format.WhichOneof('format')}"
    if problem.part is Part.FUNCTIONS:
        return _offered(request)
    if problem.part < len(request.tools):
        return f"tools[{problem.part}].function.parameters"
    return f"functions[{problem.part - len(request.tools)}].code"


def _offered(request: text_generation_pb2.GenerateRequest) -> str:
    """The field to complain about where all that is offered is meant."""
    return "tools" if request.tools else "functions"


def _violation(field: str, description: str) -> FieldViolation:
    return FieldViolation(field=field, description=description)
