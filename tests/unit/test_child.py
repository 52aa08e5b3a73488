from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from metier import child
from metier.errors import MetierError
from metier.events import silent
from metier.recipe import Recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    domain = {"name": "numbers", "data": "rows.jsonl"}
    return Recipe.of({"model": "nano", "domain": [domain]}, tmp_path / "recipe.toml")


def test_a_child_that_is_stopped_before_it_listens_was_stopped(recipe: Recipe) -> None:
    with pytest.raises(KeyboardInterrupt):
        child.train(recipe, {}, offline=True, on_event=silent, started=lambda stop: stop())


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, KeyboardInterrupt), (signal.SIGKILL, MetierError)])
def test_it_does_not_matter_who_stops_it(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, error: type[BaseException]
) -> None:
    class Ended(subprocess.Popen[str]):
        def __init__(self, *args: Any, **how: Any) -> None:
            super().__init__(*args, **how)
            assert self.stdin
            write = self.stdin.flush

            def written() -> None:
                write()
                self.send_signal(number)

            monkeypatch.setattr(self.stdin, "flush", written)

    monkeypatch.setattr(subprocess, "Popen", Ended)
    with pytest.raises(error):
        child.train(recipe, {}, offline=True, on_event=silent)
