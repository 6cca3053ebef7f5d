"""From logits to a token."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine_build.llama_cpp.runtime.requests import GenerationRequest, Sampling
from engine_build.llama_cpp.runtime.sampling import Choice, Sampler, SamplingError

LOGITS = [1.0, 4.0, 3.0, 2.0, -1.0]


def sampler(prompt: tuple[int, ...] = (0,), *, sampling: dict[str, Any] | None = None, **values: Any) -> Sampler:
    values["sampling"] = Sampling(**(sampling or {}))
    return Sampler(GenerationRequest(prompt=prompt, max_new_tokens=100, **values), len(LOGITS))


def choose(chooser: Sampler, sequence: list[int]) -> Choice:
    choice = chooser.choose(np.array(LOGITS, np.float32), sequence)
    assert choice is not None
    return choice


@pytest.mark.parametrize(
    ("values", "sequence", "token"),
    [
        ({}, [0], 1),
        ({"sampling": {"temperature": 0.5}}, [0], 1),
        ({"sampling": {"temperature": 0.0, "top_p": 1.0}}, [0], 1),
        ({"bad_words": ((1,),)}, [0], 2),
        ({"bad_words": ((1,), (2,))}, [0], 3),
        ({"bad_words": ((0, 1),)}, [0], 2),
        ({"bad_words": ((4, 0, 1),)}, [0], 1),
        ({"bad_words": ((4, 0, 1),)}, [4, 0], 2),
        ({"end_id": 1, "min_tokens": 2}, [0], 2),
        ({"end_id": 1, "min_tokens": 2}, [0, 2], 2),
        ({"end_id": 1, "min_tokens": 2}, [0, 2, 2], 1),
    ],
)
def test_bans_and_greed(values: dict[str, Any], sequence: list[int], token: int) -> None:
    assert choose(sampler(**values), sequence).token == token


@pytest.mark.parametrize(
    ("prompt", "sampling", "token"),
    [
        ((1,), {"repetition_penalty": 2.0}, 2),  # 4 / 2 < 3
        ((1,), {"repetition_penalty": 1.1}, 1),
        ((1, 2), {"presence_penalty": 2.5}, 3),
        ((1, 1, 1), {"presence_penalty": 0.9}, 1),  # once, however often it was seen
        ((1, 1, 1), {"frequency_penalty": 0.4}, 2),  # as often as it was seen
        ((0,), {"presence_penalty": -4.0}, 0),
        ((1,), {"presence_penalty": 1.5}, 2),
        ((1,), {"presence_penalty": 1.5, "temperature": 0.5}, 1),  # after temperature: 8 - 1.5 > 6
    ],
)
def test_penalties_cover_the_prompt(prompt: tuple[int, ...], sampling: dict[str, Any], token: int) -> None:
    assert choose(sampler(prompt, sampling=sampling), list(prompt)).token == token


def test_penalties_cover_the_output() -> None:
    chooser = sampler((0,), sampling={"presence_penalty": 1.5})
    assert [choose(chooser, [0]).token for _ in range(3)] == [1, 2, 1]


def test_repetition_penalty_lowers_negative_logits() -> None:
    chooser = sampler((0,), sampling={"repetition_penalty": 2.0})
    logits = np.array([-1.0, -1.5, -9, -9, -9], np.float32)
    assert chooser.choose(logits, [0]) == Choice(1, None)


@pytest.mark.parametrize(
    ("sampling", "possible"),
    [
        ({"top_k": 2}, {1, 2}),
        ({"top_k": 3, "top_p": 1.0}, {1, 2, 3}),
        ({"top_p": 0.5}, {1}),
        ({"top_p": 0.7}, {1, 2}),
        ({"top_p": 1.0, "temperature": 5.0}, {0, 1, 2, 3, 4}),
        ({"top_k": 4, "top_p": 0.7}, {1, 2}),
        ({"top_k": 50, "temperature": 5.0}, {0, 1, 2, 3, 4}),
        ({"top_p": 1.0, "temperature": 1e-30}, {1}),
    ],
)
def test_candidates(sampling: dict[str, Any], possible: set[int]) -> None:
    seen = {choose(sampler(sampling={**sampling, "seed": seed}), [0]).token for seed in range(300)}
    assert seen == possible


def test_draws_follow_the_probabilities() -> None:
    chooser = sampler(sampling={"top_p": 1.0, "seed": 3})
    counts = np.bincount([choose(chooser, [0]).token for _ in range(20_000)], minlength=5) / 20_000
    expected = np.exp(LOGITS) / np.exp(LOGITS).sum()
    assert np.abs(counts - expected).max() < 0.01


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**32 + 1, 9_999_999_999, 2**64 - 1])
def test_same_seed_same_draws_and_seeds_differ(seed: int) -> None:
    def draws(number: int) -> list[int]:
        chooser = sampler(sampling={"top_p": 1.0, "temperature": 3.0, "seed": number})
        return [choose(chooser, [0]).token for _ in range(60)]

    assert draws(seed) == draws(seed)
    assert draws(seed) != draws((seed + 2**32) % 2**64)
    assert draws(seed) != draws((seed + 1) % 2**64)


@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.5])
def test_log_prob_is_that_of_the_scaled_logits(temperature: float) -> None:
    choice = choose(sampler(log_probs=True, sampling={"temperature": temperature}), [0])
    scaled = np.array(LOGITS) / (temperature or 1.0)
    assert choice.log_prob == pytest.approx(scaled[1] - np.log(np.exp(scaled).sum()), abs=1e-5)


def test_no_log_prob_unless_asked() -> None:
    assert choose(sampler(), [0]).log_prob is None


@pytest.mark.parametrize("sampling", [{}, {"top_p": 0.9}, {"top_k": 3}])
def test_everything_banned_is_an_error(sampling: dict[str, Any]) -> None:
    with pytest.raises(SamplingError, match="all are banned"):
        choose(sampler(bad_words=((0,), (1,), (2,), (3,), (4,)), sampling=sampling), [0])


def test_nan_is_an_error() -> None:
    with pytest.raises(SamplingError):
        sampler().choose(np.full(5, np.nan, np.float32), [0])


class Allowing:
    """A guide that always allows the same ids, and keeps what it is asked."""

    def __init__(self, *tokens: int, may_end: bool = False, knows_mask: bool = True) -> None:
        self.tokens = tokens
        self.may_end = may_end
        self.is_complete = False
        self.asked: list[int] = []
        self.masks = 0
        self.accepted: list[int] = []
        self._knows_mask = knows_mask

    def allows(self, token: int) -> bool:
        self.asked.append(token)
        return token in self.tokens

    def mask(self) -> NDArray[np.bool_]:
        self.masks += 1
        return np.isin(np.arange(WIDE), self.tokens) if self._knows_mask else np.ones(WIDE, np.bool_)

    def accept(self, token: int) -> None:
        assert token in self.tokens
        self.accepted.append(token)


WIDE = 1000


@pytest.mark.parametrize(
    ("allowed", "values", "asked"),
    [
        ((0, 1, 2), {}, [1]),  # what the model wants is allowed
        ((0, 2, 4), {}, [1, 2]),
        ((4,), {}, [1, 2, 3, 0, 4]),
        ((4,), {"sampling": {"top_p": 0.1}}, [1, 2, 3, 0, 4]),
        ((0, 1, 2), {"bad_words": ((1,),)}, [2]),
        ((0, 1, 2), {"bad_words": ((1,), (2,))}, [3, 0]),
        ((2, 3), {"prompt": (2,), "sampling": {"presence_penalty": 1.5}}, [1, 3]),
        ((0, 3), {"sampling": {"temperature": 0.5}}, [1, 2, 3]),
    ],
)
def test_guided_choice(allowed: tuple[int, ...], values: dict[str, Any], asked: list[int]) -> None:
    guide = Allowing(*allowed)
    assert choose(sampler(guide=guide, **values), [0]).token == asked[-1]
    assert guide.asked == asked
    assert (guide.masks, guide.accepted) == (0, [asked[-1]])


@pytest.mark.parametrize(("knows_mask", "tries"), [(True, 9), (False, 401)])
def test_after_some_tries_all_that_is_refused_is_left_out(knows_mask: bool, tries: int) -> None:
    guide = Allowing(400, 500, knows_mask=knows_mask)
    request = GenerationRequest(prompt=(0,), max_new_tokens=1, guide=guide, log_probs=True)
    logits = np.linspace(5, 0, WIDE, dtype=np.float32)
    choice = Sampler(request, WIDE).choose(logits.copy(), [0])
    assert choice is not None
    assert choice.token == 400
    assert choice.log_prob == pytest.approx(logits[400] - np.log(np.exp(logits).sum()), abs=1e-4)
    assert (guide.masks, len(guide.asked)) == (1, tries)


def test_a_guide_that_refuses_too_much_without_a_mask_is_an_error() -> None:
    guide = Allowing(900, knows_mask=False)
    request = GenerationRequest(prompt=(0,), max_new_tokens=1, guide=guide)
    with pytest.raises(SamplingError, match="the guide refuses the 500 that the model would rather have"):
        Sampler(request, WIDE).choose(np.linspace(5, 0, WIDE, dtype=np.float32), [0])


def test_guided_draws_follow_the_probabilities_of_what_is_allowed() -> None:
    allowed = [0, 2, 3]
    chooser = sampler(sampling={"top_p": 1.0, "seed": 3}, guide=Allowing(*allowed))
    counts = np.bincount([choose(chooser, [0]).token for _ in range(4_000)], minlength=5) / 4_000
    weights = np.where(np.isin(np.arange(5), allowed), np.exp(LOGITS), 0)
    assert np.abs(counts - weights / weights.sum()).max() < 0.025


def test_guided_draws_are_the_seeds() -> None:
    def draws(seed: int) -> list[int]:
        chooser = sampler(sampling={"top_k": 3, "temperature": 3.0, "seed": seed}, guide=Allowing(0, 3, 4))
        return [choose(chooser, [0]).token for _ in range(60)]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_log_prob_is_the_models_own_with_a_guide_too() -> None:
    free = choose(sampler(log_probs=True, bad_words=((1,),)), [0])
    guided = choose(sampler(log_probs=True, bad_words=((1,),), guide=Allowing(2)), [0])
    forced = choose(sampler(log_probs=True, bad_words=((1,),), guide=Allowing(4)), [0])
    assert guided == free
    assert forced.log_prob == pytest.approx(-1 - np.log(np.exp([1.0, 3.0, 2.0, -1.0]).sum()), abs=1e-5)


def test_the_guide_ends_where_nothing_is_left() -> None:
    logits = np.array(LOGITS, np.float32)
    assert sampler(guide=Allowing(may_end=True)).choose(logits.copy(), [0]) is None
    assert sampler(guide=Allowing(1, may_end=True), bad_words=((1,),)).choose(logits.copy(), [0]) is None
    # min_tokens holds back the end id, but not the end of a text that is complete.
    guide = Allowing(1, may_end=True)
    assert sampler(guide=guide, end_id=1, min_tokens=5).choose(logits.copy(), [0]) is None


def test_a_guide_that_leaves_nothing_is_an_error() -> None:
    with pytest.raises(SamplingError, match="all are banned or refused"):
        choose(sampler(guide=Allowing(1), bad_words=((1,),)), [0])


def test_nan_is_an_error_where_a_guide_may_end_too() -> None:
    with pytest.raises(SamplingError):
        sampler(guide=Allowing(may_end=True)).choose(np.full(5, np.nan, np.float32), [0])
