"""What several tests of the server stand on: two runs on a tiny base, trained once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from metier.inference.engine import Delta, Engine
from metier.run import Run
from tests.promises import serving

STRATEGIES: dict[str, dict[str, Any]] = {
    "small": {"method": "lora", "peft": {"r": 2}},
    "shown": {"method": "none", "num_fewshot": 2},
}


@pytest.fixture(scope="session")
def served_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """By name, in float32, where no batch changes an answer; recipe, base and data lie beside their folder."""
    return serving.train(tmp_path_factory.mktemp("served"), STRATEGIES, compute="float32")


@pytest.fixture(scope="session")
def served_home(served_runs: dict[str, Run]) -> Path:
    """The folder of the recipe."""
    return served_runs["small"].directory.parent.parent


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer is not done before its client has left, however well it is guessed."""
    step = Engine.step

    def slow(engine: Engine) -> list[Delta]:
        time.sleep(0.05)
        return step(engine)

    monkeypatch.setattr(Engine, "step", slow)
