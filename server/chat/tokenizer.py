"""Text to token ids and token ids to bytes, for byte-level BPE vocabularies (Llama 3, SmolLM2 and their like).

Wraps a Hugging Face `tokenizers` file. Knows no prompt format. Text is encoded with control tokens disabled: strings
that look like one become ordinary tokens. Only `encode_raw` reads them as control tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer as HuggingFaceTokenizer


class TokenizerError(ValueError):
    """The tokenizer file can't be used; the text says why."""


class Tokenizer:
    """A vocabulary. Immutable after loading; encoding may be called from several threads."""

    def __init__(self, definition: str) -> None:
        """`definition` is the text of a tokenizer.json. Raises TokenizerError where it is not a byte-level one."""
        try:
            decoder = (json.loads(definition).get("decoder") or {}).get("type")
            self._text = HuggingFaceTokenizer.from_str(definition)
            self._raw = HuggingFaceTokenizer.from_str(definition)
        except Exception as error:  # the library raises bare Exception
            raise TokenizerError(f"not a tokenizer definition: {error}") from error
        if decoder != "ByteLevel":
            raise TokenizerError(f"the tokenizer's decoder is {decoder!r}; only ByteLevel is supported")
        self._text.encode_special_tokens = True
        added = self._text.get_added_tokens_decoder()
        self._special_ids = {token.content: id_ for id_, token in added.items() if token.special}
        self.token_bytes: Sequence[bytes] = self._read_token_bytes({i: t.content for i, t in added.items()})

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Reads a tokenizer.json. Raises TokenizerError naming the file."""
        try:
            return cls(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TokenizerError(f"{path}: {error}") from error

    def special_id(self, token: str) -> int:
        """Id of a control token. Raises TokenizerError where the vocabulary has none of that name."""
        try:
            return self._special_ids[token]
        except KeyError:
            raise TokenizerError(f"the vocabulary has no control token {token}") from None

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text. Control tokens in it stay text."""
        return _encode(self._text, text)

    def encode_raw(self, text: str) -> list[int]:
        """Token ids of text whose control tokens mean what they say."""
        return _encode(self._raw, text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, control tokens written out."""
        # As in _encode: the batch of one lets other threads run meanwhile.
        text: str = self._raw.decode_batch([list(ids)], skip_special_tokens=False)[0]
        return text

    def _read_token_bytes(self, added: dict[int, str]) -> tuple[bytes, ...]:
        """The bytes that each id stands for in an answer; control tokens stand for none."""
        table = [b""] * (max(self._text.get_vocab(with_added_tokens=True).values()) + 1)
        for token, id_ in self._text.get_vocab(with_added_tokens=False).items():
            if id_ not in added:
                table[id_] = _bytes_of(token)
        special = set(self._special_ids.values())
        for id_, content in added.items():
            table[id_] = b"" if id_ in special else content.encode()
        return tuple(table)


def _encode(tokenizer: HuggingFaceTokenizer, text: str) -> list[int]:
    # A batch of one, because `encode` holds Python's global lock all the time: a megabyte would stop every stream for
    # seconds. `fast` leaves out the offsets, which nobody needs here.
    ids: list[int] = tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids
    return ids


def _bytes_of(token: str) -> bytes:
    try:
        return bytes(_BYTE_OF_CHARACTER[character] for character in token)
    except KeyError:  # outside the alphabet: the vocabulary means the characters themselves
        return token.encode()


def _byte_of_character() -> dict[str, int]:
    """The alphabet of byte-level BPE: printable bytes stand for themselves, the other 68 for characters from U+0100 on.

    Source: bytes_to_unicode in GPT-2's encoder.py, which all byte-level vocabularies took over.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + offset): byte for offset, byte in enumerate(others)}


_BYTE_OF_CHARACTER = _byte_of_character()
