from pathlib import Path
from typing import Any

import pytest

from engine_build.errors import GgufError
from engine_build.llama_cpp.gguf_reader import read_gguf

from ..gguf_samples import CHATML_TEMPLATE, CONTROL_TOKENS, END_ID, NORMAL_TOKENS, write_gguf


def test_the_metadata_is_read(tmp_path: Path) -> None:
    model = read_gguf(write_gguf(tmp_path / "m.gguf"))
    assert (model.display_name, model.model_id, model.license) == ("Tiny Test Model", "tiny-test-model", "mit")
    assert (model.context_length, model.chat_template) == (2048, CHATML_TEMPLATE)
    # Two layers of two key-value heads of width 64/4, keys and values, two bytes each.
    assert model.cache_bytes_per_token == 2 * 2 * 16 * 2 * 2
    vocabulary = model.vocabulary
    assert vocabulary.tokens == (*CONTROL_TOKENS, *NORMAL_TOKENS)
    assert vocabulary.token_types[:4] == (3, 3, 3, 1)
    assert (vocabulary.model, vocabulary.pre_tokenizer, vocabulary.merges[0]) == ("gpt2", "smollm", "h e")
    assert (vocabulary.end_id, vocabulary.begin_id, vocabulary.padding_id) == (END_ID, None, None)
    assert vocabulary.token(vocabulary.end_id) == "<|im_end|>"
    assert vocabulary.token(None) == ""


@pytest.mark.parametrize(
    ("metadata", "model_id"),
    [
        (
            {"general.basename": "Meta-Llama-3", "general.size_label": "8B", "general.finetune": "Instruct"},
            "meta-llama-3-8b-instruct",
        ),
        ({"general.basename": "Llama-3.2", "general.size_label": "1B"}, "llama-3.2-1b"),
        ({"general.basename": "llama"}, "tiny-test-model"),
    ],
)
def test_the_model_id_is_a_slug(tmp_path: Path, metadata: dict[str, Any], model_id: str) -> None:
    assert read_gguf(write_gguf(tmp_path / "m.gguf", metadata=metadata)).model_id == model_id


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, {}),
        ({"general.sampling.temp": 0.6, "general.sampling.top_p": 0.9}, {"temperature": 0.6, "top_p": 0.9}),
        (
            {"general.sampling.top_k": 40, "general.sampling.penalty_repeat": 1.1},
            {"top_k": 40, "repetition_penalty": 1.1},
        ),
        ({"general.sampling.mirostat": 1}, {}),
    ],
)
def test_published_settings_are_taken_over(
    tmp_path: Path, metadata: dict[str, Any], expected: dict[str, float]
) -> None:
    assert read_gguf(write_gguf(tmp_path / "m.gguf", metadata=metadata)).generation_defaults == expected


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, False),
        ({"tokenizer.ggml.pre": "llama-bpe"}, True),
        ({"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.add_bos_token": False}, False),
        ({"tokenizer.ggml.add_bos_token": True}, True),
    ],
)
def test_who_adds_the_begin_token(tmp_path: Path, metadata: dict[str, Any], expected: bool) -> None:
    assert read_gguf(write_gguf(tmp_path / "m.gguf", metadata=metadata)).vocabulary.adds_begin_token is expected


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"architecture": "qwen2"}, "its architecture is 'qwen2'; only 'llama' is supported"),
        ({"with_weights": False}, "it has no weights"),
        ({"metadata": {"general.type": "adapter"}}, "it is an adapter, not a model; give it as --lora NAME=FILE"),
        ({"metadata": {"split.count": 3}}, "one of 3 parts"),
        ({"metadata": {"tokenizer.ggml.token_type": [1, 1]}}, "vocabulary is damaged: .* 2 token types"),
        ({"metadata": {"tokenizer.ggml.tokens": None}}, "vocabulary is damaged: 0 tokens"),
        ({"metadata": {"tokenizer.ggml.eos_token_id": 99999}}, "eos_token_id is 99999, beyond the vocabulary"),
        ({"metadata": {"tokenizer.chat_template": 7}}, r"tokenizer\.chat_template holds a int"),
    ],
)
def test_unsupported_files_are_refused(tmp_path: Path, arguments: dict[str, Any], text: str) -> None:
    path = write_gguf(tmp_path / "m.gguf", **arguments)
    with pytest.raises(GgufError, match=text) as caught:
        read_gguf(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.999])
def test_files_that_were_cut_off_are_refused(tmp_path: Path, kept: float) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(GgufError, match="is not a whole GGUF file"):
        read_gguf(path)


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04 a zip", b"GGUF", b"GGUF\x63\x00\x00\x00" + b"\x00" * 64, b"\x00" * 4096]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(GgufError, match="is not a whole GGUF file"):
        read_gguf(tmp_path / "m.gguf")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(GgufError, match=r"absent\.gguf: no such file"):
        read_gguf(tmp_path / "absent.gguf")
    with pytest.raises(GgufError, match="no such file"):
        read_gguf(tmp_path)
