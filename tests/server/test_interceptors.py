"""Around every call: an id in the trailing metadata, errors as statuses, defects logged and opaque."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from llamarpc.v1.model_pb2 import GetModelRequest, ListModelsRequest
from llamarpc.v1.text_generation_pb2 import CountTokensRequest, GenerateRequest

from server.errors import DeadlineExceeded, EngineBusy, EngineFailed, EngineUnavailable
from server.status import MAPPINGS
from tests.fakes import RunningServer, ScriptedEngine, error_details, running_server


async def called(running: RunningServer, method: str, request: Any) -> tuple[Any, grpc.aio.AioRpcError | None]:
    """(call, error) of one call, read to its end."""
    stub = running.models if hasattr(running.models, method) else running.text
    call = getattr(stub, method)(request)
    try:
        if method == "StreamGenerate":
            _ = [response async for response in call]
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return call, error
    return call, None


async def request_id_of(call: Any) -> str:
    (found,) = [value for key, value in await call.trailing_metadata() if key == "x-request-id"]
    return str(found)


METHODS = [
    ("Generate", GenerateRequest(prompt="Hi"), GenerateRequest(model="x", prompt="Hi")),
    ("StreamGenerate", GenerateRequest(prompt="Hi"), GenerateRequest(model="x", prompt="Hi")),
    (
        "CountTokens",
        CountTokensRequest(generate_request=GenerateRequest(prompt="Hi")),
        CountTokensRequest(generate_request=GenerateRequest(prompt="")),
    ),
    ("GetModel", GetModelRequest(), GetModelRequest(model="x")),
]


@pytest.mark.parametrize(("method", "good", "bad"), METHODS, ids=[method for method, _, _ in METHODS])
async def test_successes_and_failures_carry_an_id(tmp_path: Path, method: str, good: Any, bad: Any) -> None:
    async with running_server(tmp_path, ScriptedEngine([b"ok"])) as running:
        call, error = await called(running, method, good)
        assert error is None
        made_up = await request_id_of(call)
        assert len(made_up) == 32
        call, error = await called(running, method, bad)
        assert error is not None
        assert error_details(error)["ErrorInfo"].metadata["request_id"] == await request_id_of(call) != made_up


async def test_list_models_carries_an_id(tmp_path: Path) -> None:
    async with running_server(tmp_path, ScriptedEngine()) as running:
        call, _ = await called(running, "ListModels", ListModelsRequest())
        assert len(await request_id_of(call)) == 32


@pytest.mark.parametrize("method", ["Generate", "StreamGenerate", "CountTokens"])
@pytest.mark.parametrize("model", ["", "x"], ids=["success", "failure"])
async def test_the_callers_own_id_is_used(tmp_path: Path, method: str, model: str) -> None:
    request: Any = GenerateRequest(prompt="Hi", model=model, request_id="mine-1")
    if method == "CountTokens":
        request = CountTokensRequest(generate_request=request)
    engine = ScriptedEngine([b"ok"])
    async with running_server(tmp_path, engine) as running:
        call, error = await called(running, method, request)
        assert (error is None) is (model == "")
        assert await request_id_of(call) == "mine-1"
    assert all(asked.request_id.startswith("mine-1-") for asked in engine.requests)


@pytest.mark.parametrize("request_id", ["a b", "a\r\nx-evil: 1", "é", "x" * 129, "\x00"])
async def test_wrong_ids_never_travel(tmp_path: Path, request_id: str) -> None:
    async with running_server(tmp_path, ScriptedEngine()) as running:
        call, error = await called(running, "Generate", GenerateRequest(prompt="Hi", request_id=request_id))
        assert error is not None
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert len(await request_id_of(call)) == 32


@pytest.mark.parametrize("method", ["Generate", "StreamGenerate"])
@pytest.mark.parametrize("text_first", [b"", b"some"], ids=["at_once", "mid_stream"])
@pytest.mark.parametrize("error", [EngineUnavailable("a"), EngineBusy("b"), EngineFailed("c"), DeadlineExceeded()])
async def test_engine_errors_become_statuses(tmp_path: Path, method: str, text_first: bytes, error: Any) -> None:
    async with running_server(tmp_path, ScriptedEngine([text_first, error])) as running:
        _, failed = await called(running, method, GenerateRequest(prompt="Hi"))
    assert failed is not None
    assert (failed.code(), failed.details()) == (MAPPINGS[type(error)].code, str(error))
    assert error_details(failed)["ErrorInfo"].reason == MAPPINGS[type(error)].reason


@pytest.mark.parametrize("method", ["Generate", "StreamGenerate"])
async def test_defects_are_opaque_and_logged_with_the_id(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    engine = ScriptedEngine([b"some", KeyError("secret")])
    async with running_server(tmp_path, engine) as running:
        _, failed = await called(running, method, GenerateRequest(prompt="Hi", request_id="r-1"))
    assert failed is not None
    assert failed.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(failed)
    assert error_details(failed)["ErrorInfo"].reason == "INTERNAL"
    (record,) = [each for each in caplog.records if each.name == "server.interceptors"]
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "request r-1: unexpected KeyError")
    assert record.exc_info is not None


async def test_engine_failures_are_logged_and_wrong_requests_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_server(tmp_path, ScriptedEngine([EngineFailed("broken")])) as running:
        await called(running, "Generate", GenerateRequest(prompt="Hi", request_id="r-1"))
        await called(running, "Generate", GenerateRequest(request_id="r-2"))
    messages = [each.getMessage() for each in caplog.records if each.name == "server.interceptors"]
    assert messages == ["request r-1: the engine failed: broken"]


async def test_other_services_pass_untouched(tmp_path: Path) -> None:
    async with running_server(tmp_path, ScriptedEngine()) as running:
        call = running.health.Check(health_pb2.HealthCheckRequest())
        await call
        assert [key for key, _ in await call.trailing_metadata() if key == "x-request-id"] == []
        unknown: Any = running.channel.unary_unary("/llamarpc.v1.TextGenerationService/Nothing")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unknown(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_what_a_caller_calls_an_adapter_is_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Only names of adapters that there are; anything else may be text of any length, made to look like fields."""
    caplog.set_level(logging.INFO)
    async with running_server(tmp_path, ScriptedEngine(), bundle={"adapters": {"poet": 1}}) as running:
        for lora in ("x caller=alice", "poet"):
            await called(running, "Generate", GenerateRequest(prompt="Hi", lora=lora))
    records = [vars(each)["call"] for each in caplog.records if each.name == "llamarpc.calls"]
    assert [record.adapter for record in records] == [None, "poet"]
