"""The error table is complete, its reasons are in the contract, and details fit into what clients accept."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from google.rpc import error_details_pb2
from llamarpc.v1 import chat_pb2
from llamarpc.v1.error_reason_pb2 import ErrorReason
from llamarpc.v1.text_generation_pb2 import CountTokensRequest, GenerateRequest

from server import errors
from server.check import TextLimits, check_count_tokens_request
from server.status import MAPPINGS, status_of

REQUEST_ID = "~" * 128
# What clients accept of trailing metadata by default (grpc.max_metadata_size); each header counts 32 bytes more.
MOST_TRAILER_BYTES = 8 * 1024
HEADER_OVERHEAD_BYTES = 32


def subclasses(base: type[Any]) -> Iterator[type[Any]]:
    for each in base.__subclasses__():
        yield each
        yield from subclasses(each)


def many_violations() -> errors.InvalidRequest:
    """Of the worst request: 5,000 messages, all of them wrong, with the longest paths and the longest texts."""
    messages = [chat_pb2.Message(content="xx", name="xx")] * 5_000
    inner = GenerateRequest(messages=messages, temperature=9, stop=[""] * 100, request_id="\n" * 500)
    with pytest.raises(errors.InvalidRequest) as caught:
        check_count_tokens_request(
            CountTokensRequest(generate_request=inner), TextLimits(field_characters=1, prompt_characters=100_000)
        )
    return caught.value


VIOLATION = errors.FieldViolation(field="messages[2].content", description="is wrong")
EXAMPLES: list[tuple[errors.ServiceError, grpc.StatusCode, set[str]]] = [
    (errors.InvalidRequest((VIOLATION,)), grpc.StatusCode.INVALID_ARGUMENT, {"BadRequest"}),
    (
        errors.PromptTooLong(field="messages", prompt_tokens=9, context_length=8),
        grpc.StatusCode.INVALID_ARGUMENT,
        {"BadRequest"},
    ),
    (errors.ModelNotFound(model="m", available=("a", "b")), grpc.StatusCode.NOT_FOUND, set()),
    (errors.UnsupportedField("tools", reason="it is old"), grpc.StatusCode.UNIMPLEMENTED, set()),
    (errors.AdapterNotFound(adapter="x", available=("poet",)), grpc.StatusCode.NOT_FOUND, set()),
    (errors.EngineUnavailable("away"), grpc.StatusCode.UNAVAILABLE, {"RetryInfo"}),
    (errors.GuideRefused("too ambiguous"), grpc.StatusCode.INVALID_ARGUMENT, set()),
    (errors.EngineBusy("full"), grpc.StatusCode.RESOURCE_EXHAUSTED, {"RetryInfo"}),
    (errors.EngineFailed("broken"), grpc.StatusCode.INTERNAL, set()),
    (errors.DeadlineExceeded(), grpc.StatusCode.DEADLINE_EXCEEDED, set()),
    (errors.CallTooLong(limit_seconds=600), grpc.StatusCode.DEADLINE_EXCEEDED, set()),
    (errors.Overloaded("all is full", retry_after_seconds=2.5), grpc.StatusCode.RESOURCE_EXHAUSTED, {"RetryInfo"}),
    (
        errors.CallerLimitReached(caller="search", limit=4, retry_after_seconds=1),
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        {"RetryInfo", "QuotaFailure"},
    ),
    (errors.SlowReader(stalled_seconds=30), grpc.StatusCode.ABORTED, set()),
    (errors.ShuttingDown(), grpc.StatusCode.UNAVAILABLE, {"RetryInfo"}),
    (errors.Unauthenticated("no token"), grpc.StatusCode.UNAUTHENTICATED, set()),
    (errors.PermissionDenied(caller="search", scope="inference"), grpc.StatusCode.PERMISSION_DENIED, set()),
]


def details_of(error: Exception) -> dict[str, Any]:
    found = {}
    for packed in status_of(error, request_id=REQUEST_ID).details:
        detail = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2])()
        assert packed.Unpack(detail)
        found[type(detail).__name__] = detail
    return found


def trailer_bytes(error: Exception) -> int:
    """Size of the trailers of a failed call as they are written on the wire, without header compression."""
    status = status_of(error, request_id=REQUEST_ID)
    trailers = {
        "x-request-id": REQUEST_ID,
        "grpc-status": str(status.code),
        "grpc-message": quote(status.message, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"),
        "grpc-status-details-bin": base64.b64encode(status.SerializeToString()).decode(),
    }
    return sum(len(name) + len(value) + HEADER_OVERHEAD_BYTES for name, value in trailers.items())


def test_every_error_is_in_the_table() -> None:
    assert set(MAPPINGS) == set(subclasses(errors.ServiceError))
    assert {type(error) for error, _, _ in EXAMPLES} == set(MAPPINGS)


def test_every_reason_is_in_the_contract() -> None:
    in_contract = {name.removeprefix("ERROR_REASON_") for name, _ in ErrorReason.items()}
    assert {mapping.reason for mapping in MAPPINGS.values()} <= in_contract
    assert "INTERNAL" in in_contract


def test_the_drawn_tree_names_every_error() -> None:
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or ""))
    assert drawn == {each.__name__ for each in subclasses(errors.ServiceError)}


@pytest.mark.parametrize(("error", "code", "details"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_status(error: errors.ServiceError, code: grpc.StatusCode, details: set[str]) -> None:
    status = status_of(error, request_id="r")
    assert (status.code, status.message) == (code.value[0], str(error))
    found = details_of(error)
    assert set(found) == {"ErrorInfo"} | details
    assert (found["ErrorInfo"].domain, found["ErrorInfo"].reason) == ("llamarpc", MAPPINGS[type(error)].reason)
    assert found["ErrorInfo"].metadata["request_id"] == REQUEST_ID


@pytest.mark.parametrize(
    ("error", "metadata"),
    [
        (EXAMPLES[1][0], {"prompt_tokens": "9", "context_length": "8"}),
        (EXAMPLES[2][0], {"model": "m", "available": "a, b"}),
        (EXAMPLES[3][0], {"field": "tools"}),
        (EXAMPLES[4][0], {"adapter": "x", "available": "poet"}),
        (EXAMPLES[5][0], {}),
    ],
    ids=["PromptTooLong", "ModelNotFound", "UnsupportedField", "AdapterNotFound", "EngineUnavailable"],
)
def test_metadata(error: errors.ServiceError, metadata: dict[str, str]) -> None:
    assert dict(details_of(error)["ErrorInfo"].metadata) == {"request_id": REQUEST_ID, **metadata}


@pytest.mark.parametrize(
    ("error", "violations"),
    [
        (EXAMPLES[0][0], [("messages[2].content", "is wrong")]),
        (EXAMPLES[1][0], [("messages", str(EXAMPLES[1][0]))]),
    ],
    ids=["InvalidRequest", "PromptTooLong"],
)
def test_violations(error: errors.ServiceError, violations: list[tuple[str, str]]) -> None:
    found = details_of(error)["BadRequest"].field_violations
    assert [(each.field, each.description) for each in found] == violations


@pytest.mark.parametrize("seconds", [0.0, 0.25, 1.0, 61.5])
def test_retry_delay(seconds: float) -> None:
    for error in (
        errors.EngineBusy("full", retry_after_seconds=seconds),
        errors.EngineUnavailable("away", retry_after_seconds=seconds),
    ):
        assert details_of(error)["RetryInfo"].retry_delay.ToMilliseconds() == seconds * 1_000


@pytest.mark.parametrize("error", [RuntimeError("secret"), KeyError("secret"), AssertionError("secret")])
def test_defects_are_opaque(error: Exception) -> None:
    status = status_of(error, request_id="r-1")
    assert status.code == grpc.StatusCode.INTERNAL.value[0]
    assert b"secret" not in status.SerializeToString()
    assert "r-1" in status.message
    assert details_of(error)["ErrorInfo"].reason == "INTERNAL"


LONGEST_TEXTS = {"ascii": "x" * 100_000, "not_ascii": "é" * 100_000, "emoji": "🎉" * 100_000, "lines": "\n" * 100_000}


@pytest.mark.parametrize("text", LONGEST_TEXTS.values(), ids=LONGEST_TEXTS)
@pytest.mark.parametrize("kind", [errors.EngineFailed, errors.EngineBusy, errors.EngineUnavailable])
def test_trailers_of_long_engine_errors_fit(kind: type[errors.EngineFailed], text: str) -> None:
    assert trailer_bytes(kind(text)) <= MOST_TRAILER_BYTES


@pytest.mark.parametrize("text", LONGEST_TEXTS.values(), ids=LONGEST_TEXTS)
def test_trailers_of_unknown_models_fit(text: str) -> None:
    assert trailer_bytes(errors.ModelNotFound(model=text, available=("llama-3-8b-instruct",))) <= MOST_TRAILER_BYTES


def test_trailers_of_the_worst_request_fit() -> None:
    error = many_violations()
    assert len(error.violations) == errors.MAX_LISTED_VIOLATIONS
    assert trailer_bytes(error) <= MOST_TRAILER_BYTES


def test_trailers_of_defects_fit() -> None:
    assert trailer_bytes(RuntimeError("x" * 100_000)) <= MOST_TRAILER_BYTES
