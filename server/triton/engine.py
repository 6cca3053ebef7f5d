"""The engine at the other end of Triton's gRPC port: one ModelStreamInfer call per request.

Implements `chat.engine.Engine` on token ids; knows no text and none of our protobuf messages. Which of several
Tritons serves a request is gRPC's own load balancing (`dns:///`, `ipv4:a,b`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from ..chat.engine import EngineRequest
from ..errors import DeadlineExceeded, EngineBusy, EngineFailed, EngineUnavailable, GuideRefused, ServiceError
from .contract import differences
from .tensors import build_request, is_final, read_token_ids

_CHANNEL_OPTIONS = (
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.max_receive_message_length", -1),
    # A Triton that comes back is found again within a second; the default grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A Triton that hangs, or a network that swallows packets, is noticed although nothing closes the connection.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
)

# Without it Triton reports errors of a stream as text without a status, and leaves the stream open.
_METADATA = (("triton_grpc_error", "true"),)


class TritonEngine:
    """A channel to Triton. Close it with `aclose()`."""

    def __init__(self, address: str, *, model_name: str, context_length: int) -> None:
        """`context_length` is the bundle's, in tokens; the served model must hold as many."""
        self.address = address
        self._context_length = context_length
        self._model_name = model_name
        self._closed = False
        self._channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Sequence[int], None]:
        """See `chat.engine.Engine.stream`. Closing the generator cancels the call, which frees the engine's slot."""
        if request.timeout_seconds is not None and request.timeout_seconds <= 0:
            raise DeadlineExceeded
        call = self._stub.ModelStreamInfer(metadata=_METADATA, timeout=request.timeout_seconds)
        try:
            await call.write(build_request(self._model_name, request))
            await call.done_writing()
            while (message := await call.read()) is not grpc.aio.EOF:
                if message.error_message:
                    raise EngineFailed(message.error_message)
                yield read_token_ids(message.infer_response)
                if is_final(message.infer_response):
                    return
            raise EngineFailed("the stream ended without a final response")
        except (grpc.aio.AioRpcError, grpc.aio.InternalError, asyncio.InvalidStateError) as error:
            raise await _error_of(call, error) from error
        except asyncio.CancelledError:
            if self._closed:  # then it is the channel that cancelled the call, and not our own caller
                raise EngineUnavailable("the server is shutting down") from None
            raise
        finally:
            call.cancel()

    async def is_ready(self, *, timeout_seconds: float) -> bool:
        """Whether Triton answers and serves the model. Never raises for a Triton that is away."""
        request = service_pb2.ModelReadyRequest(name=self._model_name)
        try:
            return bool((await self._stub.ModelReady(request, timeout=timeout_seconds)).ready)
        except grpc.aio.AioRpcError:
            return False

    async def contract_differences(self, *, timeout_seconds: float) -> list[str]:
        """How the served model's tensors differ from those used here. Raises EngineUnavailable."""
        request = service_pb2.ModelConfigRequest(name=self._model_name)
        try:
            response = await self._stub.ModelConfig(request, timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            raise EngineUnavailable(error.details() or error.code().name) from error
        return differences(response.config, context_length=self._context_length)

    async def aclose(self) -> None:
        """Closes the channel; running streams end with EngineUnavailable."""
        self._closed = True
        await self._channel.close()


async def _error_of(call: grpc.aio.StreamStreamCall[Any, Any], error: Exception) -> ServiceError:
    """A Triton status as one of our errors. Writing to a failed call raises without one, so the call is asked."""
    if isinstance(error, grpc.aio.AioRpcError):
        return error_from_status(error.code(), error.details() or "")
    return error_from_status(await call.code(), await call.details() or "")


def error_from_status(code: grpc.StatusCode, details: str) -> ServiceError:
    """One of our errors for a status of Triton's.

    Most of what goes wrong inside Triton has the code INTERNAL, so its text decides too.
    """
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded()
    if any(text in details for text in _GUIDE_TEXTS):
        return GuideRefused(details)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED or "maximum queue size" in details:
        return EngineBusy(details)
    if code in _AWAY or any(text in details for text in _AWAY_TEXTS):
        return EngineUnavailable(details or code.name)
    return EngineFailed(details or code.name)


# The CPU engine's, before it starts and in the middle.
_GUIDE_TEXTS = ("guided_decoding_guide: ", "the guide cannot be followed further")
# CANCELLED: Triton ends its streams so when it shuts down; cancelling by us never comes back this way.
_AWAY = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.NOT_FOUND})
# "not healthy": the model's own process has died. The last is grpc.aio's, for a call that died while it was being sent.
_AWAY_TEXTS = ("unknown model", "is not ready", "is not healthy", "Internal error from Core")
