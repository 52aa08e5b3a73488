"""A finished run of a tiny model, with its base and baseline beside it."""

from __future__ import annotations

import csv

import pytest

from metier.experiment import train
from metier.recipe import Recipe
from metier.run import Run
from tests.unit import tiny

_RECIPE = """
model = "base"
[[domain]]
name = "mood"
data = "x.csv"
prompt = "{text}"
answer = "{label}"
labels = ["up", "down"]
[strategy]
method = "lora"
[strategy.peft]
r = 2
[train]
num_train_epochs = 1
"""


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    home = tmp_path_factory.mktemp("home")
    tiny.save(home / "base")
    (home / "recipe.toml").write_text(_RECIPE)
    words = [("up", "rises"), ("down", "falls")]
    with (home / "x.csv").open("w", newline="") as file:
        rows = [(f"share {number} {words[number % 2][1]}", words[number % 2][0]) for number in range(20)]
        csv.writer(file).writerows([("text", "label"), *rows])
    return train(Recipe.load(home / "recipe.toml"), overrides={"compute": "float32"})
