"""The embedded Triton: put together, started, watched, stopped. Real processes, with the scripted engine as model."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import find_libpython
import grpc.aio
import pytest
import pytest_asyncio

from server import triton_installation
from server.embedded import EmbeddedTriton, TritonStartError
from server.triton_installation import EmbeddedUnavailable, assemble
from server.triton_ports import free_ports
from tests.scripted_engine import scripted_ids
from tests.triton_fixtures import EngineClient, cache_dir, read_response, run_triton, scripted_repository, tensors_of
from tests.waiting import until

pytestmark = [pytest.mark.end_to_end, pytest.mark.xdist_group("triton")]

_PARENT = """
import asyncio, sys
from pathlib import Path
from server.embedded import EmbeddedTriton
from server.triton_installation import assemble

async def main(cache, repository, log):
    triton = EmbeddedTriton(assemble(Path(cache)), log_path=Path(log))
    await triton.start(Path(repository))
    print(triton.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return scripted_repository(tmp_path / "repository")


@pytest_asyncio.fixture
async def triton(repository: Path, tmp_path: Path) -> AsyncIterator[EmbeddedTriton]:
    triton = EmbeddedTriton(assemble(cache_dir()), log_path=tmp_path / "triton.log")
    await triton.start(repository)
    yield triton
    await triton.stop()


def group_members(group: int) -> list[int]:
    """The live processes of a process group: Triton and its models' processes."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _parent, its_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(its_group) == group and state != "Z":
                members.append(int(entry.name))
    return members


def regions(pid: int) -> list[str]:
    return [path.name for path in Path("/dev/shm").glob(f"llamarpc_{pid}_*")]


def listening_addresses(pid: int) -> set[str]:
    """Local addresses (hexadecimal) on which a process listens."""
    inodes = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir() if entry.is_symlink()}
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    rows += [line.split() for line in Path(f"/proc/{pid}/net/tcp6").read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes}


async def answers(triton: EmbeddedTriton) -> bool:
    async with EngineClient(triton.grpc_address) as client:
        return await client.generate(tensors_of([1, 2], 3, streaming=True)) == scripted_ids([1, 2], 0, 3)


async def test_assemble_makes_a_whole_folder_once(tmp_path: Path) -> None:
    cache = tmp_path / "not" / "yet" / "there"
    installations = await asyncio.gather(*(asyncio.to_thread(assemble, cache) for _ in range(3)))
    assert installations[0] == installations[1] == installations[2]
    installation = installations[0]
    backend = installation.backend_directory / "python"
    assert os.access(installation.program, os.X_OK)
    assert os.access(backend / "triton_python_backend_stub", os.X_OK)
    assert (backend / "libtriton_python.so").is_file()
    assert [path.name for path in cache.iterdir()] == [installation.backend_directory.parent.name]
    before = installation.program.stat().st_mtime_ns
    assert assemble(cache) == installation
    assert installation.program.stat().st_mtime_ns == before


def _wrong_machine(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(platform, "machine", lambda: "aarch64")


def _wrong_system(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(platform, "system", lambda: "Darwin")


def _old_glibc(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(platform, "libc_ver", lambda: ("glibc", "2.31"))


def _musl(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(platform, "libc_ver", lambda: ("", ""))


def _no_wheel(patch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    patch.setattr(metadata, "version", missing)


def _no_libpython(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(find_libpython, "find_libpython", lambda: None)


def _no_finder(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "find_libpython", None)


def _new_python(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(triton_installation, "_python_version", lambda: "3.99")


def _small_shared_memory(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(triton_installation, "_SHARED_MEMORY_NEEDED_BYTES", 1 << 60)


@pytest.mark.parametrize(
    ("break_it", "text"),
    [
        (_wrong_machine, r"Linux x86-64 only, this is Linux aarch64"),
        (_wrong_system, r"Linux x86-64 only, this is Darwin x86_64"),
        (_old_glibc, r"needs glibc 2\.35 or newer.*glibc 2\.31"),
        (_musl, r"needs glibc 2\.35 or newer.*another libc"),
        (_no_wheel, r"nvidia-pytriton is not installed: pip install 'llamarpc\[embedded\]'"),
        (_no_libpython, rf"apt-get install libpython3\.{sys.version_info.minor}"),
        (_no_finder, r"find-libpython is not installed: pip install 'llamarpc\[embedded\]'"),
        (_new_python, r"Python 3\.10 to 3\.12, this is 3\.99"),
        (_small_shared_memory, r"/dev/shm has \d+ MiB free.*--shm-size"),
    ],
)
def test_what_is_missing_is_said(
    break_it: Callable[[pytest.MonkeyPatch], None], text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    break_it(monkeypatch)
    with pytest.raises(EmbeddedUnavailable, match=text):
        assemble(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EmbeddedUnavailable, match=r"cannot put Triton together in .*choose a writable folder"):
        assemble(tmp_path / "file")


async def test_starts_quickly_on_loopback_only_and_answers(triton: EmbeddedTriton) -> None:
    assert triton.pid is not None
    assert await answers(triton)
    assert listening_addresses(triton.pid) <= {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, mapped too
    assert len({triton.ports.grpc, triton.ports.http, triton.ports.metrics}) == 3


async def test_stop_leaves_nothing(repository: Path, tmp_path: Path) -> None:
    triton = EmbeddedTriton(assemble(cache_dir()), log_path=tmp_path / "triton.log")
    await triton.stop()
    progress: list[float] = []
    await triton.start(repository, on_progress=progress.append)
    assert progress
    assert progress == sorted(progress)
    group = triton.pid
    assert group is not None
    assert len(group_members(group)) >= 2
    before = set(regions(os.getpid()))
    assert before
    await triton.stop()
    await triton.stop()
    assert triton.pid is None
    assert not group_members(group)
    assert len(regions(os.getpid())) < len(before)


async def test_two_at_once(triton: EmbeddedTriton, repository: Path, tmp_path: Path) -> None:
    other = EmbeddedTriton(assemble(cache_dir()), log_path=tmp_path / "other.log")
    await other.start(repository)
    try:
        assert all(await asyncio.gather(answers(triton), answers(other)))
    finally:
        await other.stop()
    assert await answers(triton)


async def test_killed_triton_comes_back_on_the_same_ports(
    triton: EmbeddedTriton, caplog: pytest.LogCaptureFixture
) -> None:
    ports, first = triton.ports, triton.pid
    assert first is not None
    for number in (1, 2):
        pid = triton.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda pid=pid: triton.pid not in (pid, None), seconds=10, what="a new process")  # type: ignore[misc]
        await until(lambda number=number: _came_back(caplog) == number, seconds=20, what="it is ready")  # type: ignore[misc]
        assert not group_members(pid)
        assert await answers(triton)
    assert triton.ports == ports
    assert triton.restarts == 2
    assert any("signal SIGKILL" in record.message for record in caplog.records if record.levelno == logging.ERROR)


def _came_back(caplog: pytest.LogCaptureFixture) -> int:
    return sum("Triton is back" in record.message for record in caplog.records)


async def test_a_killed_process_of_a_model_breaks_its_streams_and_all_comes_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the watch the streams would hang for ever, and Triton would go on calling the model ready."""
    repository = scripted_repository(tmp_path / "repository", delay_microseconds=5000, endless=1)
    async with run_triton(repository, tmp_path / "triton.log") as triton, EngineClient(triton.grpc_address) as client:
        first = triton.pid
        assert first is not None
        (stub,) = set(group_members(first)) - {first}
        call = await client.open(tensors_of([1, 2], 1, streaming=True))
        await call.read()
        os.kill(stub, signal.SIGKILL)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(_read_on(call), 5)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await until(lambda: _came_back(caplog) == 1, seconds=20, what="it is ready")
        assert triton.restarts == 1
        assert not group_members(first)
        call = await client.open(tensors_of([1, 2], 1, streaming=True))
        assert read_response(await call.read()).ids == scripted_ids([1, 2], 0, 1)
        call.cancel()
    assert any(f"(pid {stub})" in record.message for record in caplog.records if record.levelno == logging.ERROR)


async def _read_on(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_given_ports_are_used_and_no_others(repository: Path, tmp_path: Path) -> None:
    ports = free_ports()
    triton = EmbeddedTriton(assemble(cache_dir()), log_path=tmp_path / "triton.log")
    with socket.create_server(("127.0.0.1", ports.grpc)):
        with pytest.raises(TritonStartError, match=r"Triton ended with exit code 1"):
            await triton.start(repository, ports=ports)
    await triton.start(repository, ports=ports)
    try:
        assert triton.ports == ports
        assert await answers(triton)
    finally:
        await triton.stop()


async def test_the_log_of_the_run_before_is_kept(repository: Path, tmp_path: Path) -> None:
    log = tmp_path / "triton.log"
    for name in ("first run", "second run"):
        (repository / "tensorrt_llm" / "1" / "model.py").write_text(f"raise OSError('{name}')\n")
        with pytest.raises(TritonStartError, match=name):
            await EmbeddedTriton(assemble(cache_dir()), log_path=log).start(repository)
    assert "second run" in log.read_text()
    assert "first run" not in log.read_text()
    assert "first run" in (tmp_path / "triton.log.1").read_text()


async def test_dies_with_a_killed_parent(repository: Path, tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PARENT, str(cache_dir()), str(repository), str(tmp_path / "triton.log")),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert parent.stdout is not None
    group = int(await asyncio.wait_for(parent.stdout.readline(), 60))
    assert len(group_members(group)) >= 2
    parent.kill()
    await parent.wait()
    await until(lambda: not group_members(group), seconds=10, what="Triton and its models' processes have ended")
    assert not regions(parent.pid)


async def test_a_model_that_cannot_load_shows_why(repository: Path, tmp_path: Path) -> None:
    (repository / "tensorrt_llm" / "1" / "model.py").write_text("raise OSError('no such weights')\n")
    triton = EmbeddedTriton(assemble(cache_dir()), log_path=tmp_path / "triton.log")
    with pytest.raises(TritonStartError, match=r"(?s)Triton ended with exit code 1; the end of .*no such weights"):
        await triton.start(repository)
    assert triton.pid is None


async def test_a_model_that_takes_too_long_is_given_up(repository: Path, tmp_path: Path) -> None:
    (repository / "tensorrt_llm" / "1" / "model.py").write_text("import threading\nthreading.Event().wait()\n")
    triton = EmbeddedTriton(assemble(cache_dir()), log_path=tmp_path / "triton.log")
    with pytest.raises(TritonStartError, match=r"not ready within 1 s"):
        await triton.start(repository, timeout_seconds=1)
    assert triton.pid is None


async def test_cancelled_start_leaves_nothing(repository: Path, tmp_path: Path) -> None:
    (repository / "tensorrt_llm" / "1" / "model.py").write_text("import threading\nthreading.Event().wait()\n")
    triton = EmbeddedTriton(assemble(cache_dir()), log_path=tmp_path / "triton.log")
    starting = asyncio.create_task(triton.start(repository))
    await until(lambda: triton.pid is not None, seconds=10, what="the process is there")
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert triton.pid is None


def test_ports_before_start_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="has not been started"):
        _ = EmbeddedTriton(assemble(cache_dir()), log_path=tmp_path / "log").ports
