"""A prompt as token ids, exactly as the model was trained to see it. Knows no engine and no sampling."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from .model import Conversation, Prompt, RawPrompt
from .prompt_formats import PromptFormat, Special, Text
from .tokenizer import Tokenizer

# Encoding costs about a millisecond per 1,000 characters; longer prompts are encoded off the event loop.
_INLINE_CHARACTERS = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRenderer:
    """Renders prompts for one model. Deterministic: the same prompt gives the same ids."""

    tokenizer: Tokenizer
    prompt_format: PromptFormat
    default_system_prompt: str

    def __post_init__(self) -> None:
        """Raises TokenizerError where the vocabulary lacks a control token of the format."""
        for token in sorted(self.prompt_format.special_tokens):
            self.tokenizer.special_id(token)

    async def render(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt, without stalling other requests while a long one is encoded."""
        if _characters(prompt) <= _INLINE_CHARACTERS:
            return self.encode(prompt)
        return await asyncio.to_thread(self.encode, prompt)

    async def written_out(self, ids: Sequence[int]) -> str:
        """A prompt's ids as text, control tokens written out."""
        return await asyncio.to_thread(self.tokenizer.decode, ids)

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt."""
        if isinstance(prompt, RawPrompt):
            return self._encode_raw(prompt.text)
        ids: list[int] = []
        for segment in self.prompt_format.segments(prompt, default_system_prompt=self.default_system_prompt):
            match segment:
                case Special(token):
                    ids.append(self.tokenizer.special_id(token))
                case Text(text):
                    ids += self.tokenizer.encode(text)
        return ids

    def _encode_raw(self, text: str) -> list[int]:
        """Raw text, with the format's begin-of-text token in front unless the caller wrote it."""
        begin = [
            self.tokenizer.special_id(part.token) for part in self.prompt_format.begin if isinstance(part, Special)
        ]
        ids = self.tokenizer.encode_raw(text)
        return ids if ids[: len(begin)] == begin else begin + ids


def _characters(prompt: Prompt) -> int:
    match prompt:
        case RawPrompt(text=text):
            return len(text)
        case Conversation(messages=messages, functions=functions):
            return sum(
                len(each.content) + sum(len(call.arguments) for call in each.tool_calls) for each in messages
            ) + sum(len(each.description) + len(each.parameters) + len(each.code) for each in functions)
