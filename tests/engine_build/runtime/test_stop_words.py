"""Word lists as tensors, and what they match."""

from __future__ import annotations

import numpy as np
import pytest

from engine_build.llama_cpp.runtime.errors import RequestError
from engine_build.llama_cpp.runtime.stop_words import BadWords, StopWords, words_from_tensor


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[], []], ()),
        ([[7, 9], [1, 2]], ((7,), (9,))),
        ([[7, 9], [2, -1]], ((7, 9),)),
        ([[7, 9, 8, 0, 0], [2, 3, -1, -1, -1]], ((7, 9), (8,))),
        ([[0, 0], [-1, -1]], ()),
    ],
)
def test_words_from_tensor(rows: list[list[int]], words: tuple[tuple[int, ...], ...]) -> None:
    tensor = np.array(rows, np.int32)
    assert words_from_tensor("stop_words_list", tensor, 10) == words
    assert words_from_tensor("stop_words_list", tensor[np.newaxis], 10) == words


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([[7, 9], [1, 1]], "do not increase"),
        ([[7, 9], [2, 1]], "do not increase"),
        ([[7, 9], [0, 1]], "do not increase"),
        ([[7, 9], [-2, 1]], "do not increase"),
        ([[7, 9], [3, -1]], "offset 3, but holds only 2 ids"),
        ([[7, 9], [-1, 2]], "after the first -1"),
        ([[7, 10], [1, 2]], r"id 10, outside \[0, 9\]"),
        ([[7, -3], [1, 2]], "id -3"),
        ([[7, 9]], "shape"),
    ],
)
def test_words_from_tensor_refuses(rows: list[list[int]], text: str) -> None:
    with pytest.raises(RequestError, match=f"^bad_words_list .*{text}"):
        words_from_tensor("bad_words_list", np.array(rows, np.int32), 10)


@pytest.mark.parametrize(
    ("sequence", "ends"),
    [
        ([1], False),
        ([5], True),
        ([1, 2, 3], True),
        ([9, 1, 2, 3], True),
        ([2, 3], False),
        ([1, 2, 3, 4], False),
        ([3], False),
    ],
)
def test_stop_words_end(sequence: list[int], ends: bool) -> None:
    assert StopWords([(1, 2, 3), (5,)]).end(sequence) is ends


@pytest.mark.parametrize(
    ("sequence", "banned"),
    [([9], {4}), ([1], {4}), ([1, 2], {4, 3}), ([0, 1, 2], {4, 3}), ([1, 2, 3], {4}), ([2], {4, 6})],
)
def test_bad_words_banned_after(sequence: list[int], banned: set[int]) -> None:
    words = BadWords([(1, 2, 3), (4,), (2, 6)])
    assert set(words.banned_after(sequence)) - ({6} if sequence[-1] == 2 else set()) == banned - {6}
    assert (6 in words.banned_after(sequence)) is (sequence[-1] == 2)
