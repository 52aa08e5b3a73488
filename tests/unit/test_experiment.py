from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from metier import experiment
from metier import run as runs
from metier.events import Event
from metier.experiment import Means
from metier.files import write_json
from metier.run import Run
from tests.unit.test_planning import COLAB, LAPTOP, NANO, planned


@pytest.mark.parametrize(
    ("machine", "device", "told"), [(LAPTOP, "cpu", "lacks: continues on cpu"), (COLAB, "cuda", "")]
)
def test_a_run_goes_on_where_its_accelerator_is_missing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: object, device: str, told: str
) -> None:
    """In the number format that it began with: it is part of what the run is."""
    begun = planned("qlora", NANO, COLAB)
    run = Run(tmp_path)
    runs.save_plan(run, begun)
    write_json(tmp_path / "run.json", {"versions": {}})
    monkeypatch.setattr(experiment, "probe", lambda: machine)
    heard: list[Event] = []
    kept = experiment._kept_plan(run, begun, Means({}, True, heard.append, lambda: False))
    assert kept == dataclasses.replace(begun, device=device)
    assert told in "".join(str(event.values["text"]) for event in heard)
    assert bool(heard) == bool(told)
