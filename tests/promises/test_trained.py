"""A domain that is measured only: nothing is learned from it or chosen by it, and it is answered as the others."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from metier.errors import RecipeError
from metier.evaluation.answers import GENERAL
from metier.experiment import train
from metier.identity import meaning
from metier.job import Job, prepare
from metier.recipe import Recipe
from metier.run import Run
from tests.unit import tiny

_RECIPE = """
model = "base"
[[domain]]
name = "mood"
data = "mood.csv"
prompt = "{text}"
answer = "{label}"
labels = ["up", "down"]
[[domain]]
name = "taste"
data = "taste.csv"
prompt = "{text}"
answer = "{label}"
labels = ["sweet", "sour"]
[strategy]
method = "lora"
[strategy.peft]
r = 2
[train]
num_train_epochs = 1
[eval]
general_text = "general.csv"
"""
_ALONE = {"domain.taste.trained": False}


def write(home: Path, name: str, noun: str, labels: tuple[str, str]) -> None:
    rows = [f"{noun} {number} is it,{labels[number % 3 == 0]}" for number in range(40)]
    (home / f"{name}.csv").write_text("text,label\n" + "\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    tiny.save(home / "base")
    write(home, "mood", "share", ("up", "down"))
    write(home, "taste", "pear", ("sweet", "sour"))
    (home / "general.csv").write_text("text\nthe lazy dog\n")
    (home / "recipe.toml").write_text(_RECIPE)
    (home / "one.toml").write_text(
        _RECIPE.replace(_RECIPE[_RECIPE.rindex("[[domain]]") : _RECIPE.index("[strategy]")], "")
    )
    return home


@pytest.fixture(scope="module")
def expert(home: Path) -> Run:
    return train(Recipe.load(home / "recipe.toml", _ALONE))


def job(home: Path, **changes: Any) -> Job:
    return prepare(Recipe.load(home / "recipe.toml", changes), offline=True)


def weights(run: Run) -> bytes:
    return (run.adapter / "adapter_model.safetensors").read_bytes()


@pytest.mark.long
def test_an_expert_is_the_adapter_of_its_domain_alone(home: Path, expert: Run) -> None:
    alone = train(Recipe.load(home / "one.toml"))
    assert weights(expert) == weights(alone)
    assert weights(expert) != weights(train(Recipe.load(home / "recipe.toml")))
    own = {row["id"]: row["label_logprobs"] for row in alone.answers() if row["kind"] == "label"}
    crossed = {row["id"]: row["label_logprobs"] for row in expert.answers() if row["domain"] == "mood"}
    assert crossed == {each: pytest.approx(logprobs, abs=1e-5) for each, logprobs in own.items()}


def test_what_is_not_trained_on_is_answered_and_not_seen(home: Path, expert: Run) -> None:
    whole = prepare(Recipe.load(home / "recipe.toml"), offline=True)
    mood, _ = whole.data.domains
    assert {row["domain"] for row in expert.answers() if row["kind"] == "label"} == {"mood", "taste"}
    assert sum(row["kind"] not in GENERAL for row in expert.answers()) == len(whole.heldout)
    assert {side: len(each) for side, each in expert.seen().items()} == {
        "train": len(mood.train),
        "validation": len(mood.validation),
    }
    data = expert.facts["data"]["taste"]
    assert (data["train"], data["validation"], data["target_tokens"], data["weight"]) == (0, 0, 0, 0)
    assert data["heldout"] == expert.facts["data"]["mood"]["heldout"]
    assert expert.facts["data"]["mood"]["weight"] == 1


def test_a_recipe_that_trains_on_all_keeps_its_key(home: Path) -> None:
    """As it was before there were others."""
    assert meaning(job(home).recipe)["domain"] == [{"name": "mood", "weight": 1.0}, {"name": "taste", "weight": 1.0}]


@pytest.mark.long
def test_an_instruction_was_chosen_by_rows_that_are_not_trained_on(home: Path) -> None:
    asked = {"prompt": "{instruction} {text}", "instructions": ["How is it?", "What is it like?"]}
    changes = {**_ALONE, **{f"domain.taste.{key}": value for key, value in asked.items()}}
    run = train(Recipe.load(home / "recipe.toml", changes))
    mood, taste = prepare(Recipe.load(home / "recipe.toml", changes), offline=True).data.domains
    assert run.facts["wordings"].keys() == {"taste"}
    assert len(run.seen()["train"]) == len(mood.train)
    assert len(run.seen()["validation"]) == len(mood.validation) + len(taste.validation)


def test_base_and_baseline_are_those_of_every_expert(home: Path, expert: Run) -> None:
    whole = train(Recipe.load(home / "recipe.toml"))
    assert whole.directory != expert.directory
    assert [each["run"] for each in whole.scores()["against"].values()] == [
        each["run"] for each in expert.scores()["against"].values()
    ]


def test_its_training_rows_and_its_weight_change_no_expert(home: Path, expert: Run, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(home, tmp_path / "copy"))
    rows = [row for row in prepare(Recipe.load(copy / "recipe.toml"), offline=True).data.domains[1].train]
    path = copy / "taste.csv"
    text = rows[0].messages[-1].content
    lines = [
        f"{text},{'sweet' if line.endswith('sour') else 'sour'}" if line.startswith(f"{text},") else line
        for line in path.read_text().splitlines()
    ]
    path.write_text("\n".join(lines) + "\n")
    again = train(Recipe.load(copy / "recipe.toml", {**_ALONE, "domain.taste.weight": 3.0}))
    assert again.name == expert.name
    assert train(Recipe.load(copy / "recipe.toml", {"domain.mood.trained": False})).name != expert.name


def test_what_check_tells_of_it(home: Path) -> None:
    lines = str(job(home, **_ALONE)).splitlines()
    (told,) = (line.split() for line in lines if line.startswith("taste "))
    assert told[1:] == ["label", "0", "0", told[4], "0", "0", "0%"]


def test_nothing_to_train_on_is_a_fault(home: Path) -> None:
    with pytest.raises(RecipeError, match="domain: none of them is trained on"):
        job(home, **_ALONE, **{"domain.mood.trained": False})
    with pytest.raises(RecipeError, match="domain: none that is there is trained on"):
        job(home, **_ALONE, **{"domain.mood.data": "absent.csv", "domain.mood.optional": True})


def test_a_head_answers_only_what_it_learned(home: Path) -> None:
    with pytest.raises(RecipeError, match=r"domain taste: trained: is false, but a head"):
        job(home, **_ALONE, strategy={"method": "head"})
