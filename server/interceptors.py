"""What happens around every call: who calls, an id, limits of time, errors as statuses, and a record at the end.

Knows no services, and of errors only what to do with them: `status.py` has the table. Of health calls only the message
is read here; with reflection only the caller is asked for.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from .call_limits import CallLimits, limited_time, watched_reader
from .calls import Call, Calls, Observer
from .check import is_valid_request_id
from .errors import EngineFailed, FieldViolation, InvalidRequest, ServiceError
from .status import code_of, reason_of, retry_after_of, status_of
from .token_entries import Caller

if TYPE_CHECKING:
    from .call_trace import Tracing

_OUR_METHODS = "/llamarpc."
_HEALTH_METHODS = "/grpc.health."
REQUEST_ID_KEY = "x-request-id"
PROMPT_TOKENS_KEY = "x-usage-prompt-tokens"
COMPLETION_TOKENS_KEY = "x-usage-completion-tokens"
# gRPC's own (gRFC A6): clients that retry by their service config wait so long.
_PUSHBACK_KEY = "grpc-retry-pushback-ms"

# Messages, contexts and handlers are grpc's own, untyped at this point.
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Metadata: TypeAlias = tuple[tuple[str, str], ...]

Authenticate = Callable[[str, Iterable[tuple[str, str | bytes]], Mapping[str, Iterable[bytes]]], Caller | None]
"""Method, metadata and the connection's auth context to a caller. Raises Unauthenticated or PermissionDenied."""

log = logging.getLogger(__name__)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handler of every call."""

    def __init__(
        self,
        calls: Calls,
        *,
        authenticate: Authenticate,
        limits: CallLimits,
        on_start: Callable[[str], None],
        observers: Sequence[Observer],
        tracing: Tracing | None = None,
    ) -> None:
        """Of our calls `on_start` gets each method, and `observers` the record at its end; they must not block."""
        self._calls = calls
        self._authenticate = authenticate
        self._limits = limits
        self._on_start = on_start
        self._observers = observers
        self._tracing = tracing

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        """All of it for our own methods; the question who calls for the others, but for health."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            return None
        if method.startswith(_HEALTH_METHODS):
            return _streamed(_only_read(handler), handler)
        if not method.startswith(_OUR_METHODS):
            return _streamed(self._only_authenticated(method, handler), handler)
        if handler.response_streaming:
            return _streamed(self._stream(method, handler), handler)
        return grpc.stream_unary_rpc_method_handler(
            self._unary(method, handler), response_serializer=handler.response_serializer
        )

    def _unary(self, method: str, handler: Any) -> Callable[..., Awaitable[Any]]:
        async def run(_: object, context: _Context) -> Any:
            with self._calls.open(method=method, request_id=uuid.uuid4().hex) as call:
                self._began(call, context)
                try:
                    self._calls.check_open()
                    call.caller = self._caller(method, context)
                    with limited_time(call, self._limits, deadline_seconds=context.time_remaining()):
                        request = await _message_of(context, handler)
                        call.request_id = _name_request(request)
                        response = await handler.unary_unary(request, context)
                except (Exception, asyncio.CancelledError) as error:
                    await self._failed(call, context, error)
                    return None
                self._succeeded(call, context)
                return response

        return run

    def _stream(self, method: str, handler: Any) -> Callable[..., Awaitable[None]]:
        async def run(_: object, context: _Context) -> None:
            with self._calls.open(method=method, request_id=uuid.uuid4().hex) as call:
                self._began(call, context)
                try:
                    self._calls.check_open()
                    call.caller = self._caller(method, context)
                    deadline = context.time_remaining()
                    with (
                        limited_time(call, self._limits, deadline_seconds=deadline),
                        watched_reader(call, self._limits),
                    ):
                        request = await _message_of(context, handler)
                        call.request_id = _name_request(request)
                        async with aclosing(handler.unary_stream(request, context)) as responses:
                            await _write_all(call, responses, context)
                except (Exception, asyncio.CancelledError) as error:
                    await self._failed(call, context, error)
                    return
                self._succeeded(call, context)

        return run

    def _only_authenticated(self, method: str, handler: Any) -> Callable[..., Awaitable[None]]:
        async def run(_: object, context: _Context) -> None:
            try:
                self._caller(method, context)
                async with (
                    aclosing(_messages_of(context, handler)) as requests,
                    aclosing(handler.stream_stream(requests, context)) as responses,
                ):
                    async for response in responses:
                        await context.write(response)
            except ServiceError as error:
                await _abort(context, error, uuid.uuid4().hex, ())

        return run

    def _began(self, call: Call, context: _Context) -> None:
        self._on_start(call.method)
        if self._tracing is not None:
            call.trace = self._tracing.open_call(call.method, context.invocation_metadata() or ())

    def _caller(self, method: str, context: _Context) -> Caller | None:
        return self._authenticate(method, context.invocation_metadata() or (), context.auth_context())

    def _succeeded(self, call: Call, context: _Context) -> None:
        context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id), *_usage(call)))
        self._observe(call, status=grpc.StatusCode.OK.name)

    async def _failed(self, call: Call, context: _Context, error: Exception | asyncio.CancelledError) -> None:
        """Ends the call with the error's status. Of a caller that has gone only the record is made."""
        call.over = True
        if isinstance(error, asyncio.CancelledError):
            if call.ended_by is None:
                self._observe_gone(call, context)
                raise error
            error = call.ended_by
        if isinstance(error, grpc.aio.InternalError):  # of a write: the caller hung up in the middle of it
            self._observe_gone(call, context)
        else:
            self._observe(call, status=code_of(error).name, reason=reason_of(error))
            await _abort(context, error, call.request_id, _usage(call))

    def _observe_gone(self, call: Call, context: _Context) -> None:
        remaining = context.time_remaining()
        late = remaining is not None and remaining <= 0
        self._observe(call, status=(grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED).name)

    def _observe(self, call: Call, *, status: str, reason: str | None = None) -> None:
        record = call.record(status=status, reason=reason)
        for observe in self._observers:
            observe(record)
        if call.trace is not None:
            call.trace.end(record)


def _streamed(behaviour: Callable[..., Awaitable[None]], handler: Any) -> _Handler:
    return grpc.stream_stream_rpc_method_handler(behaviour, response_serializer=handler.response_serializer)


def _only_read(handler: Any) -> Callable[..., Awaitable[None]]:
    async def run(_: object, context: _Context) -> None:
        try:
            request = await _message_of(context, handler)
        except ServiceError as error:
            await _abort(context, error, uuid.uuid4().hex, ())
        if not handler.response_streaming:
            await context.write(await handler.unary_unary(request, context))
            return
        async with aclosing(handler.unary_stream(request, context)) as responses:
            async for response in responses:
                await context.write(response)

    return run


async def _message_of(context: _Context, handler: Any) -> Any:
    """The one message of a call. Raises InvalidRequest.

    Left to gRPC, a message that can't be read would be answered with UNKNOWN and leave a traceback in the log, and a
    call without one would not be answered at all.
    """
    async with aclosing(_messages_of(context, handler)) as messages:
        async for message in messages:
            return message
    raise InvalidRequest((FieldViolation(field="", description="the call has no message"),))


async def _messages_of(context: _Context, handler: Any) -> AsyncGenerator[Any, None]:
    while (data := await context.read()) is not grpc.aio.EOF:
        try:
            message = handler.request_deserializer(data)
        except DecodeError as error:
            reason = f"the message can't be read: {error}"
            raise InvalidRequest((FieldViolation(field="", description=reason),)) from error
        yield message


async def _write_all(call: Call, responses: AsyncIterator[Any], context: _Context) -> None:
    async for response in responses:
        call.write_began = time.monotonic()
        await context.write(response)
        call.write_began = None


def _usage(call: Call) -> _Metadata:
    """What the call has used, however it ended: proxies can bill by it without reading messages."""
    if call.meter.prompt_tokens is None:
        return ()
    return (
        (PROMPT_TOKENS_KEY, str(call.meter.prompt_tokens)),
        (COMPLETION_TOKENS_KEY, str(call.meter.completion_tokens)),
    )


def _name_request(request: Any) -> str:
    """The call's id. Where the caller gave none, one is made up and written into the request for all to see."""
    named = getattr(request, "generate_request", request)
    request_id: str = getattr(named, "request_id", "")
    if request_id and is_valid_request_id(request_id):
        return request_id
    made_up = uuid.uuid4().hex
    if not request_id and hasattr(named, "request_id"):
        named.request_id = made_up
    return made_up


async def _abort(context: _Context, error: Exception, request_id: str, usage: _Metadata) -> None:
    if not isinstance(error, ServiceError):
        log.error("request %s: unexpected %s", request_id, type(error).__name__, exc_info=error)
    elif isinstance(error, EngineFailed):
        log.warning("request %s: %s", request_id, error)
    status = rpc_status.to_status(status_of(error, request_id=request_id))
    retry_after = retry_after_of(error)
    pushback = () if retry_after is None else ((_PUSHBACK_KEY, str(round(retry_after * 1_000))),)
    metadata = ((REQUEST_ID_KEY, request_id), *usage, *pushback, *status.trailing_metadata)
    await context.abort(status.code, status.details, metadata)
