"""THE table from what can go wrong to what a caller is told: a gRPC status with google.rpc details.

Knows no request handling: `interceptors.py` applies it. Cancellation is not an error and has no entry.
"""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from .errors import (
    AdapterNotFound,
    CallerLimitReached,
    CallTooLong,
    DeadlineExceeded,
    EngineBusy,
    EngineFailed,
    EngineUnavailable,
    FieldViolation,
    GuideRefused,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    PermissionDenied,
    PromptTooLong,
    ServiceError,
    ShuttingDown,
    SlowReader,
    Unauthenticated,
    UnsupportedField,
)

ERROR_DOMAIN = "llamarpc"


@dataclass(frozen=True, slots=True)
class Mapping:
    """Status code and ErrorInfo reason (`protos/llamarpc/v1/error_reason.proto`) of one kind of error."""

    code: grpc.StatusCode
    reason: str


MAPPINGS: dict[type[ServiceError], Mapping] = {
    InvalidRequest: Mapping(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
    PromptTooLong: Mapping(grpc.StatusCode.INVALID_ARGUMENT, "PROMPT_TOO_LONG"),
    ModelNotFound: Mapping(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"),
    AdapterNotFound: Mapping(grpc.StatusCode.NOT_FOUND, "ADAPTER_NOT_FOUND"),
    GuideRefused: Mapping(grpc.StatusCode.INVALID_ARGUMENT, "GUIDE_REFUSED"),
    UnsupportedField: Mapping(grpc.StatusCode.UNIMPLEMENTED, "UNSUPPORTED_FIELD"),
    EngineUnavailable: Mapping(grpc.StatusCode.UNAVAILABLE, "ENGINE_UNAVAILABLE"),
    EngineBusy: Mapping(grpc.StatusCode.RESOURCE_EXHAUSTED, "ENGINE_BUSY"),
    EngineFailed: Mapping(grpc.StatusCode.INTERNAL, "ENGINE_FAILED"),
    DeadlineExceeded: Mapping(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    CallTooLong: Mapping(grpc.StatusCode.DEADLINE_EXCEEDED, "CALL_TOO_LONG"),
    Overloaded: Mapping(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
    CallerLimitReached: Mapping(grpc.StatusCode.RESOURCE_EXHAUSTED, "CALLER_LIMIT_REACHED"),
    SlowReader: Mapping(grpc.StatusCode.ABORTED, "SLOW_READER"),
    ShuttingDown: Mapping(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"),
    Unauthenticated: Mapping(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"),
    PermissionDenied: Mapping(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"),
}

# Those that say when to try again.
_RETRIABLE = (EngineUnavailable, EngineBusy, Overloaded, CallerLimitReached, ShuttingDown)
_DEFECT = Mapping(grpc.StatusCode.INTERNAL, "INTERNAL")


def status_of(error: Exception, *, request_id: str) -> status_pb2.Status:
    """The status for an error. Anything but a ServiceError is a defect: opaque to the caller, logged with the id."""
    if not isinstance(error, ServiceError):
        text = f"internal error; the server's log has the details under request id {request_id}"
        return _status(_DEFECT, text, [_error_info(_DEFECT, {"request_id": request_id})])
    mapping = MAPPINGS[type(error)]
    details = [_error_info(mapping, {"request_id": request_id, **_metadata(error)}), *_details(error)]
    return _status(mapping, str(error), details)


def code_of(error: Exception) -> grpc.StatusCode:
    """The gRPC status of an error."""
    return _mapping(error).code


def reason_of(error: Exception) -> str:
    """The ErrorInfo reason of an error."""
    return _mapping(error).reason


def retry_after_of(error: Exception) -> float | None:
    """Seconds after which it makes sense to try again; None where that would not help."""
    if isinstance(error, _RETRIABLE):
        return error.retry_after_seconds
    return None


def _mapping(error: Exception) -> Mapping:
    return MAPPINGS[type(error)] if isinstance(error, ServiceError) else _DEFECT


def _status(mapping: Mapping, text: str, details: list[Message]) -> status_pb2.Status:
    status = status_pb2.Status(code=mapping.code.value[0], message=text)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _error_info(mapping: Mapping, metadata: dict[str, str]) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=mapping.reason, domain=ERROR_DOMAIN, metadata=metadata)


def _metadata(error: ServiceError) -> dict[str, str]:
    match error:
        case PromptTooLong():
            return {"prompt_tokens": str(error.prompt_tokens), "context_length": str(error.context_length)}
        case ModelNotFound():
            return {"model": error.model, "available": ", ".join(error.available)}
        case AdapterNotFound():
            return {"adapter": error.adapter, "available": ", ".join(error.available[:20])}
        case UnsupportedField():
            return {"field": error.field}
        case CallTooLong():
            return {"limit_seconds": f"{error.limit_seconds:g}"}
        case CallerLimitReached():
            return {"caller": error.caller, "limit": str(error.limit)}
        case PermissionDenied():
            return {"scope": error.scope}
        case _:
            return {}


def _details(error: ServiceError) -> list[Message]:
    if isinstance(error, _RETRIABLE):
        quota = [_quota_failure(error)] if isinstance(error, CallerLimitReached) else []
        return [_retry_info(error.retry_after_seconds), *quota]
    match error:
        case InvalidRequest():
            return [_bad_request(error.violations)]
        case PromptTooLong():
            return [_bad_request((FieldViolation(field=error.field, description=str(error)),))]
        case _:
            return []


def _retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    return error_details_pb2.RetryInfo(retry_delay=Duration(nanos=int(seconds % 1 * 1e9), seconds=int(seconds)))


def _quota_failure(error: CallerLimitReached) -> error_details_pb2.QuotaFailure:
    violation = error_details_pb2.QuotaFailure.Violation(subject=f"caller:{error.caller}", description=str(error))
    return error_details_pb2.QuotaFailure(violations=[violation])


def _bad_request(violations: tuple[FieldViolation, ...]) -> error_details_pb2.BadRequest:
    violation = error_details_pb2.BadRequest.FieldViolation
    return error_details_pb2.BadRequest(
        field_violations=[violation(field=each.field, description=each.description) for each in violations]
    )
