"""Held-out answers are read once, for the final scores: no choice and no byte of the adapter depends on them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from metier.experiment import train
from metier.recipe import Recipe
from metier.run import Run

_RECIPE = """
model = "nano"
[[domain]]
name = "mood"
data = "x.csv"
heldout = "y.csv"
prompt = "{text}"
answer = "{label}"
labels = ["up", "down"]
[[domain]]
name = "talk"
data = "t.csv"
heldout = "u.csv"
prompt = "{text}"
answer = "{label}"
[strategy]
method = "lora"
[strategy.peft]
r = 4
[train]
num_train_epochs = 2
max_length = 64
[eval]
max_new_tokens = 8
"""


def write(path: Path, count: int, labels: tuple[str, str]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(count):
            rises = number % 3 == 0
            writer.writerow([f"{path.stem} share {number} {'rises' if rises else 'falls'}", labels[rises]])


def trained(folder: Path, turned: bool) -> Run:
    folder.mkdir()
    (folder / "recipe.toml").write_text(_RECIPE)
    for known, held, labels in (("x", "y", ("down", "up")), ("t", "u", ("it falls a lot", "it rises again"))):
        write(folder / f"{known}.csv", 40, labels)
        write(folder / f"{held}.csv", 10, labels[::-1] if turned else labels)
    return train(Recipe.load(folder / "recipe.toml"), offline=True)


@pytest.mark.slow
def test_turning_every_held_out_answer_changes_no_adapter_byte(tmp_path: Path) -> None:
    one, two = trained(tmp_path / "one", turned=False), trained(tmp_path / "two", turned=True)
    for path in one.adapter.iterdir():
        assert path.read_bytes() == (two.adapter / path.name).read_bytes(), path.name
    assert one.facts["best_step"] == two.facts["best_step"]
    accuracy = [run.scores()["domains"][0]["scores"][0]["value"] for run in (one, two)]
    assert accuracy[0] == pytest.approx(1 - accuracy[1])
    assert [line["output"] for line in one.answers()[:20]] == [line["output"] for line in two.answers()[:20]]
