"""Token ids to text: the same however the bytes are cut into tokens, and never half a character."""

from __future__ import annotations

from itertools import combinations_with_replacement

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.chat.detokenizer import Detokenizer
from server.chat.tokenizer import Tokenizer
from tests.fakes import byte_tokenizer

TEXT = "aé中🎉e\u0301!"
BYTE_TOKENS = [bytes([byte]) for byte in range(256)]


def pieces_of(tokens: list[bytes]) -> list[str]:
    detokenizer = Detokenizer(tokens)
    return [detokenizer.feed(id_) for id_ in range(len(tokens))]


def pieces_of_bytes(content: bytes) -> list[str]:
    detokenizer = Detokenizer(BYTE_TOKENS)
    return [detokenizer.feed(byte) for byte in content]


def test_every_two_cuts_give_the_same_text() -> None:
    content = TEXT.encode()
    for first, second in combinations_with_replacement(range(len(content) + 1), 2):
        pieces = pieces_of([content[:first], content[first:second], content[second:]])
        assert "".join(pieces) == TEXT
        assert pieces[0] == content[:first].decode(errors="ignore"), "whole characters are shown at once"


def test_every_byte_alone() -> None:
    pieces = pieces_of_bytes(TEXT.encode())
    assert "".join(pieces) == TEXT
    assert all(len(piece) <= 1 for piece in pieces)


@given(st.characters(codec="utf-8"))
@example("\x00")
@example("\x7f")
@example("\ufffd")
@example("\uffff")
@example("\U0010ffff")
def test_every_character_comes_out_with_its_last_byte(character: str) -> None:
    assert pieces_of_bytes(character.encode()) == [*[""] * (len(character.encode()) - 1), character]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"\xff", "\ufffd", id="never_a_byte_of_utf8"),
        pytest.param(b"a\x80b", "a\ufffdb", id="continuation_alone"),
        pytest.param(b"\xc3(", "\ufffd(", id="cut_off_by_ascii"),
        pytest.param(b"\xe4\xb8\xe4\xb8\xad", "\ufffd中", id="cut_off_by_a_character"),
        pytest.param(b"\xf0\x9f\x8e\xc3\xa9", "\ufffdé", id="three_of_four_bytes"),
        pytest.param(b"\xed\xa0\x80", "\ufffd" * 3, id="surrogate"),
        pytest.param(b"\xc0\xaf", "\ufffd" * 2, id="overlong"),
        pytest.param(b"\xf4\x90\x80\x80", "\ufffd" * 4, id="above_the_last_code_point"),
    ],
)
def test_invalid_bytes_become_replacement_characters(content: bytes, expected: str) -> None:
    assert "".join(pieces_of_bytes(content)) == expected


@pytest.mark.parametrize("length", range(1, 4))
def test_unfinished_last_character_is_dropped(length: int) -> None:
    assert "".join(pieces_of_bytes(b"ok " + "🎉".encode()[:length])) == "ok "


@given(st.lists(st.sampled_from([*"aé中🎉".encode(), 0x80, 0xBF, 0xC0, 0xED, 0xA0, 0xF4, 0x90, 0xFF])).map(bytes))
def test_same_as_the_tokenizers_own_decoding(content: bytes) -> None:
    expected = Tokenizer(byte_tokenizer()).decode(list(content))
    text = "".join(pieces_of_bytes(content))
    assert expected in (text, text + "\ufffd")
    if expected != text:  # then only because the last character is unfinished
        assert not content.decode(errors="ignore").endswith(content.decode(errors="surrogateescape")[-1])


@pytest.mark.parametrize("token_id", [-1, 256, 2**31 - 1])
def test_unknown_ids_stand_for_nothing(token_id: int) -> None:
    detokenizer = Detokenizer(BYTE_TOKENS)
    assert [detokenizer.feed(id_) for id_ in (0xC3, token_id, 0xA9)] == ["", "", "é"]
