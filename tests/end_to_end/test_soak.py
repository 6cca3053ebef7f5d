"""The soak, in short: twenty seconds of every kind of caller, and limits that only show what grows fast.

`make soak` runs the same for ten minutes with strict limits.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.soak.memory import MEGABYTE, MemoryCurve, slope
from tests.soak.soak import Limits, soak

# In the first half minute pools and caches fill: 10 MB a minute is usual then.
_LIMITS = Limits(server=60.0, engine=120.0, restarts=4)


async def test_twenty_seconds_of_all_callers_leave_nothing_behind(tmp_path: Path) -> None:
    await soak(tmp_path, seconds=20, limits=_LIMITS)


@pytest.mark.parametrize("grows_by", [-2.0, 0.0, 0.5, 3.0])
async def test_the_slope_is_found_in_noise(grows_by: float) -> None:
    """MB a minute, from a sample each second for five minutes that jumps by 5 MB now and then."""
    noise = random.Random(1)
    curve = MemoryCurve(name="made up")
    for second in range(600):
        jump = noise.choice((0, 0, 0, 5))
        filling = 60 * min(second / 120, 1)  # what fills once, at the start
        curve.add(second, int((100 + filling + jump + grows_by * second / 60) * MEGABYTE))
    assert curve.megabytes_per_minute() == pytest.approx(grows_by, abs=0.2)


async def test_slope_of_one_moment() -> None:
    assert slope([(1.0, 5)]) == 0
