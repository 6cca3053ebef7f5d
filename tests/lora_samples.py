"""Writes LoRA adapters as GGUF files: random matrices, as strong as a test wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

METADATA: Mapping[str, Any] = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 1.0}


def write_adapter(
    path: Path,
    tensors: Mapping[str, NDArray[Any]],
    *,
    architecture: str = "llama",
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Writes these tensors, in numpy's order of dimensions: lora_a [rank, in], lora_b [out, rank].

    `metadata` overrides keys; None leaves one out.
    """
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in {**METADATA, **(metadata or {})}.items():
        _add(writer, key, value)
    for name, tensor in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def pair(
    base: str, inputs: int, outputs: int, *, rank: int = 1, seed: int = 0, strength: float = 1.0
) -> dict[str, NDArray[np.float32]]:
    """The two matrices for one tensor of a model; on inputs of size 1 they add about `strength` to its outputs."""
    draw = np.random.default_rng([seed, inputs, outputs, *base.encode()]).standard_normal
    scale = (strength / np.sqrt(inputs * rank)) ** 0.5
    return {
        f"{base}.lora_a": (draw((rank, inputs)) * scale).astype(np.float32),
        f"{base}.lora_b": (draw((outputs, rank)) * scale).astype(np.float32),
    }


def write_adapter_for(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    seed: int,
    rank: int = 1,
    strength: float = 1.0,
    matrices: Sequence[str] = ("attn_v", "attn_output"),
) -> Path:
    """Writes an adapter of these matrices in every layer of a model, given the shapes of its tensors (inputs first).

    Of rank 1 by default: then llama.cpp's result for a row is the same bit for bit whether the row is computed alone or
    beside others. Higher ranks go through other kernels for one row than for several, which sum in another order.
    """
    tensors: dict[str, NDArray[Any]] = {}
    for name, shape in shapes.items():
        if name.split(".")[-2] in matrices:
            tensors |= pair(name, shape[0], shape[1], rank=rank, seed=seed, strength=strength)
    return write_adapter(path, tensors, metadata={"adapter.lora.alpha": float(rank)})


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    match value:
        case None:
            return
        case str():
            writer.add_string(key, value)
        case float():
            writer.add_float32(key, value)
        case int():
            writer.add_uint32(key, value)
        case _:
            writer.add_array(key, value)
