"""Kill -9 at any moment: the same command continues, and the adapter is the undisturbed one's, byte for byte."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from metier.training.checkpoint import Store

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
