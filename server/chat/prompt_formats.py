"""Prompt formats: how a conversation becomes control tokens and text.

Formats are data; two are known, and bundle.json names the one of its model. Everything a caller wrote ends up in `Text`
segments, which are encoded with control tokens disabled, so no content can forge a turn. Knows no token ids.

Llama 3 follows Meta's own encoder (github.com/meta-llama/llama3, llama/tokenizer.py, ChatFormat): role, blank line
and stripped content are encoded one by one. ChatML follows the published chat templates, which encode role and
content as one text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from .model import Conversation, Role
from .tool_text import CHATML_TOOLS, LLAMA3_TOOLS, ToolStyle
from .turns import turns


@dataclass(frozen=True, slots=True)
class Special:
    """A control token, by its name in the vocabulary."""

    token: str


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text: whatever it looks like, it never becomes a control token."""

    text: str


Segment: TypeAlias = Special | Text


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFormat:
    """One family's layout of a turn: `turn_start role after_role content turn_end`, after an optional `begin`.

    `joins_texts`: neighbouring texts are encoded as one. `strips_content`: white space around contents is dropped.
    `tools`: the words around tools.
    """

    name: str
    begin: tuple[Segment, ...]
    turn_start: tuple[Segment, ...]
    after_role: tuple[Segment, ...]
    turn_end: tuple[Segment, ...]
    joins_texts: bool
    strips_content: bool
    tools: ToolStyle

    @property
    def special_tokens(self) -> frozenset[str]:
        """Names of all control tokens the format needs."""
        parts = self.begin + self.turn_start + self.after_role + self.turn_end
        return frozenset(part.token for part in parts if isinstance(part, Special))

    def segments(self, conversation: Conversation, *, default_system_prompt: str) -> tuple[Segment, ...]:
        """Lays out a conversation, with the assistant's turn left open at the end."""
        parts = list(self.begin)
        for turn in turns(conversation, style=self.tools, default_system_prompt=default_system_prompt):
            content = turn.content.strip() if self.strips_content else turn.content
            parts += [*self._header(turn.role), Text(content), *self.turn_end]
        parts += self._header(Role.ASSISTANT)
        return tuple(_joined(parts)) if self.joins_texts else tuple(parts)

    def _header(self, role: Role) -> tuple[Segment, ...]:
        return (*self.turn_start, Text(role.value), *self.after_role)


def _joined(parts: list[Segment]) -> Iterator[Segment]:
    text = ""
    for part in parts:
        if isinstance(part, Text):
            text += part.text
            continue
        if text:
            yield Text(text)
        text = ""
        yield part
    if text:
        yield Text(text)


LLAMA3 = PromptFormat(
    name="llama3",
    begin=(Special("<|begin_of_text|>"),),
    turn_start=(Special("<|start_header_id|>"),),
    after_role=(Special("<|end_header_id|>"), Text("\n\n")),
    turn_end=(Special("<|eot_id|>"),),
    joins_texts=False,
    strips_content=True,
    tools=LLAMA3_TOOLS,
)

CHATML = PromptFormat(
    name="chatml",
    begin=(),
    turn_start=(Special("<|im_start|>"),),
    after_role=(Text("\n"),),
    turn_end=(Special("<|im_end|>"), Text("\n")),
    joins_texts=True,
    strips_content=False,
    tools=CHATML_TOOLS,
)

PROMPT_FORMATS = {each.name: each for each in (LLAMA3, CHATML)}
