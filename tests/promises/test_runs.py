"""A run proves itself: what it depends on makes its name, and what was tested is what is used."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer
from typer.testing import CliRunner

from metier.cli.main import app
from metier.errors import ModelError, RunError
from metier.events import Event
from metier.experiment import evaluate, train
from metier.inference.conversation import Conversation, chat
from metier.job import prepare
from metier.recipe import Recipe
from metier.run import Run
from metier.training.loop import Stopped
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
[eval]
max_new_tokens = 4
general_text = "general.csv"
general_choices = ""
"""


def write(path: Path, rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, its base and data, and the finished run of it."""
    home = tmp_path_factory.mktemp("home")
    tiny.save(home / "base")
    (home / "recipe.toml").write_text(_RECIPE)
    labels = [("up", "rises"), ("down", "falls"), ("down", "sinks")]
    rows = [(f"share {number} {labels[number % 3][1]}", labels[number % 3][0]) for number in range(40)]
    write(home / "x.csv", [("text", "label"), *rows])
    write(home / "general.csv", [("text",), ("The sea is calm today.",), ("Two and two make four.",)])
    train(Recipe.load(home / "recipe.toml"))
    return home


@pytest.fixture
def copy(home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(home, tmp_path / "moved"))


def again(home: Path, **how: Any) -> Run:
    return train(Recipe.load(home / "recipe.toml"), **how)


def tuned(home: Path) -> Run:
    (directory,) = (home / "runs").glob("lora-*")
    return Run.open(directory)


def test_the_same_recipe_finds_its_finished_run(copy: Path) -> None:
    before = (tuned(copy).directory / "run.json").read_bytes()
    assert again(copy).directory == tuned(copy).directory
    assert (tuned(copy).directory / "run.json").read_bytes() == before


@pytest.mark.parametrize("limit", [1e9, 0.0])
def test_a_guard_added_later_judges_the_run_that_there_is(copy: Path, limit: float) -> None:
    name = tuned(copy).name
    with (copy / "recipe.toml").open("a") as file:
        file.write(f"[eval.guard]\ngeneral_text = {limit}\n")
    run = again(copy)
    assert run.name == name
    value = run.scores()["forgetting"]["value"]
    assert run.scores()["guard"]["general_text"] == {"limit": limit, "value": value, "passed": value <= limit}


def test_another_tokenizer_makes_another_run(copy: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(copy / "base")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|never|>"]})
    tokenizer.save_pretrained(copy / "base")
    name = tuned(copy).name
    assert again(copy).name != name


def test_a_moved_project_is_at_home_where_it_is(home: Path, copy: Path) -> None:
    run = tuned(copy)
    run.update(status="stopped")
    assert run.recipe().directory == copy
    resumed = train(run.recipe(), resume=run)
    assert (resumed.directory, resumed.status) == (run.directory, "finished")
    assert tuned(home).adapter.joinpath("adapter_model.safetensors").read_bytes() == (
        resumed.adapter.joinpath("adapter_model.safetensors").read_bytes()
    )


def test_resuming_on_other_data_says_what_changed(copy: Path) -> None:
    run = tuned(copy)
    run.update(status="stopped")
    text = (copy / "x.csv").read_text()
    (copy / "x.csv").write_text(text.replace("share 7", "stock 7"))
    with pytest.raises(RunError, match=r"cannot continue: .*(train|heldout).* changed since it began"):
        train(run.recipe(), resume=run)
    assert len(list((copy / "runs").glob("lora-*"))) == 1


@pytest.mark.parametrize("use", [evaluate, Conversation])
def test_what_is_not_finished_is_said(copy: Path, use: Callable[[Run], object]) -> None:
    run = tuned(copy)
    run.update(status="stopped")
    (run.directory / "scores.json").unlink()
    with pytest.raises(RunError, match="is not finished") as told:
        use(run)
    assert "--resume" in told.value.hint


def test_a_changed_adapter_is_not_served(copy: Path) -> None:
    weights = tuned(copy).adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + b"\1" * 8)
    with pytest.raises(ModelError, match="is not what was tested"):
        Conversation(tuned(copy))


def test_an_untuned_run_talks_only_through_its_own_base(copy: Path) -> None:
    (untuned,) = (copy / "runs").glob("none-*")
    assert Conversation(Run.open(untuned)).questions.columns == {"mood": ["text"]}
    tiny.save(copy / "base", num_hidden_layers=3)
    with pytest.raises(ModelError, match="is not the base any more"):
        Conversation(Run.open(untuned))


def test_what_was_left_out_of_the_files_stands_in_the_run_and_its_report(copy: Path) -> None:
    with (copy / "x.csv").open("a") as file:
        file.write("share 41 turns,sideways\n")
    shutil.rmtree(copy / "runs")
    changes = {"strategy": {"method": "classical"}, "domain.mood.skip_faulty": True}
    run = train(Recipe.load(copy / "recipe.toml", changes))
    (note,) = run.facts["notes"]
    assert "sideways" in note
    assert "left out (skip_faulty)" in run.report.read_text()


def test_how_a_training_ended_is_said(copy: Path) -> None:
    shutil.rmtree(copy / "runs")
    heard: list[Event] = []
    run = again(copy, on_event=heard.append)
    assert any(f"keeps step {run.facts['best_step']} " in str(event.values.get("text")) for event in heard)


def test_two_processes_do_not_share_a_run(copy: Path) -> None:
    run = tuned(copy)
    run.update(status="stopped")
    with run.locked(), pytest.raises(RunError, match="another process"):
        again(copy)


def test_a_busy_run_is_refused_before_anything_is_told(copy: Path) -> None:
    run, heard = tuned(copy), list[Event]()
    run.update(status="stopped")
    with run.locked(), pytest.raises(RunError, match="another process"):
        train(run.recipe(), resume=run, on_event=heard.append)
    assert not any("parameters" in str(event.values.get("text")) for event in heard)


def test_a_run_that_was_killed_is_told_from_one_that_goes_on(copy: Path) -> None:
    run = tuned(copy)
    run.update(status="started")
    with run.locked():
        assert run.status == "started"
        assert f"{run.name}  started" in CliRunner().invoke(app, ["runs", str(copy)]).output
    assert run.status == "interrupted"
    assert f"{run.name}  interrupted" in CliRunner().invoke(app, ["runs", str(copy)]).output
    (run.directory / "lock").unlink()
    before = {*run.directory.iterdir()}
    assert run.status == "interrupted"
    assert {*run.directory.iterdir()} == before
    with pytest.raises(RunError, match="interrupted") as told:
        run.finished()
    assert "--resume" in told.value.hint


@pytest.mark.parametrize("sampler", ["stratified", "nearest"])
def test_examples_in_front_are_a_strategy_of_their_own(copy: Path, sampler: str) -> None:
    """Measured beside the same base asked bare, and talked with as it was measured."""
    strategy = {"method": "none", "num_fewshot": 2, "fewshot_sampler": sampler}
    heard: list[Event] = []
    run = train(Recipe.load(copy / "recipe.toml", {"strategy": strategy}), on_event=heard.append)
    assert {event.phase for event in heard} == {"few-shot"}  # base and baseline were measured before
    (bare,) = (each for each in (copy / "runs").glob("none-*") if each != run.directory)
    against = {role: each["run"] for role, each in run.scores()["against"].items()}
    assert against["none"] == bare.name
    asked, plain = ({row["id"]: row["logprob"] for row in each.answers()} for each in (run, Run(bare)))
    assert asked.keys() == plain.keys()
    assert all(asked[each] != plain[each] for each in asked)
    assert re.fullmatch(r"(up|down) \d\.\d\d, (up|down) \d\.\d\d", chat(run, "share 1 rises"))


def test_other_examples_are_another_run(copy: Path) -> None:
    strategy = {"method": "none", "num_fewshot": 2, "fewshot_sampler": "random"}
    one, other = (train(Recipe.load(copy / "recipe.toml", {"strategy": strategy, "train.seed": n})) for n in (1, 2))
    assert one.directory != other.directory


@pytest.mark.long
@pytest.mark.parametrize("sampler", ["stratified", "nearest"])
def test_who_chats_is_asked_what_was_measured(copy: Path, sampler: str) -> None:
    """With as many examples as there was room for, chosen by the same message, in every turn."""
    strategy = {"method": "none", "num_fewshot": 30, "fewshot_sampler": sampler}
    recipe = Recipe.load(copy / "recipe.toml", {"strategy": strategy, "train.max_length": 96})
    items, conversation = prepare(recipe).heldout, Conversation(train(recipe))
    assert all(0 < len(item.shots) < 30 for item in items)
    for item in items:
        asked = conversation.shown(conversation.questions.item(item.messages[-1].content, "mood"))
        rows = conversation.renderer.label_rows(asked)
        assert rows == conversation.renderer.label_rows(item)
        assert max(len(row.tokens) for row in rows) <= 96


def test_a_stop_is_heard_while_the_base_is_measured(copy: Path) -> None:
    shutil.rmtree(copy / "runs")
    heard: list[Event] = []
    with pytest.raises(Stopped) as told:
        again(copy, on_event=heard.append, stop=lambda: any(event.phase == "base" for event in heard))
    assert "--resume" in told.value.hint
    assert not any(event.phase == "train" for event in heard)
    assert again(copy).status == "finished"


def test_a_base_whose_numbers_are_broken_is_never_scored(copy: Path) -> None:
    shutil.rmtree(copy / "runs")
    weights = load_file(copy / "base" / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, copy / "base" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RunError, match=r"x\.csv:\d+: the model gives a log-probability of nan"):
        again(copy)


def test_rows_longer_than_the_bases_context_are_dropped(copy: Path) -> None:
    """Its 512 positions are fewer than the default max_length."""
    with (copy / "x.csv").open("a") as file:
        file.write("".join(f"{'long ' * 600} {number},up\n" for number in range(10)))
    run = again(copy)
    assert run.facts["dropped"]
    assert all("more than max_length = 512" in line for line in run.facts["dropped"])
    assert run.recipe().train.max_length == 512


def test_runs_are_listed_with_their_scores_and_without_what_they_were_compared_with(home: Path) -> None:
    listed = CliRunner().invoke(app, ["runs", str(home)])
    assert tuned(home).name in listed.output
    assert re.search(r"mood \d+\.\d % accuracy", listed.output)
    assert "none-" not in listed.output
    every = CliRunner().invoke(app, ["runs", str(home), "--all"])
    assert "none-" in every.output
    assert "classical-" in every.output


def test_who_opens_a_chat_is_told_what_it_was_made_for(home: Path) -> None:
    run = tuned(home)
    said = CliRunner().invoke(app, ["chat", str(run.directory)], input="/quit\n")
    assert said.exit_code == 0
    assert f"{run.name} on {run.facts['model']}" in said.output
    assert "its data asks, for example: " in said.output


def test_a_sweep_ends_in_the_run_of_the_rate_that_it_chose(copy: Path) -> None:
    """Each rate is tried from the same beginning, on validation alone, and none leaves a trace in what follows."""
    recipe = Recipe.load(copy / "recipe.toml", {"train.learning_rate": 1e-3})
    swept = train(recipe.override(**{"train.sweep": [0.5, 2.0]}))
    tried = swept.facts["sweep"]
    assert [each["factor"] for each in tried] == [0.5, 2.0]
    best = max(tried, key=lambda each: (each["score"], -each["factor"]))
    alone = train(recipe.override(**{"train.learning_rate": best["learning_rate"]}))
    assert swept.name != alone.name
    weights = [load_file(run.adapter / "adapter_model.safetensors") for run in (swept, alone)]
    assert weights[0].keys() == weights[1].keys()
    assert all(bool((weights[0][name] == weights[1][name]).all()) for name in weights[0])
    assert not (swept.directory / "sweep").exists()
