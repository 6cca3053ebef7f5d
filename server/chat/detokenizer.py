"""Token ids to text, as they come. Knows no stop strings and no vocabulary beyond its table of bytes.

Tokens of byte-level vocabularies are byte strings that may end inside a character, so bytes are held back until the
character is whole: what comes out is the same however the tokens were grouped, and never half a character.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

_Utf8Decoder = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """Text of one answer. `feed()` each token id; a character that never became whole is dropped at the end."""

    def __init__(self, token_bytes: Sequence[bytes]) -> None:
        self._token_bytes = token_bytes
        self._decode = _Utf8Decoder(errors="replace").decode

    def feed(self, token_id: int) -> str:
        """Text that this token completes; "" while a character is incomplete. Unknown ids stand for nothing.

        Bytes that can't be UTF-8, whatever follows, become U+FFFD, as in the tokenizer's own decoding.
        """
        if not 0 <= token_id < len(self._token_bytes):
            return ""
        return self._decode(self._token_bytes[token_id])
