"""LoRA adapters through the whole service: built by engine_build, named by requests, many in flight together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from llamarpc.v1 import model_pb2
from llamarpc.v1 import text_generation_pb2 as pb

from engine_build.llama_cpp.build import build
from engine_build.llama_cpp.gguf_reader import read_gguf
from engine_build.spec import LlamaCppSpec
from server.bundle import Bundle, read_bundle
from tests.end_to_end.conftest import Service, run_service
from tests.lora_samples import write_adapter_for
from tests.triton_fixtures import cache_dir, run_triton

NAMES = ("", "poet", "pirate")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def adapted(default_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """The default model with two adapters."""
    folder = tmp_path_factory.mktemp("adapters")
    weights = default_bundle.model_repository / "tensorrt_llm" / "1" / "model.gguf"
    shapes = read_gguf(weights).weight_shapes
    adapters = {
        name: write_adapter_for(folder / f"{name}.gguf", shapes, seed=seed, strength=0.5)
        for seed, name in enumerate(NAMES[1:])
    }
    spec = LlamaCppSpec(
        out=folder / "bundle", gguf=weights, cache_dir=cache_dir(), adapters=adapters, context_length=1_024
    )
    await asyncio.to_thread(build, spec)
    bundle = read_bundle(folder / "bundle")
    async with run_triton(bundle.model_repository, folder / "triton.log") as triton:
        async with run_service(bundle, triton.grpc_address) as service:
            await service.server.wait_until_serving()
            yield service


def asked(adapter: str, *, seed: int = 1) -> pb.GenerateRequest:
    return pb.GenerateRequest(prompt=f"Tell me about day {seed}.", lora=adapter, max_tokens=16, seed=seed)


async def test_each_request_gets_its_own_adapter(adapted: Service, real: Service) -> None:
    """Sixteen in flight, none, one and the other mixed: each answer is the one it gets alone; no adapter, no change."""
    requests = [asked(NAMES[index % 3], seed=1 + index // 3) for index in range(16)]
    alone = [(await adapted.generation.Generate(request)).response for request in requests]
    together = await asyncio.gather(*(adapted.generation.Generate(request) for request in requests))
    assert [answer.response for answer in together] == alone
    for plain, poet, pirate in zip(alone[0::3], alone[1::3], alone[2::3], strict=False):
        assert len({plain, poet, pirate}) == 3, "an adapter changed nothing"
    plain_requests = requests[0::3]
    without = [(await real.generation.Generate(request)).response for request in plain_requests]
    assert without == alone[0::3], "an adapter changed an answer that did not name it"


async def test_models_show_their_adapters(adapted: Service, real: Service) -> None:
    model = (await adapted.models.GetModel(model_pb2.GetModelRequest())).model
    assert [adapter.name for adapter in model.adapters] == ["pirate", "poet"]
    assert model.capabilities.lora
    assert not (await real.models.GetModel(model_pb2.GetModelRequest())).model.capabilities.lora


async def test_an_unknown_adapter_is_not_found(adapted: Service, real: Service) -> None:
    for service, text in ((adapted, "there are pirate, poet"), (real, "it has none")):
        with pytest.raises(grpc.aio.AioRpcError, match=text) as caught:
            await service.generation.Generate(asked("nobody"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
