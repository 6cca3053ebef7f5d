"""Does memory grow? Samples over time, a straight line through their second half, and a limit for its slope."""

from __future__ import annotations

from dataclasses import dataclass, field

MEGABYTE = 1_000_000


@dataclass(slots=True, kw_only=True)
class MemoryCurve:
    """Resident memory of one process over time; seconds from the start, bytes."""

    name: str
    samples: list[tuple[float, int]] = field(default_factory=list)

    def add(self, seconds: float, resident: int) -> None:
        self.samples.append((seconds, resident))

    @property
    def latest_megabytes(self) -> float:
        return self.samples[-1][1] / MEGABYTE

    @property
    def highest_megabytes(self) -> float:
        return max(resident for _, resident in self.samples) / MEGABYTE

    def megabytes_per_minute(self) -> float:
        """Slope of the second half: the first holds imports, pools and caches that fill once."""
        half = self.samples[len(self.samples) // 2 :]
        return 60 * slope(half) / MEGABYTE


def slope(points: list[tuple[float, int]]) -> float:
    """Least squares: how much y grows for each unit of x."""
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread if spread else 0.0
