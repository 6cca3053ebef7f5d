"""Which LoRA files are taken for a model, and what is said of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from engine_build.bundle import sha256_of
from engine_build.errors import GgufError
from engine_build.llama_cpp.adapters import check_adapter, find_adapters
from engine_build.llama_cpp.gguf_reader import GgufModel, read_gguf
from tests.lora_samples import pair, write_adapter

from ..gguf_samples import write_gguf

INPUTS, OUTPUTS = 8, 4
QUERY = "blk.0.attn_q.weight"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> GgufModel:
    weights = {
        QUERY: zeros(OUTPUTS, INPUTS),
        "blk.0.ffn_down.weight": zeros(INPUTS, OUTPUTS),
        "blk.0.attn_norm.weight": zeros(INPUTS),
        "blk.0.ffn_gate_exps.weight": zeros(2, OUTPUTS, INPUTS),
    }
    return read_gguf(write_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", weights=weights))


def zeros(*shape: int, number_type: Any = np.float32) -> NDArray[Any]:
    return np.zeros(shape, number_type)


def check(path: Path, model: GgufModel) -> None:
    (adapter,) = find_adapters({"pirate": path})
    check_adapter(adapter, model)


def both(base: str = QUERY, a: tuple[int, ...] = (2, INPUTS), b: tuple[int, ...] = (OUTPUTS, 2)) -> dict[str, Any]:
    return {f"{base}.lora_a": zeros(*a), f"{base}.lora_b": zeros(*b)}


@pytest.mark.parametrize(
    "tensors",
    [
        both(),
        both("blk.0.ffn_down.weight", (3, OUTPUTS), (INPUTS, 3)),
        both() | both("blk.0.ffn_down.weight", (1, OUTPUTS), (INPUTS, 1)),
        {name: tensor.astype(np.float16) for name, tensor in both().items()},
        pair(QUERY, INPUTS, OUTPUTS, rank=16),
    ],
)
@pytest.mark.parametrize("alpha", [None, 16.0])
def test_adapters_that_fit_are_taken(
    tmp_path: Path, model: GgufModel, tensors: dict[str, Any], alpha: float | None
) -> None:
    check(write_adapter(tmp_path / "a.gguf", tensors, metadata={"adapter.lora.alpha": alpha}), model)


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ({}, "it has no tensors"),
        (
            both() | {"blk.0.attn_norm.weight": zeros(8)},
            r"tensor blk\.0\.attn_norm\.weight would replace one of the model's",
        ),
        ({f"{QUERY}.lora_a": zeros(2, 8)}, r"tensor blk\.0\.attn_q\.weight\.lora_a lacks its other half .*\.lora_b"),
        ({f"{QUERY}.lora_b": zeros(2, 8)}, r"tensor blk\.0\.attn_q\.weight\.lora_b lacks its other half .*\.lora_a"),
        (
            both("blk.7.attn_q.weight"),
            r"changes blk\.7\.attn_q\.weight, which tiny\.gguf doesn't have; .*another model",
        ),
        (
            both("output.weight"),
            r"changes output\.weight, but tiny\.gguf has tied embeddings: its output is token_embd\.weight, which",
        ),
        (both(a=(0, INPUTS), b=(OUTPUTS, 0)), r"attn_q\.weight\.lora_a and \.lora_b have rank 0"),
        (both("token_embd.weight"), r"changes token_embd\.weight; the engine can only adapt attention"),
        (
            both("blk.0.attn_norm.weight", (1, 8), (1, 1)),
            r"changes blk\.0\.attn_norm\.weight; the engine can only adapt",
        ),
        (both("blk.0.ffn_gate_exps.weight"), r"changes blk\.0\.ffn_gate_exps\.weight; the engine can only adapt"),
        (both(a=(2, 9)), r"attn_q\.weight\.lora_a \[9, 2\] and \.lora_b \[2, 4\] don't fit \[8, 4\].* another model"),
        (both(b=(5, 2)), r"\.lora_b \[2, 5\] don't fit \[8, 4\], the shape in tiny\.gguf"),
        (both(a=(3, 8)), r"\.lora_a \[8, 3\] and \.lora_b \[2, 4\] don't fit together"),
        (both(a=(2, 2, 8)), r"\.lora_a \[8, 2, 2\] and \.lora_b \[2, 4\] don't fit together"),
        (both(a=(8,)), r"\.lora_a \[8\] and \.lora_b \[2, 4\] don't fit together"),
        (
            {f"{QUERY}.lora_a": zeros(2, 8, number_type=np.float64), f"{QUERY}.lora_b": zeros(4, 2)},
            r"tensor blk\.0\.attn_q\.weight\.lora_a is of type F64; convert it with --outtype f16",
        ),
    ],
)
def test_tensors_that_cannot_be_applied_are_named(
    tmp_path: Path, model: GgufModel, tensors: dict[str, Any], text: str
) -> None:
    path = write_adapter(tmp_path / "a.gguf", tensors)
    with pytest.raises(GgufError, match=text) as caught:
        check(path, model)
    assert str(caught.value).startswith(f"LoRA adapter pirate: {path}: it")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"metadata": {"general.type": None}}, "it is a model, not an adapter; a model is given with --gguf"),
        ({"metadata": {"general.type": "model"}}, "it is a model, not an adapter"),
        ({"metadata": {"adapter.type": "control_vector"}}, "an adapter of type 'control_vector'; only 'lora'"),
        ({"metadata": {"adapter.type": None}}, "an adapter of type ''"),
        ({"architecture": "qwen2"}, "made for the architecture 'qwen2', the model's is 'llama'"),
        ({"metadata": {"adapter.lora.alpha": 16}}, r"key adapter\.lora\.alpha is not a finite 32-bit float"),
        ({"metadata": {"adapter.lora.alpha": float("nan")}}, r"key adapter\.lora\.alpha is not a finite 32-bit float"),
        ({"metadata": {"adapter.alora.invocation_tokens": [1, 2]}}, "an activated LoRA"),
    ],
)
def test_other_kinds_of_adapters_are_refused(
    tmp_path: Path, model: GgufModel, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(GgufError, match=text):
        check(write_adapter(tmp_path / "a.gguf", both(), **options), model)


def test_files_that_are_no_adapters_are_refused(tmp_path: Path, model: GgufModel) -> None:
    with pytest.raises(GgufError, match=r"LoRA adapter pirate: .*absent\.gguf can't be read: No such file"):
        check(tmp_path / "absent.gguf", model)
    with pytest.raises(GgufError, match=r"is a folder, not a GGUF file; convert it with .*convert_lora_to_gguf\.py"):
        check(tmp_path, model)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(GgufError, match=r"safetensors is not a GGUF file; convert it with .*convert_lora_to_gguf\.py"):
        check(tmp_path / "adapter_model.safetensors", model)
    with pytest.raises(GgufError, match="it is a model, not an adapter"):
        check(write_gguf(tmp_path / "model.gguf"), model)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_files_that_were_cut_off_are_refused(tmp_path: Path, model: GgufModel, kept: float) -> None:
    path = write_adapter(tmp_path / "a.gguf", pair(QUERY, INPUTS, OUTPUTS, rank=64))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(GgufError, match="is not a whole GGUF file"):
        check(path, model)


def test_task_ids_follow_the_order(tmp_path: Path) -> None:
    paths = {
        name: write_adapter(tmp_path / f"{name}.gguf", pair(QUERY, 8, 4, seed=at)) for at, name in enumerate("zab")
    }
    found = find_adapters(paths)
    assert [(each.name, each.task_id, each.file_name) for each in found] == [
        ("z", 1, "lora-1.gguf"),
        ("a", 2, "lora-2.gguf"),
        ("b", 3, "lora-3.gguf"),
    ]
    assert [each.sha256 for each in found] == [sha256_of(path) for path in paths.values()]
    assert [each.size_bytes for each in found] == [path.stat().st_size for path in paths.values()]


def test_the_sample_is_what_the_converter_writes() -> None:
    """The keys that llama.cpp's converter uses, so that the samples don't drift from them."""
    assert (gguf.Keys.General.TYPE, gguf.Keys.Adapter.TYPE) == ("general.type", "adapter.type")
    assert (gguf.Keys.Adapter.LORA_ALPHA, gguf.GGUFType.ADAPTER) == ("adapter.lora.alpha", "adapter")
