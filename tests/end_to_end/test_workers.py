"""Several worker processes on one port, before a real Triton with the scripted engine: kill, replace, drain."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from llamarpc.v1 import text_generation_pb2 as pb
from llamarpc.v1 import text_generation_pb2_grpc

from server.bundle import Bundle
from server.triton_processes import children
from tests.end_to_end.test_server_process import Running, run_server
from tests.triton_fixtures import run_triton, scripted_repository
from tests.waiting import until

OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
TOKENS = 400


@asynccontextmanager
async def two_workers(bundle: Bundle, folder: Path, *arguments: str, **script: Any) -> AsyncIterator[Running]:
    async with run_triton(scripted_repository(folder / "repository", **script), folder / "triton.log") as triton:
        where = ("--bundle", str(bundle.path), "--triton-address", triton.grpc_address)
        async with run_server(*where, "--workers", "2", *arguments) as server:
            yield server


async def stub_on(stack: AsyncExitStack, address: str) -> Any:
    """A stub on a connection of its own, so that the kernel chooses a worker for it."""
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options=OWN_CONNECTION))
    return text_generation_pb2_grpc.TextGenerationServiceStub(channel)


async def outcome(call: Any) -> tuple[grpc.StatusCode, str]:
    """Status and text of a stream, read to its end."""
    text = ""
    try:
        async for message in call:
            text += message.response
    except grpc.aio.AioRpcError as error:
        return error.code(), text
    return grpc.StatusCode.OK, text


async def test_a_killed_worker_takes_only_its_own_streams_and_is_replaced(
    numbers_bundle: Bundle, tmp_path: Path
) -> None:
    async with two_workers(numbers_bundle, tmp_path, delay_microseconds=5_000) as server, AsyncExitStack() as stack:
        workers = children(server.process.pid)
        assert len(workers) == 2
        stubs = [await stub_on(stack, server.address) for _ in range(16)]
        request = pb.GenerateRequest(prompt="1", max_tokens=TOKENS, seed=1)
        calls = [asyncio.create_task(outcome(stub.StreamGenerate(request))) for stub in stubs]
        await asyncio.sleep(0.5)  # all of them have begun; none is over
        os.kill(min(workers), signal.SIGKILL)
        ends = await asyncio.gather(*calls)
        codes = [code for code, _ in ends]
        assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}, "one worker had all the streams"
        whole = {text for code, text in ends if code is grpc.StatusCode.OK}
        assert len(whole) == 1, "streams of the other worker were altered"
        assert all(next(iter(whole)).startswith(text) for _, text in ends)

        await until(lambda: len(children(server.process.pid)) == 2, seconds=20, what="the worker has been replaced")
        short = pb.GenerateRequest(prompt="1", max_tokens=3)
        for _ in range(8):
            stub = await stub_on(stack, server.address)
            assert (await outcome(stub.StreamGenerate(short, wait_for_ready=True)))[0] is grpc.StatusCode.OK


async def test_a_drain_lets_the_streams_of_all_workers_finish(numbers_bundle: Bundle, tmp_path: Path) -> None:
    async with two_workers(numbers_bundle, tmp_path, delay_microseconds=5_000) as server, AsyncExitStack() as stack:
        workers = children(server.process.pid)
        stubs = [await stub_on(stack, server.address) for _ in range(12)]
        calls = [stub.StreamGenerate(pb.GenerateRequest(prompt="1", max_tokens=TOKENS, seed=1)) for stub in stubs]
        for call in calls:
            await call.wait_for_connection()
        server.process.send_signal(signal.SIGTERM)
        ends = await asyncio.gather(*map(outcome, calls))
        assert [code for code, _ in ends] == [grpc.StatusCode.OK] * len(calls)
        assert await asyncio.wait_for(server.process.wait(), 30) == 0
        assert not any(map(_is_alive, workers))


async def test_workers_end_with_a_supervisor_that_was_killed(numbers_bundle: Bundle, tmp_path: Path) -> None:
    async with two_workers(numbers_bundle, tmp_path) as server:
        workers = children(server.process.pid)
        server.process.kill()
        await server.process.wait()
        await until(lambda: not any(map(_is_alive, workers)), seconds=20, what="the workers are gone as well")


async def test_a_port_in_use_is_not_shared_in_silence(numbers_bundle: Bundle, tmp_path: Path) -> None:
    async with two_workers(numbers_bundle, tmp_path) as server:
        second = await asyncio.create_subprocess_exec(
            *("python", "-m", "server", "--bundle", str(numbers_bundle.path), "--workers", "2"),
            *("--address", server.address),
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await asyncio.wait_for(second.communicate(), 30)
        assert second.returncode == 2
        assert f"can't listen on {server.address}" in errors.decode()


@pytest.mark.parametrize("tokenizer", ["{}", "not JSON"])
async def test_workers_that_cannot_start_are_reported_once(
    numbers_bundle: Bundle, tmp_path: Path, tokenizer: str
) -> None:
    (tmp_path / "bundle.json").write_bytes((numbers_bundle.path / "bundle.json").read_bytes())
    (tmp_path / "tokenizer.json").write_text(tokenizer)
    server = await asyncio.create_subprocess_exec(
        *("python", "-m", "server", "--bundle", str(tmp_path), "--workers", "2", "--address", "127.0.0.1:0"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await asyncio.wait_for(server.communicate(), 30)
    assert server.returncode == 2
    assert "tokenizer.json" in errors.decode()
    assert "a worker could not start; what it printed above says why" in errors.decode()


def _is_alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
