"""Checks requests as a whole: every wrong field is found, not only the first. Pure functions on protobuf messages.

Ranges are the union of the published generations of the retired API's schema. Knows no model: what it can do is checked
by `capabilities.py`, and whether a prompt fits its context is found when it is encoded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from llamarpc.v1 import chat_pb2, text_generation_pb2

from .check_tools import guide_violations, message_tool_violations, tool_characters, tool_violations
from .errors import FieldViolation, InvalidRequest

MAX_STOP_STRINGS = 8
MAX_STOP_CHARACTERS = 1_024
MAX_REQUEST_ID_CHARACTERS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:,} to {self.high:,}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLimits:
    """Most characters of one field, and of all prompt text of a request together."""

    field_characters: int
    prompt_characters: int


# The fields that are checked by range alone. `seed` and `max_tokens` are whole numbers by their type.
RANGES = {
    "max_tokens": Range(low=1, high=2**31 - 1),
    "temperature": Range(low=0, high=5),
    "top_p": Range(low=0, high=2),
    "top_k": Range(low=1, high=50),
    "seed": Range(low=1, high=9_999_999_999),
    "repetition_penalty": Range(low=0, high=2),
    "frequency_penalty": Range(low=-2, high=2),
    "presence_penalty": Range(low=-2, high=2),
}

_SPEAKERS = frozenset({chat_pb2.ROLE_SYSTEM, chat_pb2.ROLE_USER, chat_pb2.ROLE_ASSISTANT, chat_pb2.ROLE_TOOL})


def check_generate_request(request: text_generation_pb2.GenerateRequest, limits: TextLimits) -> None:
    """Raises InvalidRequest with all violations."""
    _check(request, limits, path="")


def check_count_tokens_request(request: text_generation_pb2.CountTokensRequest, limits: TextLimits) -> None:
    """Raises InvalidRequest with all violations, their paths below `generate_request`."""
    _check(request.generate_request, limits, path="generate_request.")


def _check(request: text_generation_pb2.GenerateRequest, limits: TextLimits, *, path: str) -> None:
    content = (*_input_violations(request, limits), *tool_violations(request))
    violations = (
        *content,
        *_range_violations(request),
        *_stop_violations(request),
        *_request_id_violations(request.request_id),
        *_time_limit_violations(request),
        # Schemas are read only once all else about them is right, their length above all.
        *(() if content else guide_violations(request)),
    )
    if violations:
        raise InvalidRequest(tuple(_violation(path + each.field, each.description) for each in violations))


def _input_violations(request: text_generation_pb2.GenerateRequest, limits: TextLimits) -> Iterator[FieldViolation]:
    has_prompt, has_messages = request.HasField("prompt"), bool(request.messages)
    if not has_prompt and not has_messages:
        yield _violation("prompt", "give either prompt or messages; neither is set")
    if has_prompt:
        if not has_messages and not request.prompt.strip():
            yield _violation("prompt", "must hold more than white space")
        else:
            limit = min(limits.field_characters, limits.prompt_characters)
            yield from _length_violations("prompt", len(request.prompt), limit)
    if has_messages:
        yield from _message_violations(request, limits.field_characters)
        if problem := _problem_of_all_messages(request, limits.prompt_characters):
            yield _violation("messages", problem)
    yield from _tool_length_violations(request, limits)


def _tool_length_violations(
    request: text_generation_pb2.GenerateRequest, limits: TextLimits
) -> Iterator[FieldViolation]:
    total = 0
    for field, length in tool_characters(request):
        yield from _length_violations(field, length, limits.field_characters)
        total += length
    if total > limits.prompt_characters:
        limit = limits.prompt_characters
        field = "tools" if request.tools or not request.functions else "functions"
        yield _violation(field, f"tools and calls have {total:,} characters together, at most {limit:,} are allowed")


def _message_violations(request: text_generation_pb2.GenerateRequest, limit: int) -> Iterator[FieldViolation]:
    for index, message in enumerate(request.messages):
        if message.role not in _SPEAKERS:
            yield _violation(f"messages[{index}].role", "must be ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT or ROLE_TOOL")
        yield from _length_violations(f"messages[{index}].content", len(message.content), limit)
        yield from _length_violations(f"messages[{index}].name", len(message.name), limit)
    yield from message_tool_violations(request)


def _problem_of_all_messages(request: text_generation_pb2.GenerateRequest, limit: int) -> str | None:
    """What is wrong with the messages as a whole, the gravest if there is more; None where nothing is."""
    if request.HasField("prompt"):
        return "give either prompt or messages, not both"
    said = (each for each in request.messages if each.role == chat_pb2.ROLE_USER or request.raw)
    if not any(message.content.strip() for message in said):
        return "no message of the user holds any text"
    total = sum(len(message.content) for message in request.messages)
    return f"have {total:,} characters together, at most {limit:,} are allowed" if total > limit else None


def _length_violations(field: str, length: int, limit: int) -> Iterator[FieldViolation]:
    if length > limit:
        yield _violation(field, f"has {length:,} characters, at most {limit:,} are allowed")


def _range_violations(request: text_generation_pb2.GenerateRequest) -> Iterator[FieldViolation]:
    for field, allowed in RANGES.items():
        if not request.HasField(field):
            continue
        value = getattr(request, field)
        if not math.isfinite(value):
            yield _violation(field, f"must be a number from {allowed}, not {value}")
        elif not allowed.low <= value <= allowed.high:
            shown = f"{value:,}" if isinstance(value, int) else f"{value:g}"
            yield _violation(field, f"is {shown}, must be from {allowed}")


def _stop_violations(request: text_generation_pb2.GenerateRequest) -> Iterator[FieldViolation]:
    if len(request.stop) > MAX_STOP_STRINGS:
        yield _violation("stop", f"has {len(request.stop)} strings, at most {MAX_STOP_STRINGS} are allowed")
    for index, stop in enumerate(request.stop):
        if not stop:
            yield _violation(f"stop[{index}]", "must not be empty")
        yield from _length_violations(f"stop[{index}]", len(stop), MAX_STOP_CHARACTERS)


def is_valid_request_id(request_id: str) -> bool:
    """Whether the id can travel in metadata. An empty one is valid: the server makes one up."""
    return len(request_id) <= MAX_REQUEST_ID_CHARACTERS and all("!" <= each <= "~" for each in request_id)


def _request_id_violations(request_id: str) -> Iterator[FieldViolation]:
    if not is_valid_request_id(request_id):
        limit = MAX_REQUEST_ID_CHARACTERS
        yield _violation("request_id", f"must be at most {limit} visible ASCII characters, without spaces")


def _time_limit_violations(request: text_generation_pb2.GenerateRequest) -> Iterator[FieldViolation]:
    limit = request.time_limit
    if request.HasField("time_limit") and not (limit.seconds >= 0 and 0 <= limit.nanos < 10**9 and limit != Duration()):
        yield _violation("time_limit", "must be longer than 0")


def _violation(field: str, description: str) -> FieldViolation:
    return FieldViolation(field=field, description=description)
