"""Two real Tritons behind one server: whichever is killed, hangs or comes back, every stream is whole and exact."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from llamarpc.v1 import text_generation_pb2 as pb

from server.bundle import Bundle
from server.embedded import EmbeddedTriton
from tests.end_to_end.conftest import Service, run_service
from tests.end_to_end.numbers_tokenizer import ids_of
from tests.end_to_end.test_faults import assert_unavailable_with_retry
from tests.scripted_engine import greedy_ids
from tests.triton_fixtures import run_triton, scripted_repository
from tests.waiting import until

STREAMS = 64


class Reading:
    """A stream that is read in the background."""

    def __init__(self, service: Service, request: pb.GenerateRequest) -> None:
        self.request = request
        self.text = ""
        self.finished: pb.Finished | None = None
        self._call = service.generation.StreamGenerate(request)
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while (message := await self._call.read()) is not grpc.aio.EOF:
            self.text += message.response
            if message.HasField("finished"):
                self.finished = message.finished


class Replicas:
    """Two Tritons with the same model."""

    def __init__(self, first: EmbeddedTriton, second: EmbeddedTriton, repository: Path) -> None:
        self.first = first
        self.second = second
        self._repository = repository

    @property
    def address(self) -> str:
        """Both as one gRPC target."""
        return f"ipv4:{self.first.grpc_address},{self.second.grpc_address}"

    async def kill(self, triton: EmbeddedTriton) -> None:
        """SIGKILL to all of it, and nobody starts it again."""
        await triton.stop(grace_seconds=0)

    async def start(self, triton: EmbeddedTriton) -> None:
        """On the ports that it had."""
        await triton.start(self._repository, ports=triton.ports)


@asynccontextmanager
async def run_replicas(repository: Path, logs: Path) -> AsyncIterator[Replicas]:
    async with (
        run_triton(repository, logs / "first.log") as first,
        run_triton(repository, logs / "second.log") as second,
    ):
        yield Replicas(first, second, repository)


@asynccontextmanager
async def scripted_replicas(bundle: Bundle, folder: Path, **script: int) -> AsyncIterator[tuple[Replicas, Service]]:
    """Two Tritons with the scripted engine, and a server that has found both."""
    async with run_replicas(scripted_repository(folder / "repository", greedy=1, **script), folder) as replicas:
        # Room for all streams and for those that look whether a replica is there.
        async with run_service(bundle, replicas.address, max_running=STREAMS + 8) as service:
            await service.server.wait_until_serving()
            for triton in (replicas.first, replicas.second):
                await found(service, triton)
            yield replicas, service


async def found(service: Service, triton: EmbeddedTriton) -> None:
    """Returns once new requests reach the Triton."""

    async def reached() -> bool:
        before = await served(triton)
        for _ in range(4):  # they go to the replicas in turn
            await service.generation.Generate(pb.GenerateRequest(prompt="anybody there?", max_tokens=1))
        return 0 <= before < await served(triton)

    await until(reached, seconds=20, what="the channel has found the replica")


async def served(triton: EmbeddedTriton) -> int:
    """How many requests it has answered; -1 where it can't be asked, as when it is just being started again."""

    def read() -> str:
        with urllib.request.urlopen(triton.metrics_url, timeout=5) as answer:
            return str(answer.read().decode())

    try:
        metrics = await asyncio.to_thread(read)
    except OSError:
        return -1
    return sum(int(count) for count in re.findall(r"^nv_inference_request_success\{.*\} (\d+)", metrics, re.MULTILINE))


def begin_streams(service: Service, *, max_tokens: int) -> list[Reading]:
    return [
        Reading(service, pb.GenerateRequest(prompt=f"stream {number}", max_tokens=max_tokens + number % 7))
        for number in range(STREAMS)
    ]


async def all_speak(streams: list[Reading]) -> None:
    await until(lambda: all(each.text for each in streams), seconds=20, what="all streams have begun")


async def assert_exact(service: Service, streams: list[Reading], *, within_seconds: float) -> None:
    """All end in time, and each with every one of its ids, once and in order."""
    await asyncio.wait_for(asyncio.gather(*(each.task for each in streams)), within_seconds)
    for each in streams:
        prompt_ids = await prompt_ids_of(service, each)
        assert_begins_exactly(each, prompt_ids)
        assert each.finished is not None
        assert each.finished.finish_reason == pb.FINISH_REASON_MAX_TOKENS
        assert len(ids_of(each.text)) == each.finished.usage.completion_tokens == each.request.max_tokens
        assert each.finished.usage.prompt_tokens == len(prompt_ids)


def assert_begins_exactly(stream: Reading, prompt_ids: list[int]) -> None:
    """What has come so far is what the script says, once and in order."""
    ids = ids_of(stream.text)
    assert ids == list(islice(greedy_ids(prompt_ids), len(ids)))


async def prompt_ids_of(service: Service, stream: Reading) -> list[int]:
    request = pb.CountTokensRequest(generate_request=stream.request, include_prompt=True)
    return list((await service.generation.CountTokens(request)).token_ids)


async def is_serving(service: Service) -> bool:
    answer = await health_pb2_grpc.HealthStub(service.channel).Check(health_pb2.HealthCheckRequest())
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@asynccontextmanager
async def serving_throughout(service: Service) -> AsyncIterator[None]:
    """Watches the health that the server tells, and fails where it was not SERVING all the time."""
    statuses: list[int] = []

    async def watch() -> None:
        async for answer in health_pb2_grpc.HealthStub(service.channel).Watch(health_pb2.HealthCheckRequest()):
            statuses.append(answer.status)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait([watching])
    assert statuses == [health_pb2.HealthCheckResponse.SERVING]


async def test_kill_9_of_one_replica(numbers_bundle: Bundle, tmp_path: Path) -> None:
    async with scripted_replicas(numbers_bundle, tmp_path, delay_microseconds=50_000) as (replicas, service):
        streams = begin_streams(service, max_tokens=100)
        await all_speak(streams)
        await replicas.kill(replicas.first)
        later = begin_streams(service, max_tokens=20)
        await assert_exact(service, streams + later, within_seconds=30)
        print(f"{service.engine.resumed} of {STREAMS} streams went on at the other replica")
        assert 0 < service.engine.resumed <= 2 * STREAMS
        assert await is_serving(service)


async def test_a_replica_that_hangs_and_is_restarted(numbers_bundle: Bundle, tmp_path: Path) -> None:
    async with scripted_replicas(numbers_bundle, tmp_path, delay_microseconds=50_000) as (replicas, service):
        streams = begin_streams(service, max_tokens=100)
        await all_speak(streams)
        pid = replicas.first.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            later = begin_streams(service, max_tokens=20)
            start = time.monotonic()
            async with serving_throughout(service):
                await assert_exact(service, streams + later, within_seconds=40)
            print(f"{service.engine.resumed} streams went on; the last ended after {time.monotonic() - start:.1f} s")
        finally:
            os.kill(pid, signal.SIGCONT)
        # Awake, this Triton mostly dies of callers that are gone, or never answers again. Who runs it restarts it.
        await replicas.kill(replicas.first)
        await replicas.start(replicas.first)
        await found(service, replicas.first)
        await assert_exact(service, begin_streams(service, max_tokens=30), within_seconds=20)


async def test_one_replica_is_restarted_then_the_other_killed(numbers_bundle: Bundle, tmp_path: Path) -> None:
    async with scripted_replicas(numbers_bundle, tmp_path, delay_microseconds=25_000) as (replicas, service):
        streams = begin_streams(service, max_tokens=4_000)
        await all_speak(streams)
        await replicas.kill(replicas.first)
        await replicas.start(replicas.first)
        await found(service, replicas.first)
        await replicas.kill(replicas.second)
        told = [len(each.text) for each in streams]
        await until(
            lambda: all(len(each.text) > before + 100 for each, before in zip(streams, told, strict=True)),
            seconds=20,
            what="all streams go on",
        )
        print(f"{service.engine.resumed} breaks of {STREAMS} streams")
        assert service.engine.resumed >= STREAMS
        for each in streams:
            each.task.cancel()
            assert_begins_exactly(each, await prompt_ids_of(service, each))


async def test_no_replica_left_is_told_soon_and_service_returns(numbers_bundle: Bundle, tmp_path: Path) -> None:
    async with scripted_replicas(numbers_bundle, tmp_path, delay_microseconds=20_000) as (replicas, service):
        streams = begin_streams(service, max_tokens=1_000)
        await all_speak(streams)
        await asyncio.gather(replicas.kill(replicas.first), replicas.kill(replicas.second))
        start = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await service.generation.Generate(pb.GenerateRequest(prompt="hi", max_tokens=5))
        assert_unavailable_with_retry(refused.value)
        ends = await asyncio.wait_for(asyncio.gather(*(each.task for each in streams), return_exceptions=True), 10)
        print(f"all was told after {time.monotonic() - start:.2f} s")
        assert time.monotonic() - start < 3
        for end in ends:
            assert isinstance(end, grpc.aio.AioRpcError)
            assert_unavailable_with_retry(end)

        await replicas.start(replicas.second)
        await until(lambda: is_serving(service), seconds=20, what="SERVING again")
        await assert_exact(service, begin_streams(service, max_tokens=20), within_seconds=20)


async def test_answers_of_the_real_model_do_not_change(default_bundle: Bundle, tmp_path: Path) -> None:
    """The CPU engine computes the same greedy tokens however a text is cut into prompt and answer."""
    topics = ("the sea", "bread", "winter", "an old library", "music", "the moon", "rain", "a small robot")
    requests = [
        pb.GenerateRequest(prompt=f"Write a short story about {topic}.", max_tokens=60, temperature=0.0)
        for topic in topics
    ]
    async with run_replicas(default_bundle.model_repository, tmp_path) as replicas:
        async with run_service(default_bundle, replicas.address) as service:
            await service.server.wait_until_serving()
            for triton in (replicas.first, replicas.second):
                await found(service, triton)
            undisturbed = await asyncio.gather(*(service.generation.Generate(request) for request in requests))
            streams = [Reading(service, request) for request in requests]
            await until(lambda: all(len(each.text) > 20 for each in streams), seconds=60, what="all streams have begun")
            await replicas.kill(replicas.first)
            await asyncio.wait_for(asyncio.gather(*(each.task for each in streams)), 120)
            print(f"{service.engine.resumed} of {len(streams)} streams went on at the other replica")
            assert service.engine.resumed > 0
            for stream, answer in zip(streams, undisturbed, strict=True):
                assert stream.text == answer.response
                assert stream.finished is not None
                assert stream.finished.usage == answer.usage
