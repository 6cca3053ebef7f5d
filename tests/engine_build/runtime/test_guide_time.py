"""The time that a guide may take, by a clock that stands until it is set."""

from __future__ import annotations

import time

import pytest

from engine_build.llama_cpp.runtime.guide_time import GuideTime
from engine_build.llama_cpp.runtime.sampling import SamplingError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "thread_time", clock)
    return clock


def spend(clock: Clock, guide_time: GuideTime, *seconds: float) -> None:
    """One token, with so many questions."""
    for each in seconds:
        guide_time.begin()
        clock.now += each
        guide_time.check()
    guide_time.end()


def test_all_questions_about_a_token_count(clock: Clock) -> None:
    guide_time = GuideTime()
    spend(clock, guide_time, 0.29)
    spend(clock, guide_time, *[0.01] * 29)
    with pytest.raises(SamplingError, match="the guide cannot be followed further: it can be read in too many ways"):
        spend(clock, guide_time, *[0.01] * 31)


def test_what_the_sampler_does_between_questions_counts(clock: Clock) -> None:
    guide_time = GuideTime()
    guide_time.begin()
    guide_time.check()
    clock.now += 0.31
    guide_time.begin()
    with pytest.raises(SamplingError):
        guide_time.check()


def test_what_others_do_between_tokens_does_not(clock: Clock) -> None:
    guide_time = GuideTime()
    for _ in range(100):
        spend(clock, guide_time, 0.02)
        clock.now += 5


@pytest.mark.parametrize(("seconds", "tokens"), [(0.29, 3), (0.13, 9), (0.05, 48)])
def test_all_tokens_together_have_a_limit(clock: Clock, seconds: float, tokens: int) -> None:
    guide_time = GuideTime()
    for _ in range(tokens):
        spend(clock, guide_time, seconds)
    with pytest.raises(SamplingError):
        spend(clock, guide_time, seconds)


def test_thirty_milliseconds_a_token_may_go_on_for_ever(clock: Clock) -> None:
    guide_time = GuideTime()
    for _ in range(5_000):
        spend(clock, guide_time, 0.029)
