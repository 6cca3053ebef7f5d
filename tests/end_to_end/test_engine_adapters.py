"""LoRA adapters on the CPU engine: a real Triton, the real model, adapters that the test makes."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from tokenizers import Tokenizer

from engine_build.llama_cpp.build import build
from engine_build.llama_cpp.gguf_reader import read_gguf
from engine_build.spec import LlamaCppSpec
from server.bundle import Bundle, read_bundle
from server.embedded import EmbeddedTriton, TritonStartError
from server.triton_installation import assemble
from tests.lora_samples import write_adapter_for
from tests.triton_fixtures import EngineClient, cache_dir, run_triton, tensors_of

SAMPLED: dict[str, Any] = {"runtime_top_k": 0, "runtime_top_p": 1.0, "temperature": 1.0}
PROMPTS = ("What is the capital of France?", "Tell me about the number seven.", "Write one sentence about rain.", "Hi")


@pytest.fixture(scope="module")
def adapted_bundle(default_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The default model with two adapters, built as users build it."""
    folder = tmp_path_factory.mktemp("adapted")
    weights = folder / "SmolLM2.gguf"
    shutil.copyfile(default_bundle.model_repository / "tensorrt_llm" / "1" / "model.gguf", weights)
    shapes = read_gguf(weights).weight_shapes
    adapters = {
        name: write_adapter_for(folder / f"{name}.gguf", shapes, seed=seed, strength=0.5)
        for seed, name in enumerate(("pirate", "french"), start=1)
    }
    out = folder / "bundle"
    build(LlamaCppSpec(out=out, gguf=weights, cache_dir=folder / "cache", context_length=512, adapters=adapters))
    return read_bundle(out)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def adapted_engine(
    adapted_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EngineClient]:
    log = tmp_path_factory.mktemp("triton") / "triton.log"
    async with run_triton(adapted_bundle.model_repository, log) as triton, EngineClient(triton.grpc_address) as client:
        yield client


@pytest.fixture(scope="module")
def prompts(default_bundle: Bundle) -> list[list[int]]:
    tokenizer = Tokenizer.from_file(str(default_bundle.tokenizer_path))
    return [tokenizer.encode(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n").ids for text in PROMPTS]


def request(prompt: list[int], adapter: int | None, **values: Any) -> dict[str, Any]:
    return tensors_of(prompt, 12, streaming=True, return_log_probs=True, lora_task_id=adapter, **values)


async def answer(engine: EngineClient, tensors: dict[str, Any]) -> tuple[list[int], list[bytes]]:
    """The ids, and their log probabilities bit for bit."""
    responses = [response async for response in engine.stream(tensors)]
    ids = [token for response in responses for token in response.ids]
    return ids, [response.tensors["output_log_probs"].tobytes() for response in responses]


async def test_the_bundle_names_its_adapters(adapted_bundle: Bundle) -> None:
    assert adapted_bundle.adapters == {"pirate": 1, "french": 2}


async def test_each_adapter_changes_what_is_said(adapted_engine: EngineClient, prompts: list[list[int]]) -> None:
    answers = [
        [await answer(adapted_engine, request(prompt, adapter)) for adapter in (None, 1, 2)] for prompt in prompts
    ]
    assert any(len({tuple(ids) for ids, _ in said}) == 3 for said in answers)
    for said in answers:
        assert len({tuple(log_probs) for _, log_probs in said}) == 3


async def test_without_an_adapter_a_bundle_with_some_says_what_one_without_says(
    adapted_engine: EngineClient, real_triton: EmbeddedTriton, prompts: list[list[int]]
) -> None:
    async with EngineClient(real_triton.grpc_address) as plain_engine:
        for number, prompt in enumerate(prompts):
            tensors = request(prompt, None, seed=number, **(SAMPLED if number % 2 else {}))
            assert await answer(adapted_engine, tensors) == await answer(plain_engine, tensors)


async def test_results_do_not_depend_on_the_adapters_of_other_requests(
    adapted_engine: EngineClient, prompts: list[list[int]]
) -> None:
    """16 requests with and without adapters at once, more than there are slots, against each one alone: bit for bit."""
    inputs = [
        request(prompts[n // 4], (None, 1, 2, None)[n % 4], seed=n, **(SAMPLED if n % 3 else {})) for n in range(16)
    ]
    together = await asyncio.gather(*(answer(adapted_engine, tensors) for tensors in inputs))
    for tensors, expected in zip(inputs, together, strict=True):
        assert await answer(adapted_engine, tensors) == expected


@pytest.mark.parametrize("adapter", [0, 3, 2**64 - 1])
async def test_an_adapter_that_is_not_there_is_refused_by_number(
    adapted_engine: EngineClient, prompts: list[list[int]], adapter: int
) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=f"lora_task_id is {adapter}; this bundle has 1, 2") as caught:
        await adapted_engine.generate(request(prompts[0], adapter))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_adapter_file_that_is_gone_stops_the_start_and_is_named(
    adapted_bundle: Bundle, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(adapted_bundle.model_repository, repository, copy_function=_link)
    (repository / "tensorrt_llm" / "1" / "lora-2.gguf").unlink()
    triton = EmbeddedTriton(assemble(cache_dir()), log_path=tmp_path / "triton.log")
    with pytest.raises(TritonStartError, match=r"cannot load the LoRA adapter lora-2\.gguf"):
        await triton.start(repository)


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)
