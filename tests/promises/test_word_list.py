"""A list of words is a strategy as any other; what a run says of labels and versions follows the recipe."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from metier.errors import DataError, MetierError
from metier.experiment import evaluate, locate, train
from metier.inference.conversation import Conversation
from metier.recipe import Recipe
from metier.run import Run
from tests.unit import tiny

_RECIPE = """
model = "base"
[[domain]]
name = "ads"
data = "ads.csv"
heldout = "named.csv"
versions = { of = "base", attribute = "what", group = "who", favourable = "fair" }
prompt = "{text}"
answer = "{label}"
labels = ["fair", "biased"]
[strategy]
method = "word-list"
words = "own.toml"
[eval]
general_text = "general.csv"
"""
_LIST = """
otherwise = "fair"
[[rule]]
label = "biased"
words = ["only for", "she"]
"""


def write(path: Path, rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    tiny.save(home / "base")
    (home / "recipe.toml").write_text(_RECIPE)
    (home / "own.toml").write_text(_LIST)
    says = {"fair": "work", "biased": "only for some"}
    plain = [(f"a job {number}, {says[label]}", label) for number in range(20) for label in says]
    write(home / "ads.csv", [("text", "label"), *plain])
    named = [
        (str(number), "gender", who, f"place {number}: {who} asks, {says[label]}", label)
        for number in range(12)
        for label in [("fair", "biased")[number % 2]]
        for who in ("she", "he")
    ]
    write(home / "named.csv", [("base", "what", "who", "text", "label"), *named])
    write(home / "general.csv", [("text",), ("The sea is calm today.",)])
    return home


@pytest.fixture(scope="module")
def run(home: Path) -> Run:
    return train(Recipe.load(home / "recipe.toml"))


@pytest.mark.long
def test_it_is_a_run_beside_the_classical_baseline(run: Run) -> None:
    assert run.status == "finished"
    assert set(run.scores()["against"]) == {"classical"}
    (domain,) = run.scores()["domains"]
    assert domain["n"] == 24
    assert domain["scores"][0]["value"] == 18 / 24  # every fair one that names her is taken for biased
    assert "against the classical baseline" in str(run)
    assert evaluate(run).scores() == run.scores()


def test_scores_terminal_and_page_say_whom_it_answers_otherwise(run: Run) -> None:
    (found,) = run.scores()["counterfactuals"]
    assert found["favourable"] == "fair"
    (gender,) = found["attributes"]
    assert gender["flips"]["value"] == 0.5
    assert {group: rate["value"] for group, rate in gender["rates"].items()} == {"she": 0.0, "he": 0.5}
    assert gender["impact_ratio"]["value"] == 0
    assert "naming other people: 50.0 %" in str(run)
    page = run.report.read_text()
    assert '<section id="counterfactuals">' in page
    assert "naming other people: 50.0 %" in page
    assert "word list" in page
    assert "the tuned model" not in page


@pytest.mark.long
def test_another_list_is_another_run_and_the_same_one_is_found(home: Path, run: Run) -> None:
    recipe = Recipe.load(home / "recipe.toml")
    (home / "copy.toml").write_text(f"# the same\n{_LIST}")
    (home / "other.toml").write_text(_LIST.replace('"she"', '"hers"'))
    assert train(recipe.override(**{"strategy.words": "copy.toml"})).name == run.name
    found, finished = locate(recipe)
    assert finished
    assert found is not None
    assert found.name == run.name
    other = train(recipe.override(**{"strategy.words": "other.toml", "train.seed": 3}))
    assert other.name != run.name
    assert other.scores()["counterfactuals"][0]["flips"]["value"] == 0


@pytest.mark.long
def test_labels_of_a_model_are_told_without_another_run(home: Path, run: Run) -> None:
    recipe = Recipe.load(home / "recipe.toml")
    told = "the answers of ads came from a model: agreement with them is not correctness"
    assert told not in run.scores()["verdict"]
    by_model = train(recipe.override(**{"domain.ads.labelled_by": "model"}))
    assert by_model.name == run.name
    assert told in by_model.scores()["verdict"]
    assert told in by_model.report.read_text()
    assert told in str(by_model)
    assert told not in train(recipe).scores()["verdict"]


def test_what_it_cannot_do_is_refused(home: Path, run: Run) -> None:
    recipe = Recipe.load(home / "recipe.toml")
    with pytest.raises(DataError, match="does not have the labels biased, unbiased"):
        train(recipe.override(**{"strategy.words": "job-ads"}))
    with pytest.raises(MetierError, match="cannot chat: the word list is no language model"):
        Conversation(run)
