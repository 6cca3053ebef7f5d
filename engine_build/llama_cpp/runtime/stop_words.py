"""Stop words and bad words: TensorRT-LLM's word-list tensors, and matching them while ids are generated.

Knows token ids only. As upstream, a word may begin in the prompt: what counts is how the whole sequence ends.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from .errors import RequestError

Word = tuple[int, ...]


def words_from_tensor(name: str, tensor: NDArray[np.int32], vocabulary_size: int) -> tuple[Word, ...]:
    """Read a word list [2, n] (or [1, 2, n]).

    Row 0 holds the ids of all words one after the other, row 1 the end offset of each word, padded with -1.

    Raises:
        RequestError: offsets that do not increase, lie outside the tensor or follow a -1; ids outside the vocabulary.
    """
    if tensor.ndim not in (2, 3) or tensor.shape[-2] != 2 or tensor.size != 2 * tensor.shape[-1]:
        raise RequestError(f"{name} has shape {list(tensor.shape)}; it must be [1, 2, n]")
    ids, offsets = (row.tolist() for row in tensor.reshape(2, -1))
    ends = _ends(name, offsets)
    words = tuple(tuple(ids[start:end]) for start, end in zip([0, *ends], ends, strict=False))
    for token in (token for word in words for token in word):
        if not 0 <= token < vocabulary_size:
            raise RequestError(f"{name} holds the id {token}, outside [0, {vocabulary_size - 1}]")
    return words


def _ends(name: str, offsets: list[int]) -> list[int]:
    count = offsets.index(-1) if -1 in offsets else len(offsets)
    ends = offsets[:count]
    if any(offset != -1 for offset in offsets[count:]):
        raise RequestError(f"{name} has an offset after the first -1: {offsets}")
    previous = 0
    for end in ends:
        if end <= previous:
            raise RequestError(f"{name} has offsets that do not increase: {offsets}")
        if end > len(offsets):
            raise RequestError(f"{name} has the offset {end}, but holds only {len(offsets)} ids")
        previous = end
    return ends


class StopWords:
    """Tells whether a sequence ends with one of the words."""

    def __init__(self, words: Iterable[Word]) -> None:
        self._by_last_token: dict[int, list[Word]] = {}
        for word in words:
            self._by_last_token.setdefault(word[-1], []).append(word)

    def end(self, sequence: Sequence[int]) -> bool:
        """True if `sequence`, prompt included, ends with a stop word."""
        return any(_ends_with(sequence, word) for word in self._by_last_token.get(sequence[-1], ()))


class BadWords:
    """Tells which ids would complete one of the words."""

    def __init__(self, words: Iterable[Word]) -> None:
        self._single: list[int] = []
        self._by_token_before_last: dict[int, list[Word]] = {}
        for word in words:
            if len(word) == 1:
                self._single.append(word[0])
            else:
                self._by_token_before_last.setdefault(word[-2], []).append(word)

    def banned_after(self, sequence: Sequence[int]) -> list[int]:
        """The ids that must not follow `sequence`, prompt included."""
        longer = self._by_token_before_last.get(sequence[-1], ())
        return self._single + [word[-1] for word in longer if _ends_with(sequence, word[:-1])]


def _ends_with(sequence: Sequence[int], word: Word) -> bool:
    return len(sequence) >= len(word) and tuple(sequence[-len(word) :]) == word
