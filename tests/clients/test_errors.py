"""What CallError reads out of a status, whole, bare and broken."""

from __future__ import annotations

import pickle

import grpc
import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from llamarpc import CallError, Usage, Violation

DETAILS_KEY = "grpc-status-details-bin"
REQUEST_ID_KEY = "x-request-id"
PROMPT_KEY = "x-usage-prompt-tokens"
COMPLETION_KEY = "x-usage-completion-tokens"


class FailedCall(grpc.RpcError):
    """What a channel raises: a status and trailing metadata."""

    def __init__(self, code: grpc.StatusCode, message: str | None, metadata: object) -> None:
        self._values = (code, message, metadata)

    def code(self):
        return self._values[0]

    def details(self):
        return self._values[1]

    def trailing_metadata(self):
        return self._values[2]


def status_bytes(code: grpc.StatusCode, message: str, *details) -> bytes:
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status.SerializeToString()


BAD_REQUEST = error_details_pb2.BadRequest(
    field_violations=[
        error_details_pb2.BadRequest.FieldViolation(field="top_k", description="must be 1 to 50, is 0"),
        error_details_pb2.BadRequest.FieldViolation(field="seed", description="must be 1 or more, is -3"),
    ]
)
RETRY = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000))
BUSY = error_details_pb2.ErrorInfo(reason="ENGINE_BUSY", domain="llamarpc")


def test_wrong_fields_are_listed_one_per_line() -> None:
    code = grpc.StatusCode.INVALID_ARGUMENT
    trailing = ((REQUEST_ID_KEY, "r1"), (DETAILS_KEY, status_bytes(code, "wrong", BAD_REQUEST)))
    error = CallError.from_rpc_error(FailedCall(code, "wrong", trailing))
    assert error.violations == (
        Violation(field="top_k", description="must be 1 to 50, is 0"),
        Violation(field="seed", description="must be 1 or more, is -3"),
    )
    assert str(error).splitlines() == [
        "INVALID_ARGUMENT",
        "  top_k: must be 1 to 50, is 0",
        "  seed: must be 1 or more, is -3",
        "  request id r1",
    ]


def test_says_when_to_try_again() -> None:
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    trailing = ((DETAILS_KEY, status_bytes(code, "full", BUSY, RETRY)),)
    error = CallError.from_rpc_error(FailedCall(code, "full", trailing))
    assert (error.reason, error.retry_after_seconds, error.request_id) == ("ENGINE_BUSY", 1.5, "")
    assert str(error) == "RESOURCE_EXHAUSTED: full\n  try again in 1.5 s"


def test_when_to_try_again_is_said_once() -> None:
    code, text = grpc.StatusCode.RESOURCE_EXHAUSTED, "the server is overloaded; try again in 1.5 s"
    error = CallError.from_rpc_error(FailedCall(code, text, ((DETAILS_KEY, status_bytes(code, text, RETRY)),)))
    assert (str(error), error.retry_after_seconds) == (f"RESOURCE_EXHAUSTED: {text}", 1.5)


def test_tells_what_belongs_to_the_reason() -> None:
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    limit = error_details_pb2.ErrorInfo(reason="CALLER_LIMIT_REACHED", metadata={"caller": "gateway", "limit": "8"})
    trailing = ((DETAILS_KEY, status_bytes(code, "gateway may have 8 calls at a time", limit, RETRY)),)
    error = CallError.from_rpc_error(FailedCall(code, "gateway may have 8 calls at a time", trailing))
    assert (error.reason, error.info, error.retry_after_seconds) == (
        "CALLER_LIMIT_REACHED",
        {"caller": "gateway", "limit": "8"},
        1.5,
    )


def test_tells_what_was_used_until_then() -> None:
    code = grpc.StatusCode.ABORTED
    trailing = ((REQUEST_ID_KEY, "r1"), (PROMPT_KEY, "12"), (COMPLETION_KEY, "87"))
    error = CallError.from_rpc_error(FailedCall(code, "the answer was not read for 30 s", trailing))
    assert error.usage == Usage(prompt_tokens=12, completion_tokens=87, total_tokens=99)
    assert str(error).splitlines() == [
        "ABORTED: the answer was not read for 30 s",
        "  until then 12 prompt + 87 answer tokens",
        "  request id r1",
    ]


@pytest.mark.parametrize(
    "trailing",
    [
        ((PROMPT_KEY, "12"),),
        ((COMPLETION_KEY, "12"),),
        ((PROMPT_KEY, "many"), (COMPLETION_KEY, "87")),
        ((PROMPT_KEY, "12"), (COMPLETION_KEY, str(2**40))),
        ((PROMPT_KEY, "12"), (COMPLETION_KEY, b"87")),
    ],
)
def test_a_broken_usage_is_none(trailing: object) -> None:
    assert CallError.from_rpc_error(FailedCall(grpc.StatusCode.ABORTED, "", trailing)).usage is None


def test_errors_of_grpc_aio_are_read_alike() -> None:
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    trailing = grpc.aio.Metadata((REQUEST_ID_KEY, "r2"), (DETAILS_KEY, status_bytes(code, "full", BUSY)))
    error = CallError.from_rpc_error(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, "full"))
    assert (error.reason, error.request_id) == ("ENGINE_BUSY", "r2")


@pytest.mark.parametrize(
    "trailing",
    [
        pytest.param(None, id="no metadata"),
        pytest.param((), id="no details"),
        pytest.param(((DETAILS_KEY, b"\xff\xff"),), id="not a status"),
        pytest.param(((DETAILS_KEY, status_bytes(grpc.StatusCode.INTERNAL, "gone", BUSY)),), id="another code"),
        pytest.param(
            (
                (
                    DETAILS_KEY,
                    status_pb2.Status(
                        code=grpc.StatusCode.UNAVAILABLE.value[0],
                        details=[AnyMessage(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\xff")],
                    ).SerializeToString(),
                ),
            ),
            id="broken detail",
        ),
    ],
)
def test_without_good_details_the_plain_status_counts(trailing: object) -> None:
    error = CallError.from_rpc_error(FailedCall(grpc.StatusCode.UNAVAILABLE, "gone", trailing))
    assert (error.code, error.message) == (grpc.StatusCode.UNAVAILABLE, "gone")
    assert (error.reason, error.violations, error.retry_after_seconds, error.request_id) == ("", (), None, "")
    assert (error.info, error.usage) == ({}, None)


def test_survives_a_process_pool() -> None:
    error = CallError(
        grpc.StatusCode.INTERNAL,
        "broken",
        request_id="r3",
        violations=(Violation(field="a", description="b"),),
        info={"scope": "inference"},
        usage=Usage(prompt_tokens=12),
    )
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.request_id, copy.violations) == (str(error), "r3", error.violations)
    assert (copy.info, copy.usage) == (error.info, error.usage)
