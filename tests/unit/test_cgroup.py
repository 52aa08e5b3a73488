from __future__ import annotations

from pathlib import Path

import pytest

from metier import cgroup


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_a_container_has_time_for_so_many_cores(tmp_path: Path, files: dict[str, str], cores: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cgroup.cores(tmp_path) == cores


@pytest.mark.parametrize(("text", "limit"), [("max\n", None), ("1073741824\n", 1 << 30)])
def test_a_container_has_so_much_memory(tmp_path: Path, text: str, limit: int | None) -> None:
    assert cgroup.memory_limit(tmp_path) is None
    (tmp_path / "memory.max").write_text(text)
    assert cgroup.memory_limit(tmp_path) == limit
