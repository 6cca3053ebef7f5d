"""How many cores this process may keep busy: those it may run on, or fewer where a container's CPU quota is less.

With more threads than the quota pays for, the kernel halts all of them for a part of every period. Knows Linux's
control groups, versions 1 and 2.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_MOUNT = "sys/fs/cgroup"


def usable_cores(*, affinity: int | None = None, root: Path = Path("/")) -> int:
    """At least 1. `affinity`: cores that the process may run on, asked of the system where not given."""
    cores = len(os.sched_getaffinity(0)) if affinity is None else affinity
    return max(1, min([cores, *(math.ceil(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """All quotas, in cores, of our control group and those around it: each limits us."""
    for mount, group in _groups(root):
        path = PurePosixPath(group).relative_to("/")
        # In a container the path may be the host's, which is not there; the mount itself is our group then.
        for folder in {path, *path.parents} if ".." not in path.parts else {PurePosixPath()}:
            quota = _quota_of(root / _MOUNT / mount / folder)
            if quota is not None:
                yield quota


def _groups(root: Path) -> Iterator[tuple[str, str]]:
    """Folders below the mount point where control of the CPU may be mounted, each with our group's path there."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            yield from (("", group), ("unified", group))
        elif "cpu" in controllers.split(","):
            yield from ((mount, group) for mount in {"cpu", controllers})


def _quota_of(folder: Path) -> float | None:
    """One group's quota in cores, None where it has none or is not there."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        cores = float(quota) / float(period)  # without a quota: "max", or -1
    except (OSError, ValueError, ZeroDivisionError):
        return None
    return cores if cores > 0 else None
