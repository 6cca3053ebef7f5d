"""The server as a whole, over a real socket: start, limits, reflection, drain."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from llamarpc.v1.text_generation_pb2 import GenerateRequest

from server.bundle import read_bundle
from server.chat.tokenizer import TokenizerError
from server.config import Settings
from server.grpc_server import ListenError, Server
from tests.fakes import (
    PATIENCE_SECONDS,
    RunningServer,
    ScriptedEngine,
    error_details,
    eventually,
    running_server,
    write_bundle,
)

PROMPT = GenerateRequest(prompt="Hi")
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


async def asked_by_reflection(running: RunningServer, request: reflection_pb2.ServerReflectionRequest) -> Any:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(running.channel)  # type: ignore[arg-type]
    return await stub.ServerReflectionInfo(iter([request])).read()


async def test_reflection_lists_the_services_and_their_files(tmp_path: Path) -> None:
    async with running_server(tmp_path, ScriptedEngine()) as running:
        listed = await asked_by_reflection(running, reflection_pb2.ServerReflectionRequest(list_services=""))
        found = await asked_by_reflection(
            running,
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="llamarpc.v1.TextGenerationService"),
        )
    assert {each.name for each in listed.list_services_response.service} == {
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "llamarpc.v1.ModelService",
        "llamarpc.v1.TextGenerationService",
    }
    file = descriptor_pb2.FileDescriptorProto.FromString(found.file_descriptor_response.file_descriptor_proto[0])
    assert file.name == "llamarpc/v1/text_generation.proto"


async def test_reflection_can_be_switched_off(tmp_path: Path) -> None:
    async with running_server(tmp_path, ScriptedEngine(), reflection=False) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asked_by_reflection(running, reflection_pb2.ServerReflectionRequest(list_services=""))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_health_of_every_service(tmp_path: Path) -> None:
    names = ("", "llamarpc.v1.TextGenerationService", "llamarpc.v1.ModelService")
    async with running_server(tmp_path, ScriptedEngine()) as running:
        checks = [running.health.Check(health_pb2.HealthCheckRequest(service=name)) for name in names]
        assert [(await each).status for each in checks] == [health_pb2.HealthCheckResponse.SERVING] * 3


async def test_port_in_use(tmp_path: Path) -> None:
    async with running_server(tmp_path, ScriptedEngine()) as running:
        settings = Settings(address=running.address, bundle=tmp_path)
        other = Server(settings, read_bundle(tmp_path), ScriptedEngine())
        with pytest.raises(ListenError, match=rf"can't listen on {running.address}: .*--address"):
            await other.start()


async def test_address_that_is_none(tmp_path: Path) -> None:
    settings = Settings(address="nonsense:port", bundle=write_bundle(tmp_path))
    with pytest.raises(ListenError, match="can't listen on nonsense:port"):
        await Server(settings, read_bundle(tmp_path), ScriptedEngine()).start()


async def test_tokenizer_that_does_not_fit_the_format(tmp_path: Path) -> None:
    write_bundle(tmp_path, prompt_format="llama3")
    with pytest.raises(TokenizerError, match=r"<\|begin_of_text\|>"):
        Server(Settings(bundle=tmp_path), read_bundle(tmp_path), ScriptedEngine())


async def test_message_too_large(tmp_path: Path) -> None:
    async with running_server(tmp_path, ScriptedEngine([b"ok"]), max_message_bytes=2_000) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.text.Generate(GenerateRequest(prompt="x" * 2_000))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await running.text.Generate(PROMPT)).response == "ok"


async def test_no_engine_no_serving(tmp_path: Path) -> None:
    engine = ScriptedEngine()
    engine.ready = False
    async with running_server(tmp_path, engine, wait=False) as running:
        status = (await running.health.Check(health_pb2.HealthCheckRequest())).status
        assert status == health_pb2.HealthCheckResponse.NOT_SERVING


async def is_refused(address: str) -> bool:
    try:
        _, writer = await asyncio.open_connection(*address.split(":"))
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it was just being closed
        return False
    writer.close()
    return False


async def test_drain_finishes_running_calls_and_refuses_new_ones(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with running_server(tmp_path, ScriptedEngine([b"a", gate, b"b"])) as running:
        watcher = running.health.Watch(health_pb2.HealthCheckRequest())
        assert (await watcher.read()).status == health_pb2.HealthCheckResponse.SERVING
        call = running.text.StreamGenerate(PROMPT)
        responses = [await call.read()]
        draining = asyncio.create_task(running.server.drain(PATIENCE_SECONDS))
        assert (await watcher.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await eventually(lambda: is_refused(running.address), what="the port is closed")
        async with grpc.aio.insecure_channel(running.address, options=OWN_CONNECTION) as channel:
            newcomer = RunningServer(running.server, running.address, channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await newcomer.text.Generate(PROMPT)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        gate.set()
        while (response := await call.read()) is not grpc.aio.EOF:
            responses.append(response)
        assert "".join(response.response for response in responses) == "ab"
        assert responses[-1].WhichOneof("event") == "finished"
        await asyncio.wait_for(draining, PATIENCE_SECONDS)


async def test_drain_ends_what_does_not_finish_and_says_why(tmp_path: Path) -> None:
    engine = ScriptedEngine([b"a", asyncio.Event()])
    async with running_server(tmp_path, engine) as running:
        stream, whole = running.text.StreamGenerate(PROMPT), running.text.Generate(PROMPT)
        await eventually(lambda: engine.running == 2, what="both have begun")
        while not (await stream.read()).response:
            pass
        await asyncio.wait_for(running.server.drain(0), PATIENCE_SECONDS)
        assert engine.running == 0
        for call in (stream, whole):
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
            metadata = dict(await call.trailing_metadata())
            assert (metadata["x-usage-completion-tokens"], metadata["grpc-retry-pushback-ms"]) == ("1", "1000")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await whole
        assert error_details(caught.value)["ErrorInfo"].reason == "SHUTTING_DOWN"


async def test_calls_are_taken_while_balancers_are_waited_for(tmp_path: Path) -> None:
    async with running_server(tmp_path, ScriptedEngine([b"ok"]), drain_delay_seconds=1.0) as running:
        draining = asyncio.create_task(running.server.drain(PATIENCE_SECONDS))
        health = running.health.Watch(health_pb2.HealthCheckRequest())
        while (await health.read()).status != health_pb2.HealthCheckResponse.NOT_SERVING:
            pass
        assert (await running.text.Generate(PROMPT)).response == "ok"
        await asyncio.wait_for(draining, PATIENCE_SECONDS)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.text.Generate(PROMPT)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_drain_does_not_wait_for_health_watchers(tmp_path: Path) -> None:
    async with running_server(tmp_path, ScriptedEngine()) as running:
        watchers = [running.health.Watch(health_pb2.HealthCheckRequest()) for _ in range(3)]
        for watcher in watchers:
            await watcher.read()
        await asyncio.wait_for(running.server.drain(10 * PATIENCE_SECONDS), PATIENCE_SECONDS)


RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.2s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


async def test_callers_that_retry_do_not_notice_a_restart(tmp_path: Path) -> None:
    """16 callers without a pause, one server after the other on the same port: not one call fails."""
    stop, answered = asyncio.Event(), 0

    async def call_on_and_on(running: RunningServer) -> None:
        nonlocal answered
        while not stop.is_set():
            assert (await running.text.Generate(PROMPT)).response == "ok"
            answered += 1

    options = [("grpc.service_config", json.dumps(RETRIES)), ("grpc.max_reconnect_backoff_ms", 200)]
    async with running_server(tmp_path, ScriptedEngine([b"ok"]), channel_options=options) as running:
        callers = [asyncio.create_task(call_on_and_on(running)) for _ in range(16)]
        await eventually(lambda: answered > 100, what="callers are at work")
        await running.server.drain(5)
        settings = Settings(address=running.address, bundle=tmp_path)
        second = Server(settings, read_bundle(tmp_path), ScriptedEngine([b"ok"]))
        await second.start()
        before = answered
        await eventually(lambda: answered > before + 100, what="callers go on at the second server")
        stop.set()
        await asyncio.gather(*callers)
        await second.drain(0)


async def test_connections_of_a_certain_age_are_closed_gently(tmp_path: Path) -> None:
    """A stream that is older than its connection may get goes on to its end; calls go to a new connection."""
    gate = asyncio.Event()
    async with running_server(tmp_path, ScriptedEngine([b"a", gate, b"b"]), max_connection_age_seconds=1) as running:
        stream = running.text.StreamGenerate(PROMPT)
        answer = asyncio.ensure_future(_text_of(stream))
        states = []
        while grpc.ChannelConnectivity.IDLE not in states:  # after the GOAWAY
            states.append(running.channel.get_state())
            await running.channel.wait_for_state_change(states[-1])
        gate.set()
        assert await answer == "ab"
        assert (await running.text.Generate(PROMPT, timeout=PATIENCE_SECONDS)).response == "ab"


async def _text_of(stream: Any) -> str:
    return "".join([response.response async for response in stream])


async def test_metadata_has_a_limit(tmp_path: Path) -> None:
    async with running_server(tmp_path, ScriptedEngine([b"ok"]), max_metadata_bytes=2_048) as running:
        assert (await running.text.Generate(PROMPT, metadata=(("x-small", "x" * 500),))).response == "ok"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.text.Generate(PROMPT, metadata=(("x-large", "x" * 4_000),))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("asked", "reason"), [("low", None), ("high", None), ("urgent", "INVALID_REQUEST"), ("", "INVALID_REQUEST")]
)
async def test_priority_is_asked_for_in_metadata(tmp_path: Path, asked: str, reason: str | None) -> None:
    async with running_server(tmp_path, ScriptedEngine([b"ok"])) as running:
        call = running.text.Generate(PROMPT, metadata=(("x-priority", asked),))
        if reason is None:
            assert (await call).response == "ok"
        else:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert error_details(caught.value)["ErrorInfo"].reason == reason


async def test_a_call_without_room_to_wait_is_told_when_to_come_again(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with running_server(tmp_path, ScriptedEngine([gate, b"ok"]), max_running=1, max_waiting=1) as running:
        first, second = running.text.Generate(PROMPT), running.text.Generate(PROMPT)
        await eventually(lambda: running.server.load.requests_waiting == 1, what="one runs and one waits")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.text.Generate(PROMPT)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        details = error_details(caught.value)
        assert details["ErrorInfo"].reason == "OVERLOADED"
        assert details["RetryInfo"].retry_delay.ToTimedelta().total_seconds() > 0
        gate.set()
        assert [(await each).response for each in (first, second)] == ["ok", "ok"]
