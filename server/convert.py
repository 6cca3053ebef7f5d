"""Protobuf messages to the chat pipeline's values and back. The only module that knows both.

Requests must have been checked (`check.py`). Here every hole is filled: defaults, a request id, a seed.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping

from google.protobuf.duration_pb2 import Duration
from llamarpc.v1 import chat_pb2, model_pb2, text_generation_pb2
from typing_extensions import assert_never

from .bundle import Bundle, GenerationDefaults
from .capabilities import capabilities_of
from .chat.guides import guide_of
from .chat.model import (
    Conversation,
    Event,
    Finished,
    FinishReason,
    GenerationRequest,
    Message,
    Prompt,
    RawPrompt,
    Role,
    Sampling,
    Started,
    Text,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from .check import RANGES
from .reply_shape import calls_are_possible, functions_of, reply_shape_of

# Below this temperature the draw is as good as decided, and dividing by it would overflow: greedy.
_GREEDY_BELOW_TEMPERATURE = 0.001

_ROLES = {
    chat_pb2.ROLE_SYSTEM: Role.SYSTEM,
    chat_pb2.ROLE_USER: Role.USER,
    chat_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
    chat_pb2.ROLE_TOOL: Role.TOOL,
}

_FINISH_REASONS = {
    FinishReason.STOP: text_generation_pb2.FINISH_REASON_STOP,
    FinishReason.STOP_SEQUENCE: text_generation_pb2.FINISH_REASON_STOP_SEQUENCE,
    FinishReason.MAX_TOKENS: text_generation_pb2.FINISH_REASON_MAX_TOKENS,
    FinishReason.CONTEXT_LENGTH: text_generation_pb2.FINISH_REASON_CONTEXT_LENGTH,
    FinishReason.TOOL_CALLS: text_generation_pb2.FINISH_REASON_TOOL_CALLS,
    FinishReason.TIME_LIMIT: text_generation_pb2.FINISH_REASON_TIME_LIMIT,
}


def request_from_proto(
    message: text_generation_pb2.GenerateRequest,
    *,
    defaults: GenerationDefaults,
    adapters: Mapping[str, int],
    guided: bool,
) -> GenerationRequest:
    """A checked request with every hole filled. Without a seed of the caller's a fresh one is drawn.

    `guided`: whether the engine follows guides; a request that needs one has been refused otherwise.
    """
    prompt, prompt_field = _prompt_from_proto(message)
    shape = reply_shape_of(message)
    return GenerationRequest(
        request_id=message.request_id or uuid.uuid4().hex,
        prompt=prompt,
        prompt_field=prompt_field,
        max_tokens=message.max_tokens if message.HasField("max_tokens") else defaults.max_tokens,
        sampling=_sampling_from_proto(message, defaults),
        stop=tuple(dict.fromkeys(message.stop)),
        shape=shape,
        guide=guide_of(shape) if guided else None,
        adapter_id=adapters[message.lora] if message.lora else None,
        time_limit_seconds=_seconds(message.time_limit) if message.HasField("time_limit") else None,
    )


def _prompt_from_proto(message: text_generation_pb2.GenerateRequest) -> tuple[Prompt, str]:
    if message.HasField("prompt"):
        if message.raw:
            return RawPrompt(text=message.prompt), "prompt"
        messages = [Message(role=Role.USER, content=message.prompt)]
    elif message.raw:
        return RawPrompt(text="".join(each.content for each in message.messages)), "messages"
    else:
        messages = [_message_from_proto(each) for each in message.messages]
    # Where calls are ruled out the model is not told of tools: what it does not know of it does not try.
    functions = functions_of(message) if calls_are_possible(message) else ()
    conversation = Conversation(messages=tuple(messages), functions=functions)
    return conversation, "prompt" if message.HasField("prompt") else "messages"


def _message_from_proto(message: chat_pb2.Message) -> Message:
    calls = (ToolCall(id=call.id, name=call.name, arguments=call.arguments) for call in message.tool_calls)
    return Message(
        role=_ROLES[message.role],
        content=message.content,
        tool_calls=tuple(calls),
        tool_call_id=message.tool_call_id,
        name=message.name,
    )


def _sampling_from_proto(message: text_generation_pb2.GenerateRequest, defaults: GenerationDefaults) -> Sampling:
    temperature = message.temperature if message.HasField("temperature") else defaults.temperature
    top_p = message.top_p if message.HasField("top_p") else defaults.top_p
    top_k = message.top_k if message.HasField("top_k") else defaults.top_k
    if temperature < _GREEDY_BELOW_TEMPERATURE or top_p == 0 or top_k == 1:
        temperature, top_p, top_k = 1.0, 1.0, 1
    repetition = message.repetition_penalty if message.HasField("repetition_penalty") else defaults.repetition_penalty
    return Sampling(
        temperature=temperature,
        top_p=min(top_p, 1.0),
        top_k=top_k,
        seed=message.seed if message.HasField("seed") else 1 + secrets.randbelow(int(RANGES["seed"].high)),
        repetition_penalty=repetition or 1.0,
        frequency_penalty=message.frequency_penalty,
        presence_penalty=message.presence_penalty,
    )


class ResponseWriter:
    """Turns one request's events into messages, either a stream of them or one whole answer."""

    def __init__(self, request: GenerationRequest, *, model_id: str) -> None:
        self._request = request
        self._model_id = model_id
        self._sequence = 0
        self._text: list[str] = []

    def stream_message(self, event: Event) -> text_generation_pb2.StreamGenerateResponse:
        """The event as the next message of the stream."""
        message = text_generation_pb2.StreamGenerateResponse(sequence=self._sequence)
        self._sequence += 1
        match event:
            case Text(text=text):
                message.response = text
            case ToolCallDelta():
                message.tool_call.CopyFrom(_delta_to_proto(event))
            case Started(prompt_tokens=prompt_tokens):
                message.started.CopyFrom(self._started(prompt_tokens))
            case Finished():
                message.finished.CopyFrom(_finished_to_proto(event))
            case _:
                assert_never(event)
        return message

    def collect(self, event: Event) -> text_generation_pb2.GenerateResponse | None:
        """Takes the next event; gives the whole answer when it was the last."""
        match event:
            case Text(text=text):
                self._text.append(text)
            case Started() | ToolCallDelta():
                pass  # the whole calls come with the last event
            case Finished():
                return self._whole_answer(event)
            case _:
                assert_never(event)
        return None

    def _started(self, prompt_tokens: int) -> text_generation_pb2.Started:
        return text_generation_pb2.Started(
            request_id=self._request.request_id,
            model=self._model_id,
            seed=self._request.sampling.seed,
            prompt_tokens=prompt_tokens,
        )

    def _whole_answer(self, event: Finished) -> text_generation_pb2.GenerateResponse:
        end = _finished_to_proto(event)
        return text_generation_pb2.GenerateResponse(
            response="".join(self._text),
            tool_calls=end.tool_calls,
            finish_reason=end.finish_reason,
            stop_sequence=end.stop_sequence,
            usage=end.usage,
            request_id=self._request.request_id,
            model=self._model_id,
            seed=self._request.sampling.seed,
            timing=end.timing,
        )


def _finished_to_proto(event: Finished) -> text_generation_pb2.Finished:
    timing = text_generation_pb2.Timing(duration=_duration(event.duration_seconds))
    if event.first_token_seconds is not None:
        timing.time_to_first_token.CopyFrom(_duration(event.first_token_seconds))
    return text_generation_pb2.Finished(
        finish_reason=_FINISH_REASONS[event.finish_reason],
        stop_sequence=event.stop_sequence or "",
        tool_calls=[
            chat_pb2.ToolCall(id=call.id, name=call.name, arguments=call.arguments) for call in event.tool_calls
        ],
        usage=_usage_to_proto(event.usage),
        timing=timing,
    )


def _delta_to_proto(event: ToolCallDelta) -> chat_pb2.ToolCallDelta:
    return chat_pb2.ToolCallDelta(index=event.index, id=event.id, name=event.name, arguments=event.arguments)


def _usage_to_proto(usage: Usage) -> text_generation_pb2.Usage:
    return text_generation_pb2.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )


def _duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))


def _seconds(duration: Duration) -> float:
    return float(duration.seconds) + duration.nanos / 1e9


def model_to_proto(bundle: Bundle) -> model_pb2.Model:
    """What callers may know of the served model."""
    defaults = bundle.defaults
    return model_pb2.Model(
        id=bundle.model_id,
        display_name=bundle.display_name,
        context_length=bundle.context_length,
        prompt_format=bundle.prompt_format.name,
        defaults=model_pb2.GenerationDefaults(
            max_tokens=defaults.max_tokens,
            temperature=defaults.temperature,
            top_p=defaults.top_p,
            top_k=defaults.top_k,
            repetition_penalty=defaults.repetition_penalty,
        ),
        adapters=[model_pb2.Adapter(name=name) for name in sorted(bundle.adapters)],
        capabilities=capabilities_of(bundle),
        engine=model_pb2.Engine(kind=bundle.engine_kind, version=bundle.engine_version, source=bundle.engine_source),
        license=bundle.license,
    )
