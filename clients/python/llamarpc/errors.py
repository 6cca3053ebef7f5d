"""Why a call failed, as one exception: the gRPC status, its google.rpc details and the id of the request.

Knows neither the client nor the command line; callers of the generated stubs and of grpc.aio can use it as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from .v1.text_generation_pb2 import Usage

_REQUEST_ID_KEY = "x-request-id"
_PROMPT_TOKENS_KEY = "x-usage-prompt-tokens"
_COMPLETION_TOKENS_KEY = "x-usage-completion-tokens"
_TRY_AGAIN = "try again in"
"""What some of the server's messages say by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One wrong field of a request: `field` is its path, such as `messages[2].content`."""

    field: str
    description: str


class CallError(Exception):
    """A call failed, perhaps in the middle of a stream. `str()` gives lines for people.

    `reason` is the name of an ErrorReason without its prefix, such as ENGINE_BUSY; empty where the server gave none.
    `info` holds what belongs to the reason, such as the `limit` of CALLER_LIMIT_REACHED or the `scope` of
    PERMISSION_DENIED. `retry_after_seconds` is None where trying again is not known to help. `request_id` is empty
    where no server of ours answered. `usage` is what the call used until it failed, None where the server did not say.
    The original grpc.RpcError is the `__cause__`.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        info: Mapping[str, str] | None = None,
        violations: tuple[Violation, ...] = (),
        retry_after_seconds: float | None = None,
        request_id: str = "",
        usage: Usage | None = None,
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.reason = reason
        self.info = dict(info or {})
        self.violations = violations
        self.retry_after_seconds = retry_after_seconds
        self.request_id = request_id
        self.usage = usage

    @classmethod
    def from_rpc_error(cls, error: grpc.RpcError) -> CallError:
        """Reads what the server told. Details that are missing or broken leave their attributes empty."""
        status = _rich_status(error)
        info = _detail(status, error_details_pb2.ErrorInfo)
        retry = _detail(status, error_details_pb2.RetryInfo)
        violations = _detail(status, error_details_pb2.BadRequest).field_violations
        trailers = _trailers(error)
        return cls(
            error.code(),
            error.details() or "",
            reason=info.reason,
            info=info.metadata,
            violations=tuple(Violation(field=each.field, description=each.description) for each in violations),
            retry_after_seconds=_seconds(retry.retry_delay) if retry.HasField("retry_delay") else None,
            request_id=trailers.get(_REQUEST_ID_KEY, ""),
            usage=_usage(trailers),
        )

    def __str__(self) -> str:
        if self.violations:
            lines = [self.code.name, *(f"{each.field}: {each.description}" for each in self.violations)]
        else:
            lines = [f"{self.code.name}: {self.message}"]
        if self.retry_after_seconds is not None and _TRY_AGAIN not in self.message:
            lines.append(f"{_TRY_AGAIN} {self.retry_after_seconds:g} s")
        if self.usage is not None:
            lines.append(f"until then {self.usage.prompt_tokens} prompt + {self.usage.completion_tokens} answer tokens")
        if self.request_id:
            lines.append(f"request id {self.request_id}")
        return "\n  ".join(lines)


def _trailers(error: grpc.RpcError) -> dict[str, str]:
    metadata: Any = error.trailing_metadata()  # pairs; None where no server answered
    return {key: value for key, value in metadata or () if isinstance(value, str)}


def _usage(trailers: Mapping[str, str]) -> Usage | None:
    try:
        prompt, completion = int(trailers[_PROMPT_TOKENS_KEY]), int(trailers[_COMPLETION_TOKENS_KEY])
        return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)
    except (KeyError, ValueError):  # none was told, or a proxy broke it
        return None


def _rich_status(error: grpc.RpcError) -> status_pb2.Status:
    try:
        # Errors of a channel are calls too, which grpc's types don't say.
        return rpc_status.from_call(error) or status_pb2.Status()  # type: ignore[arg-type]
    except (ValueError, DecodeError):  # a proxy changed the code or the bytes: the plain status still counts
        return status_pb2.Status()


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def _detail(status: status_pb2.Status, kind: type[Any]) -> Any:
    """The status's detail of a kind, or an empty one."""
    for packed in status.details:
        if packed.Is(kind.DESCRIPTOR):
            with suppress(DecodeError):
                return kind.FromString(packed.value)
    return kind()
