"""The gRPC services, each method one sentence: check, generate, convert.

Errors are raised, never turned into statuses here (`interceptors.py` does that). Knows no Triton and no settings.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

import grpc.aio
from llamarpc.v1 import model_pb2, model_pb2_grpc, text_generation_pb2, text_generation_pb2_grpc

from .admission import Admission, Claimant
from .bundle import Bundle
from .calls import Call, current_call
from .capabilities import check_capabilities, check_model, follows_guides
from .chat.generate import TextGenerator
from .chat.model import Event, GenerationRequest
from .check import TextLimits, check_count_tokens_request, check_generate_request
from .convert import ResponseWriter, model_to_proto, request_from_proto
from .priority import PRIORITY_KEY, Priority, priority_of
from .token_entries import Caller

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Request = TypeVar("_Request", text_generation_pb2.GenerateRequest, text_generation_pb2.CountTokensRequest)

_INLINE_BYTES = 8_000


class TextGenerationService(text_generation_pb2_grpc.TextGenerationServiceServicer):
    """Generates text. See protos/llamarpc/v1/text_generation.proto."""

    def __init__(self, *, bundle: Bundle, generator: TextGenerator, limits: TextLimits, admission: Admission) -> None:
        self._bundle = bundle
        self._generator = generator
        self._limits = limits
        self._admission = admission

    async def Generate(
        self, request: text_generation_pb2.GenerateRequest, context: _Context
    ) -> text_generation_pb2.GenerateResponse:
        """The whole answer at once."""
        async with self._generation(request, context) as (writer, events):
            async for event in events:
                if (response := writer.collect(event)) is not None:
                    return response
        raise AssertionError("the pipeline ended without a Finished event")

    async def StreamGenerate(
        self, request: text_generation_pb2.GenerateRequest, context: _Context
    ) -> AsyncGenerator[text_generation_pb2.StreamGenerateResponse, None]:
        """The answer in pieces. While the caller is slower than the engine, what waits goes out as one piece."""
        async with self._generation(request, context) as (writer, events):
            async for event in events:
                yield writer.stream_message(event)

    async def CountTokens(
        self, request: text_generation_pb2.CountTokensRequest, context: _Context
    ) -> text_generation_pb2.CountTokensResponse:
        """Length of a prompt. Needs no engine."""
        checked = await _off_the_loop(request, request.generate_request, self._checked_to_count)
        renderer = self._generator.renderer
        ids = await renderer.render(checked.prompt)
        response = text_generation_pb2.CountTokensResponse(
            prompt_tokens=len(ids), context_length=self._bundle.context_length
        )
        if request.include_prompt:
            response.token_ids.extend(ids)
            response.rendered_prompt = await renderer.written_out(ids)
        return response

    @asynccontextmanager
    async def _generation(
        self, request: text_generation_pb2.GenerateRequest, context: _Context
    ) -> AsyncIterator[tuple[ResponseWriter, AsyncGenerator[Event, None]]]:
        """The events of a checked and admitted request, and who turns them into messages."""
        call = current_call()
        call.model = self._bundle.model_id
        checked = await _off_the_loop(request, request, self._checked_to_generate)
        call.adapter = request.lora or None  # now it is the name of one that there is, and no text of any length
        place = self._admission.admit(
            caller=_claim(call.caller),
            priority=_priority(call.caller, context),
            seconds_left=_seconds_left(call, checked),
        )
        async with place as call.queue_seconds:
            # What is left of the deadline after the wait; the time limit counts from the call's arrival.
            checked = replace(
                checked,
                timeout_seconds=context.time_remaining(),
                arrival=call.started,
                trace_headers=() if call.trace is None else call.trace.headers,
            )
            async with aclosing(self._generator.generate(checked, call.meter)) as events:
                yield ResponseWriter(checked, model_id=self._bundle.model_id), events

    def _checked_to_generate(self, request: text_generation_pb2.GenerateRequest) -> GenerationRequest:
        check_generate_request(request, self._limits)
        check_capabilities(request, self._bundle)
        return self._converted(request)

    def _checked_to_count(self, request: text_generation_pb2.CountTokensRequest) -> GenerationRequest:
        check_count_tokens_request(request, self._limits)
        check_capabilities(request.generate_request, self._bundle, path="generate_request.")
        return self._converted(request.generate_request)

    def _converted(self, request: text_generation_pb2.GenerateRequest) -> GenerationRequest:
        return request_from_proto(
            request, defaults=self._bundle.defaults, adapters=self._bundle.adapters, guided=follows_guides(self._bundle)
        )


def _seconds_left(call: Call, request: GenerationRequest) -> float | None:
    """Until the call's deadline or its time limit, which counts from its arrival."""
    given = [call.seconds_left()]
    if request.time_limit_seconds is not None:
        given.append(call.started + request.time_limit_seconds - time.monotonic())
    return min((seconds for seconds in given if seconds is not None), default=None)


def _claim(caller: Caller | None) -> Claimant | None:
    return None if caller is None else Claimant(name=caller.name, limit=caller.max_calls)


def _priority(caller: Caller | None, context: _Context) -> Priority:
    """What the metadata key `x-priority` asks for, at most what the caller may have. Raises InvalidRequest."""
    given = [value for key, value in context.invocation_metadata() or () if key == PRIORITY_KEY]
    asked = priority_of(str(given[0])) if given else Priority.NORMAL
    return asked if caller is None else max(asked, priority_of(caller.priority))


async def _off_the_loop(
    request: _Request, inner: text_generation_pb2.GenerateRequest, work: Callable[[_Request], GenerationRequest]
) -> GenerationRequest:
    """Checks a request without holding up others' streams: even a small schema can take a while to read."""
    shaped = inner.tools or inner.functions or inner.HasField("response_format")
    if not shaped and inner.ByteSize() <= _INLINE_BYTES:
        return work(request)
    return await asyncio.to_thread(work, request)


class ModelService(model_pb2_grpc.ModelServiceServicer):
    """Tells what is served. See protos/llamarpc/v1/model.proto."""

    def __init__(self, *, bundle: Bundle) -> None:
        self._bundle = bundle

    async def ListModels(self, request: model_pb2.ListModelsRequest, context: _Context) -> model_pb2.ListModelsResponse:
        """All served models: one."""
        return model_pb2.ListModelsResponse(models=[model_to_proto(self._bundle)])

    async def GetModel(self, request: model_pb2.GetModelRequest, context: _Context) -> model_pb2.GetModelResponse:
        """One model by its id."""
        check_model(request.model, self._bundle)
        return model_pb2.GetModelResponse(model=model_to_proto(self._bundle))
