"""A small vocabulary for tests of guides: every byte, some longer tokens, and ids without text."""

from __future__ import annotations

import random

from engine_build.llama_cpp.runtime.guided import Guide

LONGER = ["ab", "bc", "aa", "aaa", "é", "é\n", 'b"', "]^", "{}", '{"', '":', '"}', "true", "null", "12", ", ", "😀"]
END_ID, TURN_ID, OTHER_ID = range(256, 259)
# Two tokens end inside a character.
TOKENS = [
    *(bytes([byte]) for byte in range(256)),
    *[b""] * 3,
    *(text.encode() for text in LONGER),
    b"a\xc3",
    b"\xa9\xc3",
]


def reads(guide: Guide, text: str | bytes) -> bool:
    """Whether the guide takes the text byte by byte and may end behind it."""
    for byte in text.encode() if isinstance(text, str) else text:
        if not guide.allows(byte):
            return False
        guide.accept(byte)
    return guide.may_end


def walk(guide: Guide, seed: int, most: int = 40) -> tuple[bytes, bool]:
    """A random text among what the guide allows, token by token, and whether it could end there.

    Holds the mask against what `allows` says of every token on the way.
    """
    draw = random.Random(seed)
    text = b""
    for _ in range(most):
        mask = guide.mask()
        assert mask.tolist() == [guide.allows(token) for token in range(len(TOKENS))]
        assert mask[END_ID] == guide.may_end
        allowed = [token for token in mask.nonzero()[0].tolist() if token != END_ID]
        if not allowed or (guide.may_end and draw.random() < 0.2):
            break
        token = draw.choice(allowed)
        guide.accept(token)
        text += TOKENS[token]
        if guide.is_complete:
            break
    return text, guide.may_end
