"""Killed or stopped at any moment: the same command continues, and the adapter is the calm run's, byte for byte."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from metier import experiment
from metier.events import Event
from metier.hardware import Rates
from metier.recipe import Recipe
from metier.training.checkpoint import Store
from metier.training.loop import Stopped
from tests.unit import tiny

INTERVAL = 8  # steps between checkpoints

# The child kills itself, so that the moment is exact: behind a step, or at a point inside a checkpoint's writing.
_CHILD = """
import os, signal, sys
kind, moment, *arguments = sys.argv[1:]
moment = int(moment)
from metier import files
from metier.cli import main, train
from metier.training import checkpoint

def die():
    os.kill(os.getpid(), signal.SIGKILL)

count, inside = [0], [False]
def at_writes(write):
    def counted(*given, **named):
        count[0] += inside[0]
        if inside[0] and count[0] == moment:
            die()
        return write(*given, **named)
    return counted

if kind == "writing":  # the saving of tensors, sealing and renaming of every checkpoint
    checkpoint.serialize = at_writes(checkpoint.serialize)
    files._seal = at_writes(files._seal)
    files.os.replace = at_writes(files.os.replace)
    write_directory = checkpoint.write_directory
    def writing(*given):
        inside[0] = True
        write_directory(*given)
        inside[0] = False
    checkpoint.write_directory = writing
if kind == "step":
    draw = train.Progress.__call__
    def watch(self, event):
        count[0] += event.phase == "train"
        if event.phase == "train" and count[0] == moment:
            die()
        draw(self, event)
    train.Progress.__call__ = watch
sys.argv = ["metier", *arguments]
main.main()
"""
_RECIPE = """
model = "nano"
[[domain]]
name = "banking"
data = "sample:banking"
heldout = 0.9
[strategy]
method = "{method}"
[strategy.peft]
r = 4
lora_dropout = 0.1
[train]
num_train_epochs = 27
early_stopping_patience = 99
batch_size = 4
max_length = 256
learning_rate = 1e-3
[eval]
limit = 4
max_new_tokens = 8
"""


def start(folder: Path, method: str) -> Path:
    folder.mkdir()
    (folder / "recipe.toml").write_text(_RECIPE.format(method=method))
    return folder


def run(folder: Path, kind: str = "never", moment: int = 0) -> int:
    command = [sys.executable, "-c", _CHILD, kind, str(moment), "train", "recipe.toml", "--offline"]
    command += ["--plan", "threads=1", "--plan", f"checkpoint_every={INTERVAL}"]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=300).returncode


def only_run(folder: Path, method: str) -> Path:
    (found,) = (folder / "runs").glob(f"{method}-*")
    return found


def steps(directory: Path) -> list[dict[str, Any]]:
    lines = (directory / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["phase"] == "train"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_killed_ten_times_it_ends_with_the_same_bytes(tmp_path: Path, method: str) -> None:
    calm, rough = start(tmp_path / "calm", method), start(tmp_path / "rough", method)
    assert run(calm) == 0
    expected = only_run(calm, method)
    assert len(steps(expected)) >= 60

    chance = random.Random(method)
    for number in range(10):
        kind = "writing" if number % 3 == 0 else "step"
        # Few steps a life, so that ten lives fit; a life that dies while writing its first checkpoint repeats it.
        moment = chance.randint(1, 12) if kind == "writing" else chance.randint(1, 14)
        assert run(rough, kind, moment) == -signal.SIGKILL
        killed = only_run(rough, method)
        done = max((each["done"] for each in steps(killed)), default=0)
        assert done - Store(killed / "checkpoints").newest_step() <= INTERVAL
    assert run(rough) == 0

    found = only_run(rough, method)
    assert sorted(path.name for path in (found / "adapter").iterdir()) == sorted(
        path.name for path in (expected / "adapter").iterdir()
    )
    for path in (expected / "adapter").iterdir():
        assert (found / "adapter" / path.name).read_bytes() == path.read_bytes(), path.name
    assert [each["done"] for each in steps(found)] == [each["done"] for each in steps(expected)]
    assert [each["values"]["loss"] for each in steps(found)] == [each["values"]["loss"] for each in steps(expected)]
    assert (
        json.loads((found / "scores.json").read_text())["domains"]
        == (json.loads((expected / "scores.json").read_text())["domains"])
    )


ROWS = {
    "dpo": ["prompt,chosen,rejected", *(f"fox {n} jumps,good {n % 4},bad {n % 3}" for n in range(24))],
    "kto": ["prompt,completion,rating", *(f"fox {n} jumps,dog {n % 5},{n % 2}" for n in range(24))],
}


def preferences(folder: Path, objective: str) -> Recipe:
    tiny.save(folder / "base")
    (folder / "x.csv").write_text("\n".join(ROWS[objective]) + "\n")
    (folder / "general.jsonl").write_text('{"text": "the quick brown fox jumps over the lazy dog"}\n')
    rating = {"rating": "rating"} if objective == "kto" else {}
    raw = {
        "model": "base",
        "domain": [{"name": "d", "data": "x.csv", **rating}],
        "strategy": {"method": "lora", "objective": objective},
        "train": {"num_train_epochs": 2, "batch_size": 6, "learning_rate": 1e-2, "max_length": 128},
        "eval": {"general_choices": "", "general_text": "general.jsonl"},
    }
    return Recipe.of(raw, folder / "recipe.toml")


@pytest.mark.long
@pytest.mark.parametrize("objective", ["dpo", "kto"])
def test_preferences_stopped_and_continued_end_with_the_same_bytes(
    tmp_path: Path, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the base says of every reply is read again, and is the same."""
    monkeypatch.setattr(experiment, "measure", lambda *_: Rates(1e-6, 1e-6, 1e-6, 1e-6, 1e-12))
    calm, rough, seen = tmp_path / "calm", tmp_path / "rough", list[Event]()
    how: dict[str, Any] = {"offline": True, "overrides": {"checkpoint_every": 99}}
    expected = experiment.train(preferences(calm, objective), **how)
    assert expected.facts["steps"] > 4
    shutil.copytree(calm, rough, ignore=shutil.ignore_patterns("lora-*"))  # base and baseline are measured
    recipe = preferences(rough, objective)

    def three_steps() -> bool:
        return sum(each.phase == "train" for each in seen) >= 3

    with pytest.raises(Stopped):
        experiment.train(recipe, on_event=seen.append, stop=three_steps, **how)
    assert Store(only_run(rough, "lora") / "checkpoints").newest_step() == 3
    found = experiment.train(recipe, **how)
    assert [each["done"] for each in steps(found.directory)] == [each["done"] for each in steps(expected.directory)]
    for path in expected.adapter.iterdir():
        assert (found.adapter / path.name).read_bytes() == path.read_bytes(), path.name
    assert found.scores()["domains"] == expected.scores()["domains"]
