"""Of several instructions the one is taken with which the untuned base answers the validation slice best."""

from __future__ import annotations

import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metier import wording
from metier.data import dataset
from metier.data.sources import Row, read_rows
from metier.domain import Domain
from metier.errors import Fault, RecipeError
from metier.events import Event, silent
from metier.experiment import train
from metier.inference.engine import Capacity, Engine
from metier.job import prepare
from metier.model.loading import NumberFormat, load
from metier.recipe import Recipe
from metier.run import Run
from tests.unit import tiny

WORDINGS = ["Which way?", "Say up or down: {labels}.", "the quick brown fox"]
_RECIPE = f"""
model = "base"
[[domain]]
name = "mood"
data = "x.csv"
prompt = "{{instruction}} {{text}}"
answer = "{{label}}"
labels = ["up", "down"]
instructions = {WORDINGS}
[strategy]
method = "lora"
[train]
num_train_epochs = 1
[eval]
general_text = "general.csv"
general_choices = ""
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    tiny.save(home / "base")
    rows = [f"share {number} goes,{('up', 'down')[number * 7 % 3 == 0]}" for number in range(60)]
    (home / "x.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    (home / "general.csv").write_text("text\nthe lazy dog\n")
    (home / "recipe.toml").write_text(_RECIPE)
    return home


def asked(run: Run) -> set[str]:
    return {row["prompt"].partition(" share")[0] for row in run.answers()[:12] if row["kind"] == "label"}


def test_the_best_on_validation_is_what_base_and_tuned_model_are_asked(home: Path) -> None:
    heard: list[Event] = []
    run = train(Recipe.load(home / "recipe.toml"), on_event=heard.append)
    (untuned,) = (Run.open(each) for each in (home / "runs").glob("none-*"))
    chosen = untuned.facts["wordings"]["mood"]
    assert run.facts["wordings"] == {"mood": chosen}
    assert asked(run) == asked(untuned) == {chosen.replace("{labels}", "up/down")}
    (note,) = (str(event.values["text"]) for event in heard if "instructions" in str(event.values.get("text")))
    scores = {text: float(note.partition(f"{text!r} ")[2].split(",")[0]) for text in WORDINGS if text != chosen}
    own = float(note.rpartition(f"{chosen!r} ")[2].split(",")[0])
    assert own >= max(scores.values())
    assert train(Recipe.load(home / "recipe.toml")).directory == run.directory


def test_the_data_is_read_once_for_all_wordings(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Path(shutil.copytree(home, tmp_path / "copy", ignore=shutil.ignore_patterns("runs", "*.split.json")))
    read: list[str] = []

    def watched(domain: Domain, path: Path, *more: list[Fault]) -> list[Row]:
        read.append(path.name)
        return read_rows(domain, path, *more)

    monkeypatch.setattr(dataset, "read_rows", watched)
    base = load(copy / "base", NumberFormat("float32", "float32"), "cpu")
    job = prepare(Recipe.load(copy / "recipe.toml"))
    read.clear()
    engine = Engine(base.forward, Capacity(2048, 8), boundary=None)
    wording.choose_wordings(job, engine, silent, offline=True)
    assert read == ["x.csv"]


def test_it_opens_no_socket_offline_and_looks_at_no_item_that_the_job_has_not(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An optional domain is absent, and some validation items were learned by an earlier stage."""
    copy = Path(shutil.copytree(home, tmp_path / "copy", ignore=shutil.ignore_patterns("runs")))
    far = '[[domain]]\nname = "far"\ndata = "hub:owner/nothing:train"\noptional = true\n'
    text = (copy / "recipe.toml").read_text()
    (copy / "recipe.toml").write_text(text.replace("[strategy]", f"{far}[strategy]"))
    tried: list[Any] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: tried.append(address))
    job = prepare(Recipe.load(copy / "recipe.toml"), offline=True)
    (mood,) = job.data.domains
    kept = mood.validation[:2]
    job = replace(job, data=replace(job.data, domains=(replace(mood, validation=kept),)))
    asked: list[str] = []
    engine = Engine(
        load(copy / "base", NumberFormat("float32", "float32"), "cpu").forward, Capacity(2048, 8), boundary=None
    )
    answered = wording.answer
    monkeypatch.setattr(
        wording, "answer", lambda *given: asked.extend(item.id for item in given[2]) or answered(*given)
    )
    wording.choose_wordings(job, engine, silent, offline=True)
    assert tried == []
    assert asked == [item.id for item in kept] * len(WORDINGS)


def test_heldout_answers_have_no_say(home: Path) -> None:
    untuned = train(Recipe.load(home / "recipe.toml", {"strategy": {"method": "none"}}))
    held = {row["place"] for row in untuned.answers()}
    lines = (home / "x.csv").read_text().splitlines()
    flip = {"up": "down", "down": "up"}
    for place in held:
        number = int(place.rpartition(":")[2]) - 1
        text, label = lines[number].split(",")
        lines[number] = f"{text},{flip[label]}"
    (home / "x.csv").write_text("\n".join(lines) + "\n")
    again = train(Recipe.load(home / "recipe.toml", {"strategy": {"method": "none"}}))
    assert again.directory != untuned.directory
    assert again.facts["wordings"] == untuned.facts["wordings"]


@pytest.mark.slow
def test_another_list_is_another_choice(home: Path) -> None:
    before = train(Recipe.load(home / "recipe.toml", {"strategy": {"method": "none"}}))
    wordings = [WORDINGS[0], "my card was swallowed"]
    changes = {"strategy": {"method": "none"}, "domain.mood.instructions": wordings}
    again = train(Recipe.load(home / "recipe.toml", changes))
    assert again.directory != before.directory
    assert again.facts["wordings"]["mood"] in wordings


@pytest.mark.parametrize(
    ("keys", "says"),
    [('["a", "a"]', "two different"), ('["a"]', "two different"), ('["a", "b"]\ninstruction = "c"', "does not go")],
)
def test_several_are_several(tmp_path: Path, keys: str, says: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(_RECIPE.replace(str(WORDINGS), keys))
    with pytest.raises(RecipeError, match=says):
        Recipe.load(path)


def test_a_tie_is_no_win(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setattr("metier.wording._score", lambda *_: 0.5)
    heard: list[Event] = []
    shutil.rmtree(home / "runs", ignore_errors=True)
    train(Recipe.load(home / "recipe.toml", {"strategy": {"method": "none"}}), on_event=heard.append)
    told = " ".join(str(event.values.get("text")) for event in heard)
    assert f"{WORDINGS[0]!r} is the first of those that are equally good on validation" in told
