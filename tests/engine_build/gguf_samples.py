"""Writes small GGUF files: a byte-level vocabulary with a few merges, and small weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from tokenizers import pre_tokenizers

CHATML_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a test<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3_TEMPLATE = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    "+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
END_ID = 2
_MERGES = (("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "w"))
_BYTE_TOKENS = tuple(sorted(pre_tokenizers.ByteLevel.alphabet()))
NORMAL_TOKENS = _BYTE_TOKENS + tuple(left + right for left, right in _MERGES)


def write_gguf(
    path: Path,
    *,
    architecture: str = "llama",
    metadata: dict[str, Any] | None = None,
    control_tokens: Sequence[str] = CONTROL_TOKENS,
    user_tokens: Sequence[str] = (),
    template: str | None = CHATML_TEMPLATE,
    with_weights: bool = True,
    weights: Mapping[str, NDArray[Any]] | None = None,
) -> Path:
    """Writes a file of the given kind. `metadata` overrides keys of the tokenizer; None leaves a key out.

    `weights` are further tensors, in numpy's order of dimensions.
    """
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("Tiny Test Model")
    writer.add_license("mit")
    for key, number in _SHAPE.items():
        writer.add_uint32(f"{architecture}.{key}", number)
    tokens = [*control_tokens, *NORMAL_TOKENS, *user_tokens]
    types = [3] * len(control_tokens) + [1] * len(NORMAL_TOKENS) + [4] * len(user_tokens)
    values: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in _MERGES],
        "tokenizer.ggml.eos_token_id": END_ID,
        "tokenizer.chat_template": template,
        **(metadata or {}),
    }
    for key, value in values.items():
        _add(writer, key, value)
    if with_weights:
        writer.add_tensor("token_embd.weight", np.zeros(32, dtype=np.float32))
    for name, tensor in (weights or {}).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


_SHAPE = {
    "context_length": 2048,
    "block_count": 2,
    "embedding_length": 64,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
}


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    match value:
        case None:
            return
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)
