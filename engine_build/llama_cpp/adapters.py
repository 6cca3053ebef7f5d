"""LoRA adapters as GGUF files: what the CPU engine can serve of them, checked against the model it is built for.

Stricter than llama.cpp's own loader, which takes tensors that then have no effect, and others that end the process at
the first request. Never reads weights. Keys as llama.cpp's convert_lora_to_gguf.py writes them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..bundle import sha256_of
from ..errors import GgufError
from .gguf_reader import GgufFile, GgufModel, Tensor, reading

_ARCHITECTURE = "llama"
_OUTPUT = "output.weight"
_MATRICES = re.compile(r"output\.weight|blk\.\d+\.(attn_q|attn_k|attn_v|attn_output|ffn_gate|ffn_up|ffn_down)\.weight")
_NUMBER_TYPES = ("F32", "F16", "BF16", "Q8_0")
_ALPHA = "adapter.lora.alpha"
_CONVERT = "convert it with llama.cpp's convert_lora_to_gguf.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One adapter of a bundle. `file_name` is its name there, beside the weights; in memory it takes `size_bytes`."""

    name: str
    task_id: int
    path: Path
    sha256: str
    size_bytes: int

    @property
    def file_name(self) -> str:
        return adapter_file_name(self.task_id)


def adapter_file_name(task_id: int) -> str:
    """The name in a bundle, beside the weights."""
    return f"lora-{task_id}.gguf"


def find_adapters(files: Mapping[str, Path]) -> tuple[Adapter, ...]:
    """The files with digests and task ids 1, 2, ..., otherwise unchecked. Raises GgufError for an unreadable one."""
    return tuple(_found(name, task_id, path) for task_id, (name, path) in enumerate(files.items(), start=1))


def _found(name: str, task_id: int, path: Path) -> Adapter:
    try:
        return Adapter(name=name, task_id=task_id, path=path, sha256=sha256_of(path), size_bytes=path.stat().st_size)
    except IsADirectoryError:
        raise GgufError(f"LoRA adapter {name}: {path} is a folder, not a GGUF file; {_CONVERT}") from None
    except OSError as error:
        raise GgufError(f"LoRA adapter {name}: {path} can't be read: {error.strerror}") from error


def check_adapter(adapter: Adapter, model: GgufModel) -> None:
    """Raises GgufError, naming file and tensor, where the engine can't apply the whole adapter to the model."""
    if adapter.path.suffix == ".safetensors":
        raise GgufError(f"LoRA adapter {adapter.name}: {adapter.path} is not a GGUF file; {_CONVERT}")
    try:
        with reading(adapter.path) as file:
            _check_metadata(file)
            pairs = _pairs(file)
            for base, (a, b) in pairs.items():
                _check_pair(base, a, b, model)
    except GgufError as error:
        raise GgufError(f"LoRA adapter {adapter.name}: {error}") from error


def _check_metadata(file: GgufFile) -> None:
    if (kind := file.text("general.type")) != "adapter":
        raise GgufError(f"it is a {kind or 'model'}, not an adapter; a model is given with --gguf")
    if (kind := file.text("adapter.type")) != "lora":
        raise GgufError(f"it is an adapter of type {kind!r}; only 'lora' is supported")
    if (architecture := file.text("general.architecture")) != _ARCHITECTURE:
        raise GgufError(f"it was made for the architecture {architecture!r}, the model's is {_ARCHITECTURE!r}")
    if file.has("adapter.alora.invocation_tokens"):
        raise GgufError(
            "it is an activated LoRA, which begins in the middle of a prompt; only plain ones are supported"
        )
    # llama.cpp ends the process where the type is another one.
    if file.has(_ALPHA) and (file.type_of(_ALPHA) != "FLOAT32" or not math.isfinite(file.decimal(_ALPHA) or 0.0)):
        raise GgufError(f"its key {_ALPHA} is not a finite 32-bit float; convert the adapter again")


def _pairs(file: GgufFile) -> dict[str, tuple[Tensor, Tensor]]:
    """The two matrices for each tensor of the model."""
    bases = {}
    for name in file.tensors:
        base, _, half = name.rpartition(".")
        if half not in ("lora_a", "lora_b"):
            raise GgufError(
                f"its tensor {name} would replace one of the model's (PEFT's modules_to_save), which the engine can't; "
                "train the adapter without it"
            )
        other = f"{base}.{'lora_b' if half == 'lora_a' else 'lora_a'}"
        if other not in file.tensors:
            raise GgufError(f"its tensor {name} lacks its other half {other}; convert the adapter again")
        bases[base] = (file.tensors[f"{base}.lora_a"], file.tensors[f"{base}.lora_b"])
    if not bases:
        raise GgufError("it has no tensors; convert the adapter again")
    return bases


def _check_pair(base: str, a: Tensor, b: Tensor, model: GgufModel) -> None:
    if not _MATRICES.fullmatch(base):
        raise GgufError(
            f"it changes {base}; the engine can only adapt attention and feed-forward matrices and the output: "
            "train the adapter without it"
        )
    for half, tensor in (("lora_a", a), ("lora_b", b)):
        if tensor.type not in _NUMBER_TYPES:
            raise GgufError(f"its tensor {base}.{half} is of type {tensor.type}; convert it with --outtype f16")
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[1] != b.shape[0]:
        raise GgufError(
            f"its tensors {base}.lora_a {list(a.shape)} and .lora_b {list(b.shape)} don't fit together; "
            "convert the adapter again"
        )
    if a.shape[1] < 1:
        raise GgufError(f"its tensors {base}.lora_a and .lora_b have rank 0; convert the adapter again")
    if (a.shape[0], b.shape[1]) != (shape := _shape_in(model, base)):
        raise GgufError(
            f"its tensors {base}.lora_a {list(a.shape)} and .lora_b {list(b.shape)} don't fit {list(shape)}, "
            f"the shape in {model.path.name}; it was made for another model"
        )


def _shape_in(model: GgufModel, base: str) -> tuple[int, ...]:
    if base in model.weight_shapes:
        return model.weight_shapes[base]
    if base == _OUTPUT:
        raise GgufError(
            f"it changes {base}, but {model.path.name} has tied embeddings: its output is token_embd.weight, which the "
            "engine can't adapt; train the adapter without it"
        )
    raise GgufError(f"it changes {base}, which {model.path.name} doesn't have; it was made for another model")
