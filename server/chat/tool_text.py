"""How tools, calls and results are written in prompts, and how the model is to write its calls.

Llama 3 (3.0) was trained on no tool format, so this one is ours; ChatML's is the one that Hermes and Qwen models were
trained on. Both mark a call with the same tags. Data and text only: knows no tokens, and trusts guided decoding to make
the model keep to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .model import FunctionTool, Message, ToolCall

# A call, as one text: CALL_OPEN name CALL_MIDDLE arguments CALL_CLOSE; several have CALL_SEPARATOR between them.
CALL_MARK = "<tool_call>"
CALL_OPEN = CALL_MARK + '\n{"name": "'
CALL_MIDDLE = '", "arguments": '
CALL_CLOSE = "}\n</tool_call>"
CALL_SEPARATOR = "\n"

# Where JSON of a caller's would look like one of our tags; in JSON, `<` stands in strings only.
_TAG_START = re.compile(r"<(?=/?tool)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolStyle:
    """One model family's words around tools."""

    introduction: str
    rule: str

    def system_text(self, system: str, functions: Sequence[FunctionTool]) -> str:
        """A system turn's content: what the caller wrote, then the functions, then the rule of the reply."""
        definitions = "\n".join(_definition(function) for function in functions)
        parts = [system.strip(), self.introduction, f"<tools>\n{definitions}\n</tools>", self.rule]
        return "\n\n".join(part for part in parts if part)


_CALL_EXAMPLE = f"{CALL_OPEN}function name{CALL_MIDDLE}{{arguments by name}}{CALL_CLOSE}"

LLAMA3_TOOLS = ToolStyle(
    introduction="You can call these functions. Each line is the JSON definition of one, or its source code.",
    rule=(
        "When a function helps to answer, reply with its call and nothing else, in exactly this form:\n"
        f"{_CALL_EXAMPLE}\n"
        "For several calls write several such blocks, each after the other. The results will be given to you within "
        "<tool_response></tool_response>. When no function helps, or you have the results you need, answer in plain "
        "text without any <tool_call>."
    ),
)

CHATML_TOOLS = ToolStyle(
    introduction=(
        "# Tools\n\nYou may call one or more functions to assist with the user query. "
        "You are provided with function signatures within <tools></tools> tags:"
    ),
    rule=(
        "For each function call, return a JSON object with function name and arguments within <tool_call></tool_call> "
        f"tags:\n{_CALL_EXAMPLE}\n"
        "Otherwise answer in plain text."
    ),
)


def calls_text(calls: Iterable[ToolCall]) -> str:
    """Calls as the model writes them."""
    return CALL_SEPARATOR.join(
        f"{CALL_OPEN}{call.name}{CALL_MIDDLE}{_safe(call.arguments.strip())}{CALL_CLOSE}" for call in calls
    )


def results_text(results: Iterable[Message]) -> str:
    """The content of a turn that gives the results of calls."""
    return "\n".join(_result(message) for message in results)


def _definition(function: FunctionTool) -> str:
    if function.code:
        return f'<source name="{function.name}">\n{function.code.strip()}\n</source>'
    described = f', "description": {_json_string(function.description)}' if function.description else ""
    parameters = _safe(function.parameters.strip())
    return f'{{"type": "function", "function": {{"name": "{function.name}"{described}, "parameters": {parameters}}}}}'


def _result(message: Message) -> str:
    named = f'"name": {_json_string(message.name)}, ' if message.name else ""
    content = _safe(message.content.strip()) if _is_json(message.content) else _json_string(message.content)
    return f'<tool_response>\n{{{named}"content": {content}}}\n</tool_response>'


def _json_string(text: str) -> str:
    return _safe(json.dumps(text, ensure_ascii=False))


def _safe(json_text: str) -> str:
    """The same JSON, in which no string holds one of our tags."""
    return _TAG_START.sub(r"\\u003c", json_text)


def _is_json(text: str) -> bool:
    """Whether a result is JSON already, and is to be shown as such rather than as a string."""
    try:
        parsed_json(text)
    except ValueError:
        return False
    return True


def parsed_json(text: str) -> object:
    """The value of a JSON text of a caller's. Raises ValueError for what is none, NaN and too deep nesting included."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
