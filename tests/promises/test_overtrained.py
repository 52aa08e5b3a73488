"""An adapter trained far too hard is caught, and a share of it is recommended that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from metier.experiment import train
from metier.recipe import Recipe
from metier.run import Run

RECIPE = """
model = "nano"
[[domain]]
name = "finance"
data = "sample:finance"
heldout = 0.3
prompt = "{instruction}\\nHeadline: {text}\\nSentiment:"
answer = "{label}"
labels = ["negative", "neutral", "positive"]
instruction = "What is the sentiment of this headline for an investor? Please choose an answer from {labels}."
[strategy]
method = "full"
[train]
num_train_epochs = 6
batch_size = 16
learning_rate = 2e-3
warmup_steps = 0.1
eval_steps = 100000
max_length = 512
[eval]
guard = { general_text = 0.1 }
"""


def gain(run: Run) -> float:
    (domain,) = run.scores()["against"]["none"]["domains"]
    return float(next(each["value"] for each in domain["differences"] if each["metric"] == "accuracy"))


@pytest.mark.slow
def test_an_overtrained_adapter_is_caught_and_a_share_of_it_keeps_most_at_half_of_the_forgetting(
    tmp_path: Path,
) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    recipe = Recipe.load(tmp_path / "recipe.toml")
    whole = train(recipe, offline=True)
    assert not whole.scores()["guard"]["general_text"]["passed"]
    assert whole.tradeoff
    assert whole.tradeoff["recommended"] < 1
    less = train(recipe.override(**{"strategy.scale": "auto"}), offline=True)
    assert less.name != whole.name
    lost = [run.scores()["forgetting"]["value"] for run in (whole, less)]
    assert gain(less) >= 0.8 * gain(whole) > 0
    assert lost[1] <= lost[0] / 2
