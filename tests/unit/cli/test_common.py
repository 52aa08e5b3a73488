from __future__ import annotations

import pytest

from metier.cli import common
from metier.cli.common import Progress
from metier.events import Event


def test_runs_side_by_side_are_told_apart(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now, whose = 0.0, 0
    monkeypatch.setattr(common.time, "monotonic", lambda: now)
    monkeypatch.setattr(common.threading, "get_ident", lambda: whose)
    monkeypatch.setattr(common, "_LINE_EVERY", 0.0)
    told = Progress()
    for step in range(1, 48):
        for whose in (1, 2):
            now = float(step) + whose / 2
            told(Event("train", step if whose == 1 else step // 2 + 1, 100))
    ours = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train        4")]
    assert ours[-1] == "train        47/100  53 s left"


def test_what_is_left_is_told_of_each_run_by_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(common.time, "monotonic", lambda: now)
    told = Progress()
    for begun in (0.0, 5000.0):  # the second run long after the first
        for step in (1, 11, 100):
            now = begun + 1.0 * step
            told(Event("train", step, 100))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train        11/100")]
    assert lines == ["train        11/100  1 min 29 s left"] * 2
