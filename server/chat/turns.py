"""From messages to turns: what is said under which role, with tools, calls and results written out.

Knows no control tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

from .model import Conversation, Message, Role, ToolCall
from .tool_text import ToolStyle, calls_text, results_text


class Turn(NamedTuple):
    """One turn as the model sees it."""

    role: Role
    content: str


def turns(conversation: Conversation, *, style: ToolStyle, default_system_prompt: str) -> Iterator[Turn]:
    """All turns of a conversation.

    The model's own default system prompt stands in where the conversation does not begin with a system message.
    Functions are told in the first system turn. Results that follow each other share one turn.
    """
    messages = conversation.messages
    system = default_system_prompt
    if messages[0].role is Role.SYSTEM:
        system, messages = messages[0].content, messages[1:]
    if conversation.functions:
        system = style.system_text(system, conversation.functions)
    if system or conversation.messages[0].role is Role.SYSTEM:
        yield Turn(Role.SYSTEM, system)
    calls: list[ToolCall] = []
    for role, group in groupby(messages, key=lambda message: message.role):
        if role is Role.TOOL:
            yield Turn(role, results_text(_in_order_of_calls(list(group), calls)))
            continue
        for message in group:
            yield Turn(role, _with_calls(message))
            calls += message.tool_calls


def _with_calls(message: Message) -> str:
    if not message.tool_calls:
        return message.content
    return "\n".join(part for part in (message.content.strip(), calls_text(message.tool_calls)) if part)


def _in_order_of_calls(results: list[Message], calls: Sequence[ToolCall]) -> list[Message]:
    """The results in the order in which they were asked for, named after their calls; those of no call come last.

    Ids are not shown to the model: in the order of the calls it needs none, and made-up ids would only distract it.
    """
    places = {call.id: (place, call.name) for place, call in enumerate(calls) if call.id}
    unknown = (len(calls), "")
    results.sort(key=lambda result: places.get(result.tool_call_id, unknown)[0])
    return [replace(result, name=result.name or places.get(result.tool_call_id, unknown)[1]) for result in results]
