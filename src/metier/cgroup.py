"""What a container may use of the machine, where that is limited: Linux' control groups, of both versions."""

from __future__ import annotations

import math
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_MEMORY = ("memory.max", "memory/memory.limit_in_bytes")
_TIME = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))


def memory_limit(root: Path = _ROOT) -> int | None:
    """In bytes."""
    for path in (root / name for name in _MEMORY):
        if path.exists() and (text := path.read_text().strip()).isdecimal():
            return int(text)
    return None


def cores(root: Path = _ROOT) -> int | None:
    """For how many cores there is time, rounded up."""
    for names in _TIME:
        if all((root / name).exists() for name in names):
            quota, period = " ".join((root / name).read_text() for name in names).split()
            return math.ceil(int(quota) / int(period)) if quota.isdecimal() else None  # "max", or -1
    return None
