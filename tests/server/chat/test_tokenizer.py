"""The vocabulary: bytes of every token, control tokens apart from text, and readable errors for other files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.chat.tokenizer import Tokenizer, TokenizerError
from tests.fakes import IM_END, IM_START, LLAMA3_SPECIALS, byte_tokenizer, llama3_tokenizer, tokenizer_json

BYTES = Tokenizer(byte_tokenizer(more=[b"\xf0\x9f", b"hello"]))
LLAMA3 = Tokenizer(llama3_tokenizer())


def test_bytes_of_every_token() -> None:
    assert BYTES.token_bytes == (*(bytes([byte]) for byte in range(256)), b"", b"", b"\xf0\x9f", b"hello")


def test_bytes_of_a_sparse_vocabulary() -> None:
    assert len(LLAMA3.token_bytes) == 128_010
    assert [LLAMA3.token_bytes[id_] for id_ in (9125, 882, 78191, 271)] == [b"system", b"user", b"assistant", b"\n\n"]
    assert {LLAMA3.token_bytes[id_] for id_ in LLAMA3_SPECIALS.values()} == {b""}
    assert LLAMA3.token_bytes[100_000] == b""  # a gap


def test_added_tokens_that_are_no_control_tokens_stand_for_their_text() -> None:
    definition = tokenizer_json({"a": 0, "▁b": 1}, specials={"<s>": 2}, plain_added={"é!": 3})
    assert Tokenizer(definition).token_bytes == (b"a", "▁b".encode(), b"", "é!".encode())


@pytest.mark.parametrize("special", ["<|im_start|>", "<|im_end|>"])
@pytest.mark.parametrize("around", ["{}", "a{}b", " {} ", "{}{}"])
def test_control_tokens_in_text_stay_text(special: str, around: str) -> None:
    text = around.replace("{}", special)
    assert BYTES.encode(text) == list(text.encode())
    assert BYTES.decode(BYTES.encode(text)) == text


def test_raw_text_has_control_tokens() -> None:
    assert BYTES.encode_raw("<|im_start|>a<|im_end|>") == [IM_START, *b"a", IM_END]
    assert BYTES.decode([IM_START, *b"a", IM_END]) == "<|im_start|>a<|im_end|>"
    assert BYTES.special_id("<|im_end|>") == IM_END


@given(st.text())
def test_encoding_is_lossless(text: str) -> None:
    for tokenizer in (BYTES, LLAMA3):
        ids = tokenizer.encode(text)
        assert b"".join(tokenizer.token_bytes[id_] for id_ in ids) == text.encode()
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("token", ["<|eot_id|>", "a", ""])
def test_unknown_control_token(token: str) -> None:
    with pytest.raises(TokenizerError, match="the vocabulary has no control token"):
        BYTES.special_id(token)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("{", "not a tokenizer definition", id="not_json"),
        pytest.param("{}", "not a tokenizer definition", id="empty"),
        pytest.param("[]", "not a tokenizer definition", id="a_list"),
        pytest.param(tokenizer_json({"a": 0}, specials={}, decoder="Fuse"), "decoder is 'Fuse'", id="not_byte_level"),
    ],
)
def test_unusable_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(TokenizerError, match=f"^{path}: .*{message}"):
        Tokenizer.load(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=f"^{tmp_path}/tokenizer.json: "):
        Tokenizer.load(tmp_path / "tokenizer.json")


def test_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TokenizerError, match=f"^{path}: "):
        Tokenizer.load(path)
