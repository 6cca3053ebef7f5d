"""`python -m server` as its own process, as people run it: start, call from the command line, drain, kill."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from llamarpc.v1 import text_generation_pb2 as pb
from llamarpc.v1 import text_generation_pb2_grpc

from server.bundle import Bundle
from server.embedded import EmbeddedTriton
from tests.waiting import until

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server process that has said that it serves."""

    process: asyncio.subprocess.Process
    address: str
    output: list[str]


@asynccontextmanager
async def run_server(*arguments: str) -> AsyncIterator[Running]:
    """Starts `python -m server` on a free port and waits until it says that it serves."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server", "--address", "127.0.0.1:0", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=_ROOT,
    )
    output: list[str] = []
    assert process.stdout is not None
    try:
        while " served on " not in (output[-1] if output else "") and "serving " not in (output[-1] if output else ""):
            line = (await asyncio.wait_for(process.stdout.readline(), 120)).decode()
            assert line, f"the server ended: {''.join(output)}"
            output.append(line)
        address = output[-1].split(" on ")[1].split()[0].rstrip(".")
        yield Running(process=process, address=address, output=output)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_embedded_serves_the_command_line_client_and_drains(default_bundle: Bundle) -> None:
    async with run_server("--embedded") as server:
        client = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-m",
                "llamarpc",
                "--address",
                server.address,
                "--max-tokens",
                "20",
                "--temperature",
                "0",
            ),
            "Hi",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        answer, notes = await asyncio.wait_for(client.communicate(), 60)
        assert client.returncode == 0, notes
        assert "How can I" in answer.decode()
        assert "answer tokens" in notes.decode()

        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = text_generation_pb2_grpc.TextGenerationServiceStub(channel)
            running = stub.StreamGenerate(pb.GenerateRequest(prompt="Tell a story.", max_tokens=150, temperature=0))
            assert (await running.read()).HasField("started")
            server.process.send_signal(signal.SIGTERM)
            last = None
            while (message := await running.read()) is not grpc.aio.EOF:
                last = message
            assert last is not None
            assert last.HasField("finished"), "a running stream was cut by the drain"
            assert last.finished.usage.completion_tokens > 20
        assert await asyncio.wait_for(server.process.wait(), 30) == 0
        assert _tritons_of(server.process.pid) == []


async def test_a_killed_server_leaves_no_triton_behind(default_bundle: Bundle) -> None:
    async with run_server("--embedded") as server:
        tritons = _tritons_of(server.process.pid)
        assert tritons
        server.process.kill()
        await server.process.wait()
        await until(lambda: not any(_is_alive(pid) for pid in tritons), seconds=20, what="Triton is gone as well")


async def test_sigterm_without_triton_in_sight_ends_at_once(
    default_bundle: Bundle, real_triton: EmbeddedTriton
) -> None:
    async with run_server(
        *("--bundle", str(default_bundle.path), "--triton-address", real_triton.grpc_address)
    ) as server:
        server.process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(server.process.wait(), 10) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--bundle DIR"),
        (["--bundle", "/nowhere"], "/nowhere is no bundle"),
        (["--bundle", "x", "--drain-seconds", "soon"], "--drain-seconds is 'soon'"),
        (["--embeded"], "--embeded"),
    ],
)
async def test_a_wrong_start_is_one_line_and_exit_status_2(arguments: list[str], message: str) -> None:
    server = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "server", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=_ROOT,
    )
    assert server.returncode == 2
    assert server.stderr.startswith("server: error: ")
    assert message in server.stderr
    assert "Traceback" not in server.stderr


def _tritons_of(parent: int) -> list[int]:
    """Process ids of the Tritons below a process, and of their model processes."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with_parent = _parent_of(int(entry.name))
            if with_parent is not None:
                children.setdefault(with_parent, []).append(int(entry.name))
    found, left = [], [parent]
    while left:
        below = children.get(left.pop(), [])
        found += below
        left += below
    return found


def _parent_of(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
