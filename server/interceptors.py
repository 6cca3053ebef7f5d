"""What happens around every call: it has an id, errors become statuses, defects are logged and stay opaque.

Knows no services and no errors by name: `status.py` has the table. Health and reflection pass through untouched.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
import grpc.aio
from grpc_status import rpc_status

from .check import is_valid_request_id
from .errors import EngineFailed, ServiceError
from .status import status_of

_OUR_METHODS = "/llamarpc."
REQUEST_ID_KEY = "x-request-id"

# Messages and contexts are grpc's own, untyped at this point.
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

log = logging.getLogger(__name__)


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Gives each call of ours an id, and failed ones the status of their error, also in the middle of a stream."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        """Wraps the handlers of our own services."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(_OUR_METHODS):
            return handler
        codecs: dict[str, Any] = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(_guarded_stream(handler.unary_stream), **codecs)
        return grpc.unary_unary_rpc_method_handler(_guarded_unary(handler.unary_unary), **codecs)


def _guarded_unary(method: Any) -> Callable[..., Awaitable[Any]]:
    async def call(request: Any, context: _Context) -> Any:
        request_id = _name_request(request)
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
        try:
            return await method(request, context)
        except Exception as error:
            await _abort(context, error, request_id)

    return call


def _guarded_stream(method: Any) -> Callable[..., Awaitable[None]]:
    async def call(request: Any, context: _Context) -> None:
        request_id = _name_request(request)
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
        try:
            async with aclosing(method(request, context)) as responses:
                async for response in responses:
                    await context.write(response)
        except grpc.aio.InternalError as error:  # of a write: the caller hung up in the middle of it
            log.debug("request %s: the caller is gone: %s", request_id, error)
        except Exception as error:
            await _abort(context, error, request_id)

    return call


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


async def _abort(context: _Context, error: Exception, request_id: str) -> None:
    if not isinstance(error, ServiceError):
        log.error("request %s: unexpected %s", request_id, type(error).__name__, exc_info=error)
    elif isinstance(error, EngineFailed):
        log.warning("request %s: %s", request_id, error)
    status = rpc_status.to_status(status_of(error, request_id=request_id))
    metadata = ((REQUEST_ID_KEY, request_id), *status.trailing_metadata)
    await context.abort(status.code, status.details, metadata)
