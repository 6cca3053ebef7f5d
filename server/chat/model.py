"""The values that pass through the chat pipeline: requests on the way in, events on the way out.

Knows no wire format: `convert.py` makes these from protobuf messages and back. A request of this module has been
checked and has no holes left: every default has been filled in.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias


class Role(Enum):
    """Who speaks in a message; the value is what prompt formats write."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A prompt that the model's prompt format turns into tokens. At least one message."""

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RawPrompt:
    """A prompt in the model's own notation, control tokens written as text."""

    text: str


Prompt: TypeAlias = Conversation | RawPrompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn. `top_k` 0 is no limit, 1 is greedy; `top_p` is in (0, 1]; penalties are off at 1, 0, 0."""

    temperature: float
    top_p: float
    top_k: int
    seed: int
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One request, complete. `prompt_field` names the request field that holds the prompt, for error messages."""

    request_id: str
    prompt: Prompt
    prompt_field: str
    max_tokens: int
    sampling: Sampling
    stop: tuple[str, ...]
    timeout_seconds: float | None = None


class FinishReason(Enum):
    """Why an answer ended. Tool calls and time limits come with the features that need them."""

    STOP = "stop"
    STOP_SEQUENCE = "stop_sequence"
    MAX_TOKENS = "max_tokens"
    CONTEXT_LENGTH = "context_length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one request."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The engine has taken the request."""

    prompt_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """The next characters of the answer; never empty, never half a character."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The answer is complete. `stop_sequence` is set with STOP_SEQUENCE only; times are seconds since the start."""

    finish_reason: FinishReason
    stop_sequence: str | None
    usage: Usage
    first_token_seconds: float | None
    duration_seconds: float


Event: TypeAlias = Started | Text | Finished
