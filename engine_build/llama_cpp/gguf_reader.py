"""Reads from a GGUF file what a bundle needs: identity, context length, vocabulary, chat template. Never reads weights.

Knows no prompt formats and no tokenizer library. Keys are documented in github.com/ggml-org/ggml, docs/gguf.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from ..errors import GgufError

_ARCHITECTURE = "llama"
_KEY_OR_VALUE_BYTES = 2  # llama.cpp keeps both as 16-bit floats
_GENERATION_DEFAULTS = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_p": "top_p",
    "general.sampling.top_k": "top_k",
    "general.sampling.penalty_repeat": "repetition_penalty",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The tokenizer as the file describes it. Ids are None where the file gives none."""

    model: str
    pre_tokenizer: str
    tokens: tuple[str, ...]
    token_types: tuple[int, ...]
    merges: tuple[str, ...]
    begin_id: int | None
    end_id: int | None
    end_of_turn_id: int | None
    end_of_message_id: int | None
    padding_id: int | None
    adds_begin_token: bool

    def token(self, id_: int | None) -> str:
        """Text of a token, empty for None."""
        return "" if id_ is None else self.tokens[id_]


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufModel:
    """What a GGUF file says about its model."""

    path: Path
    display_name: str
    model_id: str
    license: str
    context_length: int
    vocabulary: Vocabulary
    chat_template: str
    """Jinja source; empty where the file has none."""
    generation_defaults: Mapping[str, float]
    cache_bytes_per_token: int
    """Memory that the engine needs for the keys and values of one token."""
    weight_shapes: Mapping[str, tuple[int, ...]]
    """Of every tensor, in GGUF's order: numbers in, numbers out."""


def read_gguf(path: Path) -> GgufModel:
    """Reads the metadata of a file. Raises GgufError where it is not a whole GGUF file of the Llama architecture."""
    with reading(path) as file:
        return _model_of(file, path)


@contextmanager
def reading(path: Path) -> Iterator[GgufFile]:
    """Opens a file, and puts its path before what is said to be wrong with it. Raises GgufError."""
    file = _opened(path)
    try:
        yield file
    except GgufError as error:
        raise GgufError(f"{path}: {error}") from error
    except (ValueError, LookupError) as error:
        raise GgufError(f"{path}: its metadata is damaged ({error})") from error


def _opened(path: Path) -> GgufFile:
    if not path.is_file():
        raise GgufError(f"{path}: no such file")
    try:
        return GgufFile(_Reader(path))
    except OSError as error:
        raise GgufError(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, LookupError, OverflowError, TypeError) as error:
        raise GgufError(
            f"{path} is not a whole GGUF file ({error}); it may have been cut off while it was copied"
        ) from error


class _Reader(gguf.GGUFReader):  # type: ignore[misc, unused-ignore]
    """GGUFReader on a plain array: slicing a memmap object once per token costs half of the reading time."""

    def _get(self, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self.data, np.memmap):
            self.data: Any = self.data.view(np.ndarray)
        return super()._get(*args, **kwargs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """What is said about one tensor. `shape` in GGUF's order, the innermost dimension first."""

    shape: tuple[int, ...]
    type: str


class GgufFile:
    """Typed access to the metadata, and the tensors by name."""

    def __init__(self, reader: gguf.GGUFReader) -> None:
        self._fields = reader.fields
        self.tensors = {
            tensor.name: Tensor(shape=tuple(map(int, tensor.shape)), type=tensor.tensor_type.name)
            for tensor in reader.tensors
        }

    def has(self, key: str) -> bool:
        return key in self._fields

    def type_of(self, key: str) -> str:
        """Name of the type of a value that is there."""
        return str(self._fields[key].types[0].name)

    def text(self, key: str) -> str:
        value = self._value(key, str)
        return "" if value is None else str(value)

    def number(self, key: str) -> int | None:
        value = self._value(key, int)
        return None if value is None else int(value)

    def required_number(self, key: str) -> int:
        value = self.number(key)
        if value is None:
            raise GgufError(f"it lacks the key {key}")
        return value

    def decimal(self, key: str) -> float | int | None:
        value: float | int | None = self._value(key, (int, float))
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        value = self._value(key, bool)
        return default if value is None else bool(value)

    def array(self, key: str) -> tuple[Any, ...]:
        value = self._value(key, list)
        return () if value is None else tuple(value)

    def _value(self, key: str, kind: type | tuple[type, ...]) -> Any:
        field = self._fields.get(key)
        if field is None:
            return None
        value = field.contents()
        if not isinstance(value, kind):
            raise GgufError(f"its key {key} holds a {type(value).__name__}, which is not what belongs there")
        return value


def _model_of(fields: GgufFile, path: Path) -> GgufModel:
    if fields.text("general.type") == "adapter":
        raise GgufError("it is an adapter, not a model; give it as --lora NAME=FILE, beside the model it was made for")
    architecture = fields.text("general.architecture")
    if architecture != _ARCHITECTURE:
        raise GgufError(f"its architecture is {architecture!r}; only {_ARCHITECTURE!r} is supported")
    if (parts := fields.number("split.count") or 1) > 1:
        raise GgufError(f"it is one of {parts} parts; join them with llama.cpp's `llama-gguf-split --merge` first")
    if not fields.tensors:
        raise GgufError("it has no weights, only a vocabulary")
    name = fields.text("general.name")
    return GgufModel(
        path=path,
        display_name=name or path.stem,
        model_id=_model_id(fields, path),
        license=fields.text("general.license"),
        context_length=fields.required_number("llama.context_length"),
        vocabulary=_vocabulary(fields),
        chat_template=fields.text("tokenizer.chat_template"),
        generation_defaults=_generation_defaults(fields),
        cache_bytes_per_token=_cache_bytes_per_token(fields),
        weight_shapes={name: tensor.shape for name, tensor in fields.tensors.items()},
    )


def _vocabulary(fields: GgufFile) -> Vocabulary:
    tokens = fields.array("tokenizer.ggml.tokens")
    types = fields.array("tokenizer.ggml.token_type")
    if not tokens or len(types) != len(tokens):
        raise GgufError(f"its vocabulary is damaged: {len(tokens)} tokens, {len(types)} token types")
    pre_tokenizer = fields.text("tokenizer.ggml.pre")
    return Vocabulary(
        model=fields.text("tokenizer.ggml.model"),
        pre_tokenizer=pre_tokenizer,
        tokens=tokens,
        token_types=types,
        merges=fields.array("tokenizer.ggml.merges"),
        begin_id=_token_id(fields, "bos", len(tokens)),
        end_id=_token_id(fields, "eos", len(tokens)),
        end_of_turn_id=_token_id(fields, "eot", len(tokens)),
        end_of_message_id=_token_id(fields, "eom", len(tokens)),
        padding_id=_token_id(fields, "padding", len(tokens)),
        # Where the file is silent llama.cpp goes by the pre-tokenizer, and Llama 3's has a begin token.
        adds_begin_token=fields.flag("tokenizer.ggml.add_bos_token", default=pre_tokenizer.startswith("llama")),
    )


def _token_id(fields: GgufFile, name: str, vocabulary_size: int) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    id_ = fields.number(key)
    if id_ is not None and not 0 <= id_ < vocabulary_size:
        raise GgufError(f"its key {key} is {id_}, beyond the vocabulary of {vocabulary_size} tokens")
    return id_


def _model_id(fields: GgufFile, path: Path) -> str:
    """Slug of the naming convention's parts where the file has them, else of its name, else of the file's name."""
    base, size = fields.text("general.basename"), fields.text("general.size_label")
    finetune = fields.text("general.finetune")
    parts = "-".join(part for part in (base, size, finetune) if part) if base and size else ""
    return _slug(parts) or _slug(fields.text("general.name")) or _slug(path.stem) or "model"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")


def _generation_defaults(fields: GgufFile) -> dict[str, float]:
    found = {name: fields.decimal(key) for key, name in _GENERATION_DEFAULTS.items()}
    # Written as 32-bit floats: 0.6 comes back as 0.60000002384.
    return {
        name: value if isinstance(value, int) else round(value, 6) for name, value in found.items() if value is not None
    }


def _cache_bytes_per_token(fields: GgufFile) -> int:
    heads = fields.required_number("llama.attention.head_count")
    key_value_heads = fields.number("llama.attention.head_count_kv") or heads
    width = fields.required_number("llama.embedding_length") // max(heads, 1)
    key_width = fields.number("llama.attention.key_length") or width
    value_width = fields.number("llama.attention.value_length") or width
    per_layer = key_value_heads * (key_width + value_width) * _KEY_OR_VALUE_BYTES
    return per_layer * fields.required_number("llama.block_count")
