"""The real model through ctypes: LoRA adapters and the vocabulary."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer

from engine_build.llama_cpp.download import DEFAULT_WEIGHTS, fetch
from engine_build.llama_cpp.gguf_reader import GgufModel, read_gguf
from engine_build.llama_cpp.runtime.language_model import DecodeError, LanguageModel, Row
from engine_build.llama_cpp.runtime.library import LibraryError, open_library
from engine_build.llama_cpp.tokenizer import build_tokenizer
from engine_build.spec import cache_dir_from
from tests.lora_samples import pair, write_adapter, write_adapter_for

# Fetches the model where the user's cache doesn't hold it.
pytestmark = pytest.mark.real_parts

PROMPT = list(range(300, 320))
SLOTS = 4
MATRICES = dict(enumerate(("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"), start=11))
Logits = NDArray[np.float32]


@pytest.fixture(scope="module")
def weights() -> Path:
    return fetch(DEFAULT_WEIGHTS, cache_dir_from())


@pytest.fixture(scope="module")
def file(weights: Path) -> GgufModel:
    return read_gguf(weights)


def load(weights: Path, adapters: dict[int, Path] | None = None) -> LanguageModel:
    return LanguageModel(
        open_library(), weights, slots=SLOTS, context_length=128, threads=1, rows_per_step=64, adapters=adapters
    )


@pytest.fixture(scope="module")
def plain(weights: Path) -> Iterator[LanguageModel]:
    model = load(weights)
    yield model
    model.close()


@pytest.fixture(scope="module")
def adapted(weights: Path, file: GgufModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LanguageModel]:
    """With 1 and 2, which are strong, 7, which adds nothing, and one more for each kind of matrix."""
    folder = tmp_path_factory.mktemp("adapters")
    adapters = {
        number: write_adapter_for(folder / f"{number}.gguf", file.weight_shapes, seed=number, strength=strength)
        for number, strength in {1: 0.5, 2: 0.5, 7: 0.0}.items()
    }
    for number, matrix in MATRICES.items():
        path = folder / f"{matrix}.gguf"
        adapters[number] = write_adapter_for(path, file.weight_shapes, seed=1, rank=2, matrices=(matrix,))
    model = load(weights, adapters)
    yield model
    model.close()


def logits_after_prompt(model: LanguageModel, adapter: int | None, *, slot: int = 0, piece: int = 16) -> Logits:
    last = len(PROMPT) - 1
    rows = [Row(token, slot, position, position == last) for position, token in enumerate(PROMPT)]
    for start in range(0, len(rows), piece):
        model.decode(rows[start : start + piece], adapter)
    logits = model.logits(last % piece).copy()
    model.clear(slot)
    return logits


def test_an_adapter_changes_the_logits_of_decodes_that_name_it_and_of_no_others(
    plain: LanguageModel, adapted: LanguageModel
) -> None:
    expected = logits_after_prompt(plain, None)
    found: dict[int | None, Logits] = {}
    for adapter in (None, 1, None, 2, 1, 7, 2, None, 7):
        logits = logits_after_prompt(adapted, adapter)
        assert np.array_equal(found.setdefault(adapter, logits), logits), adapter
    assert np.array_equal(found[None], expected)
    assert np.array_equal(found[7], expected)
    for adapter in (1, 2):
        assert np.isfinite(found[adapter]).all()
        assert np.abs(found[adapter] - expected).max() > 1
    assert not np.array_equal(found[1], found[2])


@pytest.mark.parametrize("piece", [1, 2, 3, 20])
def test_how_a_prompt_is_cut_makes_no_difference(adapted: LanguageModel, piece: int) -> None:
    for adapter in (None, 1):
        expected = logits_after_prompt(adapted, adapter)
        assert np.array_equal(logits_after_prompt(adapted, adapter, slot=2, piece=piece), expected)


def test_neither_cut_nor_neighbours_make_a_difference_to_a_long_prompt(weights: Path) -> None:
    """With two threads and more than 256 tokens llama.cpp has special kernels, which must not be taken."""
    model = LanguageModel(open_library(), weights, slots=SLOTS, context_length=512, threads=2, rows_per_step=96)
    prompt = [300 + index % 97 for index in range(260)]

    def logits(piece: int, neighbours: int = 0) -> Logits:
        for start in range(0, len(prompt), piece):
            own = [
                Row(prompt[position], 0, position, position == len(prompt) - 1)
                for position in range(start, min(start + piece, len(prompt)))
            ]
            others = [Row(500 + slot, slot, start // piece, False) for slot in range(1, 1 + neighbours)]
            model.decode([*own, *others])
        result = model.logits(len(own) - 1).copy()
        for slot in range(SLOTS):
            model.clear(slot)
        return result

    expected = logits(16)
    for piece, neighbours in ((1, 0), (16, 2), (63, 0), (64, 0), (90, 3)):
        assert np.array_equal(logits(piece, neighbours), expected), (piece, neighbours)
    model.close()


def test_sequences_with_different_adapters_live_side_by_side(adapted: LanguageModel) -> None:
    alone = {adapter: logits_after_prompt(adapted, adapter) for adapter in (None, 1, 2)}
    together: dict[int | None, Logits] = {}
    last = len(PROMPT) - 1
    for position, token in enumerate(PROMPT):
        for slot, adapter in enumerate(alone):
            adapted.decode([Row(token, slot, position, position == last)], adapter)
            if position == last:
                together[adapter] = adapted.logits(0).copy()
    for slot, (adapter, logits) in enumerate(together.items()):
        adapted.clear(slot)
        assert np.array_equal(logits, alone[adapter]), adapter


def test_all_matrices_that_a_build_takes_are_applied(adapted: LanguageModel) -> None:
    plain_logits = logits_after_prompt(adapted, None)
    for number, matrix in MATRICES.items():
        assert not np.array_equal(logits_after_prompt(adapted, number), plain_logits), matrix


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"not an adapter", r"cannot load the LoRA adapter wrong\.gguf"),
        (None, r"cannot load the LoRA adapter wrong\.gguf"),
    ],
)
def test_an_adapter_that_cannot_be_loaded_is_named(
    weights: Path, tmp_path: Path, content: bytes | None, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "wrong.gguf"
    if content is None:
        write_adapter(path, pair("blk.99.attn_q.weight", 8, 4))
    else:
        path.write_bytes(content)
    with pytest.raises(LibraryError, match=text):
        load(weights, {1: path})
    assert any(record.levelname == "ERROR" for record in caplog.records)


def test_token_bytes_are_those_of_the_vocabulary(file: GgufModel, plain: LanguageModel) -> None:
    """Against the tokenizer that the server decodes with."""
    vocabulary = file.vocabulary
    tokenizer = Tokenizer.from_str(build_tokenizer(vocabulary, control_tokens=set()))
    found, special = plain.token_bytes(), plain.special_ids()
    assert len(found) == plain.vocabulary_size == len(vocabulary.tokens)
    for token, piece in enumerate(found):
        if token in special:
            assert piece == b""
        else:
            assert piece
            assert tokenizer.decode([token], skip_special_tokens=False) == piece.decode("utf-8", "replace"), token


def test_special_ids_are_the_control_tokens(file: GgufModel, plain: LanguageModel) -> None:
    types = file.vocabulary.token_types
    assert plain.special_ids() == {token for token, type_ in enumerate(types) if type_ == 3}


def test_an_adapter_that_could_not_be_applied_is_tried_again(
    adapted: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = logits_after_prompt(adapted, 1)
    with monkeypatch.context() as patch:
        patch.setattr(adapted, "_library", FailingLibrary(adapted))
        with pytest.raises(DecodeError, match="could not apply the LoRA adapter 2"):
            adapted.decode([Row(1, 0, 0, True)], 2)
    assert np.array_equal(logits_after_prompt(adapted, 1), expected)


class FailingLibrary:
    """Takes all adapters away and says that it failed."""

    def __init__(self, model: LanguageModel) -> None:
        self._library = model._library

    def llama_set_adapters_lora(self, context: Any, *_: Any) -> int:
        self._library.llama_set_adapters_lora(context, (ctypes.c_void_p * 0)(), 0, (ctypes.c_float * 0)())
        return -1
