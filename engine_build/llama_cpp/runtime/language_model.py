"""One GGUF model in memory with a fixed number of sequence slots: rows of tokens in, rows of logits out.

Knows llama.cpp; knows no requests, no sampling and no Triton. Not thread-safe: one thread owns it.
"""

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .c_declarations import GGML_TYPE_BF16, GGML_TYPE_F16
from .library import Library, LibraryError

_DECODE_FAILURES = {
    1: "no room in the key/value cache",
    2: "aborted",
    -1: "invalid batch",
    -2: "out of memory",
    -3: "computation failed",
}
_LONGEST_PIECE_BYTES = 256
_UNKNOWN = "unknown"


class Row(NamedTuple):
    """One token to compute: its slot, its position in that slot's sequence, and whether its logits are wanted."""

    token: int
    slot: int
    position: int
    wants_logits: bool


class DecodeError(RuntimeError):
    """llama_decode refused or failed a batch; the slots in it must be cleared before they are used again."""


class LanguageModel:
    """Weights, LoRA adapters, key/value cache and one reusable batch."""

    def __init__(
        self,
        library: Library,
        path: Path,
        *,
        slots: int,
        context_length: int,
        threads: int,
        rows_per_step: int,
        adapters: Mapping[int, Path] | None = None,
    ) -> None:
        """Load `path`. `context_length` is in tokens per slot; `rows_per_step` bounds the rows of one `decode`.

        `adapters` are LoRA files by the number that `decode` knows them by.

        Raises:
            LibraryError: llama.cpp cannot read a file, or there is no memory for the cache.
        """
        self._library = library
        self._model = library.llama_model_load_from_file(bytes(path), library.llama_model_default_params())
        if not self._model:
            raise LibraryError(f"llama.cpp cannot load {path.name}; set LLAMARPC_ENGINE_LOG=1 to see its own messages")
        self._check_context_length(context_length, path)
        # llama.cpp makes room for the adapters' share of the computation when the context is made, so they come first.
        self._adapters = {number: self._load_adapter(file) for number, file in (adapters or {}).items()}
        self._applied: int | str | None = None
        params = library.llama_context_default_params()
        params.n_seq_max = slots
        # Every slot has a cache of its own (kv_unified stays false): what other requests do cannot change the place,
        # and with it the rounding, of a sequence's entries.
        params.n_ctx = slots * context_length
        params.n_batch = params.n_ubatch = max(rows_per_step, slots)
        params.n_outputs_max = max(rows_per_step, slots)
        params.n_threads = params.n_threads_batch = threads
        # Where keys and values have one type, flash attention has a kernel of its own for a row that is computed alone
        # (from 256 cached tokens on) and another for 64 rows and more; results would depend on what else is computed.
        params.type_k, params.type_v = GGML_TYPE_F16, GGML_TYPE_BF16
        self._context = library.llama_init_from_model(self._model, params)
        if not self._context:
            raise LibraryError(
                f"llama.cpp cannot make a context of {slots} x {context_length} tokens for {path.name}: probably too "
                "little memory; lower parallel_requests or context_length"
            )
        self._memory = library.llama_get_memory(self._context)
        self._batch = library.llama_batch_init(int(params.n_batch), 0, 1)
        self._vocabulary = library.llama_model_get_vocab(self._model)
        self.vocabulary_size: int = library.llama_vocab_n_tokens(self._vocabulary)
        self.slots = slots
        self.context_length = context_length

    def decode(self, rows: Sequence[Row], adapter: int | None = None) -> None:
        """Compute all rows in one go, with one adapter or none; their logits stay valid until the next call.

        Raises:
            DecodeError: nothing of this batch may be used.
        """
        if adapter != self._applied:
            self._apply(adapter)
        batch = self._batch
        for index, (token, slot, position, wants_logits) in enumerate(rows):
            batch.token[index] = token
            batch.pos[index] = position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = slot
            batch.logits[index] = wants_logits
        batch.n_tokens = len(rows)
        status = self._library.llama_decode(self._context, batch)
        if status:
            raise DecodeError(
                f"llama.cpp could not compute a step: {_DECODE_FAILURES.get(status, 'failed')} ({status})"
            )

    def warm_up(self) -> None:
        """Read the weights in, so that the first request does not wait for the disk.

        Call it from the thread that will call `decode`, and from no other. llama.cpp's OpenMP keeps compute threads for
        every thread that calls it; with two sets of them there are more than cores, and OpenMP then sleeps instead of
        spinning at each of a step's hundreds of barriers: 24 ms a token where 10 are needed.
        """
        self.decode([Row(0, 0, 0, True)])
        self.clear(0)

    def logits(self, row: int) -> NDArray[np.float32]:
        """The logits [vocabulary] of a row of the last batch: llama.cpp's own memory, the caller may write to it."""
        pointer = self._library.llama_get_logits_ith(self._context, row)
        if not pointer:
            raise DecodeError(f"llama.cpp has no logits for row {row} of the last step")
        return np.ctypeslib.as_array(pointer, shape=(self.vocabulary_size,))

    def clear(self, slot: int) -> None:
        """Forget the slot's sequence. Nothing is kept for later requests."""
        self._library.llama_memory_seq_rm(self._memory, slot, -1, -1)

    def token_bytes(self) -> list[bytes]:
        """What each id stands for in a text; empty for the special ones. Asks llama.cpp once for each id."""
        special = self.special_ids()
        return [b"" if token in special else self._piece(token) for token in range(self.vocabulary_size)]

    def special_ids(self) -> frozenset[int]:
        """Ids that are never part of a text: the control tokens, and all that llama.cpp takes for the end of one."""
        is_control, is_end = self._library.llama_vocab_is_control, self._library.llama_vocab_is_eog
        ids = range(self.vocabulary_size)
        return frozenset(
            token for token in ids if is_control(self._vocabulary, token) or is_end(self._vocabulary, token)
        )

    def close(self) -> None:
        """Give all memory back, that of the adapters with the model's."""
        self._library.llama_batch_free(self._batch)
        self._library.llama_free(self._context)
        self._library.llama_model_free(self._model)

    def _load_adapter(self, file: Path) -> int:
        handle: int | None = self._library.llama_adapter_lora_init(self._model, bytes(file))
        if not handle:
            raise LibraryError(
                f"llama.cpp cannot load the LoRA adapter {file.name} (the line above says why); build the bundle again"
            )
        return handle

    def _apply(self, adapter: int | None) -> None:
        handles = [] if adapter is None else [self._adapters[adapter]]
        count = len(handles)
        self._applied = _UNKNOWN  # until it has worked; otherwise the next decode would not try again
        status = self._library.llama_set_adapters_lora(
            self._context, (ctypes.c_void_p * count)(*handles), count, (ctypes.c_float * count)(*[1.0] * count)
        )
        if status:
            raise DecodeError(f"llama.cpp could not apply the LoRA adapter {adapter} ({status})")
        self._applied = adapter

    def _piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(_LONGEST_PIECE_BYTES)
        size = self._library.llama_token_to_piece(self._vocabulary, token, buffer, len(buffer), 0, False)
        if size < 0:  # the negative of what it takes
            buffer = ctypes.create_string_buffer(-size)
            size = self._library.llama_token_to_piece(self._vocabulary, token, buffer, len(buffer), 0, False)
        return buffer.raw[:size]

    def _check_context_length(self, context_length: int, path: Path) -> None:
        trained = self._library.llama_model_n_ctx_train(self._model)
        if context_length > trained:
            raise LibraryError(f"context_length {context_length} is more than the {trained} tokens {path.name} knows")
