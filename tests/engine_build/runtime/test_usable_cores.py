"""Cores by affinity and by the quotas of control groups, in a file system made for each row."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine_build.llama_cpp.runtime.usable_cores import usable_cores

V2 = "0::/\n"
V2_DEEP = "0::/system.slice/docker-1.scope\n"
V1 = "9:name=systemd:/x\n5:cpu,cpuacct:/docker/1\n3:cpuset:/\n"


def v1(folder: str, quota: int, period: int = 100_000) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": f"{period}\n"}


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        (None, {}, 8),
        (V2, {}, 8),
        (V2, {"cpu.max": "max 100000\n"}, 8),
        (V2, {"cpu.max": "200000 100000\n"}, 2),
        (V2, {"cpu.max": "150000 100000\n"}, 2),
        (V2, {"cpu.max": "1000 100000\n"}, 1),
        (V2, {"cpu.max": "9900000 100000\n"}, 8),
        (V2, {"cpu.max": "nonsense\n"}, 8),
        (V2, {"cpu.max": "100000 0\n"}, 8),
        (V2_DEEP, {"system.slice/docker-1.scope/cpu.max": "300000 100000\n"}, 3),
        (V2_DEEP, {"cpu.max": "300000 100000\n"}, 3),  # a container that sees its group as the root
        (
            V2_DEEP,
            {"system.slice/cpu.max": "200000 100000\n", "system.slice/docker-1.scope/cpu.max": "400000 100000\n"},
            2,
        ),
        (V2_DEEP, {"other.slice/cpu.max": "100000 100000\n"}, 8),
        ("0::/../elsewhere\n", {"cpu.max": "300000 100000\n"}, 3),
        ("1:cpu:/\n0::/\n", {"unified/cpu.max": "300000 100000\n"}, 3),
        (V1, v1("cpu/docker/1", 250_000), 3),
        (V1, v1("cpu,cpuacct/docker/1", 250_000), 3),
        (V1, v1("cpu", 100_000, 50_000), 2),
        (V1, v1("cpu/docker/1", -1), 8),
        (V1, v1("cpuset", 100_000), 8),
    ],
)
def test_quotas(tmp_path: Path, groups: str | None, files: dict[str, str], cores: int) -> None:
    if groups is not None:
        files = {**{f"sys/fs/cgroup/{name}": text for name, text in files.items()}, "proc/self/cgroup": groups}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(affinity=8, root=tmp_path) == cores


def test_the_affinity_of_this_process(tmp_path: Path) -> None:
    assert usable_cores(root=tmp_path) == len(os.sched_getaffinity(0))
