"""Real Tritons for end-to-end tests: one with the real model, one with the scripted engine, both with a real server.

All these tests run in one pytest-xdist worker (the Tritons would fight for the cores) and on one event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import pytest
import pytest_asyncio
from llamarpc.v1 import model_pb2_grpc, text_generation_pb2_grpc

from server.bundle import Bundle, read_bundle
from server.chat.tokenizer import Tokenizer
from server.config import Settings
from server.default_bundle import build_default_bundle
from server.embedded import EmbeddedTriton
from server.grpc_server import Server
from server.triton.engine import TritonEngine
from server.triton.resume import ResumingEngine
from tests.end_to_end.numbers_tokenizer import write_numbers_bundle
from tests.triton_fixtures import cache_dir, run_triton, scripted_repository

_HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is end to end, in one worker and on one loop."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.end_to_end)
            item.add_marker(pytest.mark.xdist_group("triton"))
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A running server, how to call it, and the engine behind it."""

    address: str
    channel: grpc.aio.Channel
    generation: text_generation_pb2_grpc.TextGenerationServiceStub
    models: model_pb2_grpc.ModelServiceStub
    bundle: Bundle
    tokenizer: Tokenizer
    engine: ResumingEngine
    server: Server


@asynccontextmanager
async def run_service(
    bundle: Bundle, triton_address: str, *, engine_class: type[TritonEngine] = TritonEngine, **settings: object
) -> AsyncIterator[Service]:
    """A server on a free port in front of one Triton or several, and a channel to it. Does not wait for the engine."""
    triton_engine = engine_class(triton_address, model_name="tensorrt_llm", context_length=bundle.context_length)
    engine = ResumingEngine(triton_engine)
    values = {"address": "127.0.0.1:0", "bundle": bundle.path, **settings}
    server = Server(Settings(**values), bundle, engine)  # type: ignore[arg-type]
    address = await server.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield Service(
                address=address,
                channel=channel,
                generation=text_generation_pb2_grpc.TextGenerationServiceStub(channel),
                models=model_pb2_grpc.ModelServiceStub(channel),
                bundle=bundle,
                tokenizer=Tokenizer.load(bundle.tokenizer_path),
                engine=engine,
                server=server,
            )
    finally:
        await server.drain(0)
        await engine.aclose()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def default_bundle() -> Bundle:
    """The default model's bundle, built in the user's cache folder where it is missing."""
    return read_bundle(await build_default_bundle(cache_dir()))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def real_triton(
    default_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EmbeddedTriton]:
    """Triton with the real model on the CPU engine."""
    log = tmp_path_factory.mktemp("real") / "triton.log"
    async with run_triton(default_bundle.model_repository, log) as triton:
        yield triton


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def real(default_bundle: Bundle, real_triton: EmbeddedTriton) -> AsyncIterator[Service]:
    """A server in front of the real model."""
    async with run_service(default_bundle, real_triton.grpc_address) as service:
        await service.server.wait_until_serving()
        yield service


@pytest.fixture(scope="session")
def numbers_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose vocabulary writes each of the scripted engine's ids as its number."""
    folder = tmp_path_factory.mktemp("numbers")
    write_numbers_bundle(folder)
    return read_bundle(folder)


ScriptedService = Callable[..., AbstractAsyncContextManager[Service]]


@pytest.fixture
def scripted(numbers_bundle: Bundle, tmp_path: Path) -> ScriptedService:
    """Starts a real Triton with the scripted engine and a server in front; keywords go to the script."""

    @asynccontextmanager
    async def run(**script: object) -> AsyncIterator[Service]:
        repository = scripted_repository(tmp_path / "repository", **script)
        async with run_triton(repository, tmp_path / "triton.log") as triton:
            async with run_service(numbers_bundle, triton.grpc_address) as service:
                await service.server.wait_until_serving()
                yield service

    return run
