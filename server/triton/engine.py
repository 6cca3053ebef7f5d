"""The engine at the other end of Triton's gRPC port: one ModelStreamInfer call per request.

Implements `chat.engine.Engine` on token ids; knows no text and none of our protobuf messages. Which of several
Tritons serves a request is gRPC's own load balancing (`dns:///`, `ipv4:a,b`); that a stream goes on at another one is
`resume.py`'s doing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.grpc.model_config_pb2 import ModelConfig

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
    # gRPC also pings to measure the bandwidth. Keepalive waits for such a ping's answer, by default for a minute.
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Replicas that move to another address are found within seconds of the loss; the default waits half a minute.
    ("grpc.dns_min_time_between_resolutions_ms", 5_000),
)

# Without it Triton reports errors of a stream as text without a status, and leaves the stream open.
_METADATA = (("triton_grpc_error", "true"),)

# A Triton whose model process has died may keep a stream open for ever and say nothing.
STALL_SECONDS = 30.0

# A question goes to one replica after the other until one answers; with half of them away, 1 in 256 finds none.
_ASKS = 8

_Answer = TypeVar("_Answer")


class TritonEngine:
    """A channel to Triton. Close it with `aclose()`."""

    def __init__(
        self, address: str, *, model_name: str, context_length: int, stall_seconds: float = STALL_SECONDS
    ) -> None:
        """`address` is any gRPC target. `context_length` is the bundle's, in tokens; the model must hold as many.

        A stream that has given ids and then gives none for `stall_seconds` ends with EngineUnavailable.
        """
        self.address = address
        self._context_length = context_length
        self._model_name = model_name
        self._stall_seconds = stall_seconds
        self._closed = False
        self._channel = grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Sequence[int], None]:
        """See `chat.engine.Engine.stream`. Closing the generator cancels the call, which frees the engine's slot."""
        call = self._call(request)
        watch = _StallWatch(self._stall_seconds, call.cancel)
        try:
            await call.write(build_request(self._model_name, request))
            await call.done_writing()
            while (message := await call.read()) is not grpc.aio.EOF:
                if message.error_message:
                    raise EngineFailed(message.error_message)
                watch.pause()
                ids = read_token_ids(message.infer_response)
                yield ids
                if is_final(message.infer_response):
                    return
                if ids or watch.begun:
                    watch.begin()
            raise EngineFailed("the stream ended without a final response")
        except (grpc.aio.AioRpcError, grpc.aio.InternalError, asyncio.InvalidStateError) as error:
            raise await _error_of(call, error) from error
        except asyncio.CancelledError:
            # Where the channel or the watch cancelled the call, it was not our own caller.
            if reason := _CLOSED if self._closed else watch.stall:
                raise EngineUnavailable(reason) from None
            raise
        finally:
            watch.stop()
            call.cancel()

    def _call(self, request: EngineRequest) -> Any:
        timeout_seconds = request.timeout_seconds
        if self._closed:
            raise EngineUnavailable(_CLOSED)
        if timeout_seconds is not None and timeout_seconds <= 0:
            raise DeadlineExceeded
        return self._stub.ModelStreamInfer(metadata=_METADATA + request.trace_headers, timeout=timeout_seconds)

    async def is_ready(self, *, timeout_seconds: float) -> bool:
        """Whether a Triton answers and serves the model; one of several is enough. Never raises for those away."""
        try:
            return await _first_answer(self._ask_ready, timeout_seconds=timeout_seconds)
        except EngineUnavailable:
            return False

    async def contract_differences(self, *, timeout_seconds: float) -> list[str]:
        """How the served model's tensors differ from those used here, by the first replica that answers.

        Raises EngineUnavailable.
        """
        config = await _first_answer(self._ask_config, timeout_seconds=timeout_seconds)
        return differences(config, context_length=self._context_length)

    async def _ask_ready(self, timeout_seconds: float) -> bool:
        request = service_pb2.ModelReadyRequest(name=self._model_name)
        if not (await _answer_of(self._stub.ModelReady(request, timeout=timeout_seconds))).ready:
            raise EngineUnavailable("it has not loaded the model")
        return True

    async def _ask_config(self, timeout_seconds: float) -> ModelConfig:
        request = service_pb2.ModelConfigRequest(name=self._model_name)
        return (await _answer_of(self._stub.ModelConfig(request, timeout=timeout_seconds))).config

    async def aclose(self) -> None:
        """Closes the channel; running streams end with EngineUnavailable."""
        self._closed = True
        await self._channel.close()


class _StallWatch:
    """Calls `on_stall` once a reader has waited for so long between `begin()` and `pause()`.

    One timer for a stream, however many tokens it has: the timer looks at when the waiting began, and comes again.
    """

    __slots__ = ("_loop", "_on_stall", "_seconds", "_since", "_timer", "begun", "stall")

    def __init__(self, seconds: float, on_stall: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._on_stall = on_stall
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.begun = False
        self.stall: str | None = None
        """What happened, for people, once it has."""

    def begin(self) -> None:
        """The reader waits from now on."""
        self._since = self._loop.time()
        if not self.begun:
            self.begun = True
            self._timer = self._loop.call_later(self._seconds, self._look)

    def pause(self) -> None:
        """The reader does not wait: something came, and what is done with it may take its time."""
        self._since = None

    def stop(self) -> None:
        """The stream is over."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        waited = 0.0 if self._since is None else self._loop.time() - self._since
        if waited >= self._seconds:
            self.stall = f"no token came for {self._seconds:g} s"
            self._on_stall()
        else:
            self._timer = self._loop.call_later(self._seconds - waited, self._look)


async def _first_answer(ask: Callable[[float], Awaitable[_Answer]], *, timeout_seconds: float) -> _Answer:
    """The first answer to a question that goes to another replica whenever one fails or keeps us waiting.

    Raises EngineUnavailable with the last failure where there is no answer within the time.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + timeout_seconds
    asked, running = 0, set[asyncio.Future[_Answer]]()
    failure: BaseException = EngineUnavailable("it does not answer")
    try:
        while asked < _ASKS or running:
            if asked < _ASKS:
                running.add(asyncio.ensure_future(ask(end - loop.time())))
                asked += 1
            patience = timeout_seconds / _ASKS if asked < _ASKS else None  # the calls end by themselves
            done, running = await asyncio.wait(running, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            outcomes = [(each, each.exception()) for each in done]
            for each, error in outcomes:
                if error is None:
                    return each.result()
                failure = error
        raise failure
    finally:
        for each in running:
            each.cancel()


async def _answer_of(call: Awaitable[_Answer]) -> _Answer:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise EngineUnavailable(error.details() or error.code().name) from error


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


_CLOSED = "the server is shutting down"

# The CPU engine's, before it starts and in the middle.
_GUIDE_TEXTS = ("guided_decoding_guide: ", "the guide cannot be followed further")
# CANCELLED: Triton ends its streams so when it shuts down; cancelling by us never comes back this way.
_AWAY = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.NOT_FOUND})
# "not healthy": the model's own process has died. The last is grpc.aio's, for a call that died while it was being sent.
_AWAY_TEXTS = ("unknown model", "is not ready", "is not healthy", "Internal error from Core")
