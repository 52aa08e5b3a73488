from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from metier.assistant.feedback import Feedback, Model
from metier.assistant.store import Turn
from metier.cli.main import app
from metier.errors import DataError, MetierError

OURS, OTHERS = Model("desk-1", "abc"), Model("desk-2", "def")


def question(number: int) -> list[Turn]:
    earlier = [Turn("system", "You help."), Turn("user", "Hi"), Turn("assistant", "Hello.")] if number % 2 else []
    return [*earlier, Turn("user", f"Where is order {number}?")]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def feedback(tmp_path: Path) -> Feedback:
    """Twelve corrected answers, each of whose questions was answered to somebody's liking elsewhere."""
    feedback = Feedback(tmp_path / "assistant.db")
    for number in range(12):
        feedback.add(question(number), "No idea.", "retail", OURS, liked=False, correction=f"It is on shelf {number}.")
        feedback.add(question(number), f"Look on shelf {number}.", "retail", OTHERS, liked=True)
    return feedback


def test_an_opinion_is_kept_masked(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path / "a.db")
    asked = [Turn("user", "I am jo@mail.org")]
    feedback.add(asked, " Hi jo@mail.org ", "retail", OURS, liked=True, correction="Dear jo@mail.org")
    (thumb,) = feedback.listed()
    assert thumb.question == (Turn("user", "I am [e-mail address]"),)
    assert (thumb.answer, thumb.correction) == ("Hi [e-mail address]", "Dear [e-mail address]")
    assert (thumb.model, thumb.liked, thumb.domain) == (OURS, True, "retail")
    assert thumb.given.endswith("+00:00")


@pytest.mark.parametrize(("turns", "answer"), [([], "x"), ([Turn("assistant", "x")], "x"), ([Turn("user", "x")], " ")])
def test_an_opinion_is_of_an_answer_to_a_question(tmp_path: Path, turns: Sequence[Turn], answer: str) -> None:
    with pytest.raises(MetierError, match="is of no answer"):
        Feedback(tmp_path / "a.db").add(turns, answer, "retail", OURS, liked=True)


def test_corrections_become_answers_and_pairs_with_where_they_come_from(feedback: Feedback, tmp_path: Path) -> None:
    written = feedback.export(tmp_path / "out")
    answers, pairs = tmp_path / "out" / "retail.answers.jsonl", tmp_path / "out" / "retail.pairs.jsonl"
    assert written == {answers: 12, pairs: 24}
    first, second = rows(answers)[:2]
    assert [each["content"] for each in first["messages"]] == ["Where is order 0?", "It is on shelf 0."]
    assert [each.get("weight") for each in second["messages"]] == [None, None, 0, None, None]
    (source,) = first["provenance"]["feedback"]
    assert first["provenance"]["kind"] == "correction"
    assert (source["run"], source["adapter"], source["liked"]) == ("desk-1", "abc", False)
    told = {
        (row["prompt"][-1]["content"], row["chosen"][0]["content"], row["rejected"][0]["content"])
        for row in rows(pairs)
    }
    assert ("Where is order 3?", "It is on shelf 3.", "No idea.") in told
    assert ("Where is order 3?", "Look on shelf 3.", "No idea.") in told
    assert {row["provenance"]["kind"] for row in rows(pairs)} == {"correction", "thumbs"}
    assert len(rows(pairs)[-1]["provenance"]["feedback"]) == 2


def test_only_of_the_runs_that_are_named_and_never_twice(feedback: Feedback, tmp_path: Path) -> None:
    feedback.add(question(0), "No idea.", "retail", OURS, liked=False, correction="It is on shelf 0.")
    assert [*feedback.export(tmp_path / "one", ["desk-1"]).values()] == [12, 12]
    assert feedback.export(tmp_path / "two", ["desk-2"]) == {}


def test_nothing_is_overwritten(feedback: Feedback, tmp_path: Path) -> None:
    feedback.export(tmp_path / "out")
    before = (tmp_path / "out" / "retail.pairs.jsonl").read_bytes()
    with pytest.raises(DataError, match="is there already") as error:
        feedback.export(tmp_path / "out")
    assert len(error.value.faults) == 2
    assert (tmp_path / "out" / "retail.pairs.jsonl").read_bytes() == before


def test_the_verb_writes_rows_that_check_reads(
    feedback: Feedback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["feedback", "assistant.db", "--run", "desk-1", "--run", "desk-2", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {
        str(Path("feedback/retail.answers.jsonl")): 12,
        str(Path("feedback/retail.pairs.jsonl")): 24,
    }
    assert "without a correction: what teaches is a question with a liked" in done.stderr
    for kind, read in (("answers", "→ answer"), ("pairs", "→ disliked")):
        checked = CliRunner().invoke(app, ["check", str(Path("feedback") / f"retail.{kind}.jsonl"), "--offline"])
        assert checked.exit_code == 0, checked.output
        assert read in checked.output
        assert "no faults" in checked.output


def test_a_database_that_is_absent_is_not_made(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["feedback", str(tmp_path / "none.db")])
    assert isinstance(done.exception, MetierError)
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    ("domain", "name"), [("/tmp/x/escaped", "tmp_x_escaped"), ("a/b", "a_b"), ("..", "base"), ("名" * 100, "名" * 66)]
)
def test_no_domain_leads_out_of_the_folder(tmp_path: Path, domain: str, name: str) -> None:
    feedback = Feedback(tmp_path / "a.db")
    feedback.add([Turn("user", "x")], "no", domain, OURS, liked=False, correction="yes")
    assert [*feedback.export(tmp_path / "out")] == [
        tmp_path / "out" / f"{name}.{kind}.jsonl" for kind in ("answers", "pairs")
    ]
