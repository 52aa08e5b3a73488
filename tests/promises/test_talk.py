"""Who talks with a run is asked what evaluation asked: the same ids, the same closed set, the same instruction."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import metier
from metier.cli import chat as verb
from metier.cli.main import app
from metier.data.items import Message
from metier.errors import MetierError, RunError
from metier.experiment import train
from metier.inference import conversation as talking
from metier.inference.conversation import Conversation, softmax
from metier.inference.questions import Questions
from metier.job import prepare
from metier.recipe import Recipe
from metier.run import Run
from tests.unit import tiny

_NUMBERS = range(24)
_TABLES: dict[str, Sequence[tuple[str, ...]]] = {
    # Its mapping is guessed; the column's name is no identifier.
    "mood": [("Ticket text", "label"), *((f"share {n} goes", ("up", "down", "flat")[n % 3]) for n in _NUMBERS)],
    "desk": [
        ("order", "note", "desk", "reply"),
        *((f"Where is {n}?", "" if n % 2 else f"a {{gift}} {n}", "north", f"On its way: {n}.") for n in _NUMBERS),
    ],
    "exam": [
        ("question", "a", "b", "c", "right"),
        *((f"What is {n}?", f"{n}", "a number", "" if n % 2 else "both", "A") for n in _NUMBERS),
    ],
    "plain": [("question", "reply"), *((f"Who is {n}?", f"Number {n}.") for n in _NUMBERS)],
}
_KEYS: dict[str, dict[str, Any]] = {
    "mood": {},
    "desk": {
        "prompt": "Order: {order}\nNote: {note}\n{{as typed}}\n",
        "answer": "{reply}",
        "system": "You sit in the {desk}.",
    },
    "exam": {"prompt": "{question}\n{choices}\nAnswer:", "choices": ["a", "b", "c"], "answer": "{right}"},
    "plain": {"prompt": "{question}", "answer": "{reply}"},
}


def recipe(home: Path, *names: str, **changes: Any) -> Recipe:
    """Domains of one base that is measured as it is."""
    values = {
        "model": "base",
        "domain": [{"name": name, "data": f"{name}.csv", **_KEYS[name]} for name in names],
        "strategy": {"method": "none"},
        "eval": {"max_new_tokens": 4},
        **changes,
    }
    return Recipe.of(values, home / "recipe.toml")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    tiny.save(home / "base")
    for name, table in _TABLES.items():
        with (home / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(table)
    return home


@pytest.fixture(scope="module")
def run(home: Path) -> Run:
    """Of all kinds of domain at once."""
    return train(recipe(home, *_TABLES))


def cells(home: Path, name: str, place: str) -> dict[str, str]:
    """The row of a file that an item was made of."""
    with (home / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))[int(place.rpartition(":")[2]) - 2]


@pytest.mark.long
@pytest.mark.parametrize("shots", [0, 2])
def test_the_ids_are_those_of_evaluation(home: Path, shots: int) -> None:
    asked = recipe(home, *_TABLES, strategy={"method": "none", "num_fewshot": shots})
    job, conversation = prepare(asked), Conversation(train(asked))
    assert {item.domain for item in job.heldout} == {*_TABLES}
    for item in job.heldout:
        row = cells(home, item.domain, item.place)
        mine = conversation.shown(conversation.questions.item(row, item.domain))
        assert mine.kind == item.kind
        assert conversation.renderer.prompt_ids(mine.asked) == job.renderer.prompt_ids(item.asked)
        if item.kind != "open":
            assert conversation.renderer.rows(mine, 512) == job.renderer.rows(item, 512)


def test_a_closed_set_is_told_as_it_was_measured(home: Path, run: Run) -> None:
    rows = [row for row in run.answers() if row["domain"] in ("mood", "exam")]
    for row in rows:
        said = metier.chat(run, cells(home, row["domain"], row["place"]), domain=row["domain"])
        told = dict(part.rsplit(" ", 1) for part in said.split(", "))
        assert {name: float(share) for name, share in told.items()} == pytest.approx(
            dict(zip(row["labels"], softmax(row["label_logprobs"]), strict=True)), abs=0.006
        )
        assert said.startswith(row["output"])


def test_text_alone_fills_the_only_column(home: Path, run: Run) -> None:
    questions = Questions.of(run)
    assert questions.item("share 3 goes", "mood") == questions.item({"Ticket text": "share 3 goes"}, "mood")
    assert "share 3 goes" in questions.item("share 3 goes", "mood").messages[-1].content
    assert questions.item("share 3 goes", "mood").replies == ("down", "flat", "up")


def test_later_turns_go_as_typed_and_labels_are_asked_one_by_one(run: Run) -> None:
    questions = Questions.of(run)
    before = [Message("user", "Order: 1"), Message("assistant", "Yes.")]
    assert questions.item("And when?", "desk", before).messages == (*before, Message("user", "And when?"))
    assert questions.item("share 3 goes", "mood", before) == questions.item("share 3 goes", "mood")


@pytest.mark.parametrize(
    ("said", "domain", "problem"),
    [
        ("", "mood", "nothing is asked"),
        ("  ", "plain", "nothing is asked"),
        ({"order": "", "note": " ", "desk": ""}, "desk", "nothing is asked"),
        ("Where?", "desk", "made of order, note, desk"),
        ({"order": "Where?"}, "desk", "note, desk: is missing"),
        ({"question": "?", "a": "", "b": "", "c": ""}, "exam", "holds 0 choices"),
        ("share 3 goes", "sport", "no such one"),
        ("share 3 goes", None, "several domains"),
    ],
)
def test_what_makes_no_question_is_refused(run: Run, said: Any, domain: str | None, problem: str) -> None:
    with pytest.raises(MetierError, match=problem):
        metier.chat(run, said, domain=domain)


def test_domains_that_are_asked_by_their_text_alone_need_no_choice(home: Path) -> None:
    (home / "other.csv").write_text((home / "plain.csv").read_text().replace("Who", "What"))
    domains = [{"name": name, "data": f"{name}.csv", **_KEYS["plain"]} for name in ("plain", "other")]
    both = train(recipe(home, domain=domains))
    assert isinstance(metier.chat(both, "Who is 3?"), str)


def test_the_chosen_instruction_is_asked(home: Path) -> None:
    wordings = ["Which way?", "the quick brown fox"]
    keys = {"prompt": "{instruction} {Ticket text}", "answer": "{label}", "labels": ["up", "down", "flat"]}
    domain = {"name": "mood", "data": "mood.csv", **keys, "instructions": wordings}
    run = train(recipe(home, domain=[domain]))
    for row in run.answers():
        item = Questions.of(run).item(cells(home, "mood", row["place"]), "mood")
        assert item.messages[-1].content == row["prompt"]


@pytest.mark.slow
def test_a_guessed_mapping_is_kept_and_makes_no_other_run(home: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(home, tmp_path / "copy"))
    changes = {"strategy": {"method": "lora", "peft": {"r": 2}}, "train": {"num_train_epochs": 1}}
    run = train(recipe(copy, "mood", **changes))
    (domain,) = run.recipe().domain
    assert "{Ticket text}" in str(domain.prompt)
    run.update(status="stopped")
    resumed = train(run.recipe(), resume=run)
    assert (resumed.directory, resumed.status) == (run.directory, "finished")
    assert train(run.recipe()).directory == run.directory


def test_the_terminal_asks_for_columns_one_after_the_other(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    lines = iter(["Where is 3?", "", "north", "And when?", "/quit"])
    monkeypatch.setattr(Conversation, "reply", lambda *_, **__: iter(["Yes."]))
    monkeypatch.setattr(verb, "_read", lambda prompt: asked.append(prompt) or next(lines))
    said = CliRunner().invoke(app, ["chat", str(run.directory), "--domain", "desk"])
    assert said.exit_code == 0, said.output
    assert asked == ["order: ", "note: ", "desk: ", "> ", "> "]
    assert "for example: order: Where is 1?; note: \n" in said.output


def test_who_leaves_between_two_columns_asks_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Conversation, "reply", lambda *_, **__: pytest.fail("asked"))
    said = CliRunner().invoke(app, ["chat", str(run.directory), "--domain", "desk"], input="Where is 3?\n")
    assert said.exit_code == 0, said.output


def test_the_terminal_tells_labels_and_what_the_base_says_of_them(run: Run) -> None:
    talk = CliRunner().invoke(
        app, ["chat", str(run.directory), "--domain", "mood"], input="share 3 goes\n/base\n\n/quit\n"
    )
    told = [line for line in talk.output.splitlines() if line.count(", ") == 2 and "flat " in line]
    assert told == [metier.chat(run, "share 3 goes", domain="mood")] * 2
    assert "for example: share " in talk.output


@pytest.mark.parametrize(("arguments", "problem"), [(["--domain", "sport"], "no such one"), ([], "several domains")])
def test_a_domain_is_refused_before_anything_is_loaded(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str], problem: str
) -> None:
    monkeypatch.setattr(talking, "open_run", lambda *_, **__: pytest.fail("loaded"))
    said = CliRunner().invoke(app, ["chat", str(run.directory), *arguments])
    assert isinstance(said.exception, MetierError)
    assert problem in str(said.exception)
    assert not said.output


def test_a_run_may_be_named_by_its_folder(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"domain": "mood"}
    expected = metier.chat(run, "share 3 goes", **asked)  # type: ignore[arg-type]
    assert metier.chat(str(run.directory), "share 3 goes", **asked) == expected  # type: ignore[arg-type]
    assert metier.evaluate(str(run.directory)).directory == run.directory
    assert Run(str(run.directory)) == run
    assert repr(run) == f"Run({str(run.directory)!r})"
    for use in (Run.scores, Run.answers, Run.plan, Run.recipe, str, lambda each: metier.chat(each, "?")):
        with pytest.raises(RunError, match="is no run"):
            use(Run("runs/nope"))
