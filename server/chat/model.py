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
    TOOL = "tool"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call of a function by the model. `arguments` is the text of a JSON object."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation.

    `tool_calls` are an assistant's; `tool_call_id` names the call that a tool's turn answers, `name` the tool.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionTool:
    """A function that the model may call. `parameters` is the JSON Schema of its arguments, as text.

    `code` is its source where it was given as source: then the code is shown, and `parameters` was read from it.
    """

    name: str
    description: str
    parameters: str
    code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A prompt that the model's prompt format turns into tokens. At least one message. `functions` are shown to it."""

    messages: tuple[Message, ...]
    functions: tuple[FunctionTool, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RawPrompt:
    """A prompt in the model's own notation, control tokens written as text."""

    text: str


Prompt: TypeAlias = Conversation | RawPrompt


@dataclass(frozen=True, slots=True)
class AnyText:
    """Text of any kind."""


@dataclass(frozen=True, slots=True)
class TextWithoutCalls:
    """Text that holds nothing which looks like a tool call."""


@dataclass(frozen=True, slots=True)
class AnyJsonObject:
    """One JSON object."""


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """JSON that satisfies this schema, given as JSON text."""

    schema: str


@dataclass(frozen=True, slots=True)
class Regex:
    """Text that this regular expression matches as a whole."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Ebnf:
    """Text that this grammar derives."""

    grammar: str


TextShape: TypeAlias = AnyText | TextWithoutCalls | AnyJsonObject | JsonSchema | Regex | Ebnf


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyShape:
    """What an answer may be: text of a certain shape (None: no text), or calls of `functions` (empty: no calls).

    `single_call`: exactly one call, where others allow several.
    """

    text: TextShape | None = AnyText()
    functions: tuple[FunctionTool, ...] = ()
    single_call: bool = False


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
    """One request, complete. `prompt_field` names the request field that holds the prompt, for error messages.

    `guide` is the grammar of `shape`, None where any text will do. `adapter_id` is the LoRA adapter's number in the
    bundle. After `time_limit_seconds` the answer ends with what there is; `timeout_seconds`, the call's own deadline,
    ends it with an error. `arrival` is when the request came, by time.monotonic(); None: when generation begins.
    `trace_headers` are for the engine.
    """

    request_id: str
    prompt: Prompt
    prompt_field: str
    max_tokens: int
    sampling: Sampling
    stop: tuple[str, ...]
    shape: ReplyShape = ReplyShape()
    guide: str | None = None
    adapter_id: int | None = None
    time_limit_seconds: float | None = None
    timeout_seconds: float | None = None
    arrival: float | None = None
    trace_headers: tuple[tuple[str, str], ...] = ()


class FinishReason(Enum):
    """Why an answer ended."""

    STOP = "stop"
    STOP_SEQUENCE = "stop_sequence"
    MAX_TOKENS = "max_tokens"
    CONTEXT_LENGTH = "context_length"
    TOOL_CALLS = "tool_calls"
    TIME_LIMIT = "time_limit"


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
class ToolCallDelta:
    """The next piece of the call number `index`. `id` and `name` come whole, with the call's first piece only."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The answer is complete. `stop_sequence` is set with STOP_SEQUENCE only; times are seconds since the start.

    `tool_calls` are whole calls only: one that was cut off has had its pieces but is not among them.
    """

    finish_reason: FinishReason
    stop_sequence: str | None
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage
    first_token_seconds: float | None
    duration_seconds: float


Event: TypeAlias = Started | Text | ToolCallDelta | Finished
