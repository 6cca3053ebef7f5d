"""The gRPC services, each method one sentence: check, generate, convert.

Errors are raised, never turned into statuses here (`interceptors.py` does that). Knows no Triton and no settings.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc.aio
from llamarpc.v1 import model_pb2, model_pb2_grpc, text_generation_pb2, text_generation_pb2_grpc

from .bundle import Bundle
from .chat.generate import TextGenerator
from .chat.model import GenerationRequest
from .check import TextLimits, check_count_tokens_request, check_generate_request
from .convert import ResponseWriter, model_to_proto, request_from_proto
from .errors import ModelNotFound

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class TextGenerationService(text_generation_pb2_grpc.TextGenerationServiceServicer):
    """Generates text. See protos/llamarpc/v1/text_generation.proto."""

    def __init__(self, *, bundle: Bundle, generator: TextGenerator, limits: TextLimits) -> None:
        self._bundle = bundle
        self._generator = generator
        self._limits = limits

    async def Generate(
        self, request: text_generation_pb2.GenerateRequest, context: _Context
    ) -> text_generation_pb2.GenerateResponse:
        """The whole answer at once."""
        checked = self._checked(request, context)
        writer = ResponseWriter(checked, model_id=self._bundle.model_id)
        async with aclosing(self._generator.generate(checked)) as events:
            async for event in events:
                if (response := writer.collect(event)) is not None:
                    return response
        raise AssertionError("the pipeline ended without a Finished event")

    async def StreamGenerate(
        self, request: text_generation_pb2.GenerateRequest, context: _Context
    ) -> AsyncGenerator[text_generation_pb2.StreamGenerateResponse, None]:
        """The answer in pieces. While the caller is slower than the engine, what waits goes out as one piece."""
        checked = self._checked(request, context)
        writer = ResponseWriter(checked, model_id=self._bundle.model_id)
        async with aclosing(self._generator.generate(checked)) as events:
            async for event in events:
                yield writer.stream_message(event)

    async def CountTokens(
        self, request: text_generation_pb2.CountTokensRequest, context: _Context
    ) -> text_generation_pb2.CountTokensResponse:
        """Length of a prompt. Needs no engine."""
        check_count_tokens_request(request, self._limits)
        check_model(request.generate_request.model, self._bundle)
        checked = request_from_proto(request.generate_request, defaults=self._bundle.defaults)
        renderer = self._generator.renderer
        ids = await renderer.render(checked.prompt)
        response = text_generation_pb2.CountTokensResponse(
            prompt_tokens=len(ids), context_length=self._bundle.context_length
        )
        if request.include_prompt:
            response.token_ids.extend(ids)
            response.rendered_prompt = await renderer.written_out(ids)
        return response

    def _checked(self, request: text_generation_pb2.GenerateRequest, context: _Context) -> GenerationRequest:
        check_generate_request(request, self._limits)
        check_model(request.model, self._bundle)
        return request_from_proto(request, defaults=self._bundle.defaults, timeout_seconds=context.time_remaining())


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


def check_model(model: str, bundle: Bundle) -> None:
    """Raises ModelNotFound unless `model` is empty or the served one."""
    if model and model != bundle.model_id:
        raise ModelNotFound(model=model, available=(bundle.model_id,))
