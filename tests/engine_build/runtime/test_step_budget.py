"""How prompts are cut into steps."""

from __future__ import annotations

import pytest

from engine_build.llama_cpp.runtime.step_budget import STEP_SECONDS, StepBudget


def settle(budget: StepBudget, *, running: int, seconds_per_row: float, fixed_seconds: float = 0.0) -> float:
    """Step until nothing changes; the time of the last step."""
    seconds = 0.0
    for _ in range(100):
        if running:
            budget.record(running=running, prompt_tokens=0, seconds=fixed_seconds + running * seconds_per_row)
        prompt_tokens = budget.prompt_tokens(running)
        seconds = fixed_seconds + (running + prompt_tokens) * seconds_per_row
        budget.record(running=running, prompt_tokens=prompt_tokens, seconds=seconds)
    return seconds


@pytest.mark.parametrize("running", [0, 1, 4])
@pytest.mark.parametrize("seconds_per_row", [0.001, 0.003, 0.006])
def test_steps_come_close_to_the_goal(running: int, seconds_per_row: float) -> None:
    seconds = settle(StepBudget(256), running=running, seconds_per_row=seconds_per_row)
    assert STEP_SECONDS / 2 < seconds < STEP_SECONDS + 4 * seconds_per_row


def test_a_fast_machine_uses_all_it_may() -> None:
    budget = StepBudget(64)
    settle(budget, running=3, seconds_per_row=1e-6)
    assert budget.prompt_tokens(3) == 64


def test_a_slow_model_gives_prompts_half_of_the_time() -> None:
    seconds = settle(StepBudget(64), running=4, fixed_seconds=0.2, seconds_per_row=0.01)
    assert 0.35 < seconds < 0.55


@pytest.mark.parametrize("limit", [1, 3, 64])
def test_prompts_always_move_and_never_exceed_the_limit(limit: int) -> None:
    budget = StepBudget(limit)
    settle(budget, running=60, seconds_per_row=1.0)
    assert 1 <= budget.prompt_tokens(60) <= limit


@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("seconds_per_group", [0.005, 0.012])
def test_steps_of_several_goes_come_close_to_the_goal_as_well(groups: int, seconds_per_group: float) -> None:
    """Every adapter in a step costs a go through the model, so that fewer prompt tokens fit in."""
    fixed_seconds = groups * seconds_per_group
    seconds = settle(StepBudget(256), running=groups, fixed_seconds=fixed_seconds, seconds_per_row=0.002)
    assert STEP_SECONDS / 2 < seconds < STEP_SECONDS + 4 * 0.002


def test_short_steps_that_take_too_long_teach_as_well() -> None:
    """A short prompt with another adapter than those that run makes a slow step, though it has few rows."""
    budget = StepBudget(256)
    settle(budget, running=1, seconds_per_row=0.0005)
    before = budget.prompt_tokens(1)
    for _ in range(3):
        budget.record(running=4, prompt_tokens=10, seconds=2 * STEP_SECONDS)
    assert budget.prompt_tokens(4) < before / 4
