"""Kinds of items beyond answers and labels: what may be guessed, what belongs together, what tells nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from metier.data.dataset import DomainData, load
from metier.data.guessing import complete, propose
from metier.data.items import Item, Message, make_items
from metier.data.rendering import Renderer
from metier.data.shots import Shots
from metier.data.sources import EXPLODED, Row, read_rows
from metier.domain import Domain
from metier.errors import DataError
from metier.recipe import Recipe
from tests.unit import tiny


def rows(values: list[dict[str, Any]]) -> list[Row]:
    return [Row(f"x:{number}", number, each) for number, each in enumerate(values)]


def domain(**keys: Any) -> Domain:
    return Domain(name="d", data="x.jsonl", **keys)


def items(values: list[dict[str, Any]], **keys: Any) -> list[Item]:
    found = rows(values)
    return make_items(complete(domain(**keys), found), found)


def data(folder: Path, lines: list[dict[str, Any]], **keys: Any) -> DomainData:
    (folder / "x.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    raw = {"model": "nano", "domain": [{"name": "d", "data": "x.jsonl", **keys}]}
    return load(Recipe.of(raw, folder / "recipe.toml")).domains[0]


PAIRS = [
    {"prompt": f"Why {n}?", "chosen": f"For {n}.", "rejected": f"No {n}.", "better": f"B{n}", "worse": f"W{n}"}
    for n in range(12)
]


def test_what_the_recipe_says_is_not_guessed_away() -> None:
    assert items(PAIRS, answer="{better}", rejected="worse")[0].reference == "B0"
    assert items(PAIRS, prompt="{prompt}", answer="{chosen}")[0].kind == "open"
    rated = [{"prompt": f"Q {n}", "response": f"R {n}", "rating": n % 2 == 0} for n in range(12)]
    assert items(rated)[0].kind == "rated"
    assert items(rated, prompt="{prompt}", answer="{response}")[0].kind == "open"


def test_rated_answers_are_no_labels_however_short() -> None:
    rated = [{"prompt": f"Is {n} even?", "response": ("Yes.", "No.")[n % 2], "thumbs": n % 3 == 0} for n in range(30)]
    found = items(rated)
    assert (found[0].kind, found[0].replies, found[0].liked) == ("rated", ("Yes.",), True)


def test_a_pairs_order_does_not_tell_which_is_right() -> None:
    assert {item.answer for item in items(PAIRS)} == {0, 1}
    assert all(item.reference.startswith("For") and item.other.startswith("No") for item in items(PAIRS))


@pytest.mark.parametrize(("answers", "first"), [((0, 1, 2), "A"), ((2, 3, 4), "B"), ((1, 2, 3), None)])
def test_numbers_of_choices_are_counted_only_where_it_is_clear(answers: tuple[int, ...], first: str | None) -> None:
    asked = [
        {"question": f"Which {n} of them?", "a": "w", "b": "x", "c": "y", "d": "z", "answer": str(answers[n % 3])}
        for n in range(12)
    ]
    if first is None:
        with pytest.raises(DataError, match="numbers need label_map"):
            items(asked)
    else:
        assert items(asked)[0].reference == first


def test_a_question_is_the_same_in_whatever_order_its_choices_stand(tmp_path: Path) -> None:
    options = ["red", "green", "blue", "white"]
    lines = [
        {"question": f"Which is number {n}?", "choices": options[turn:] + options[:turn], "answer": options[n % 4]}
        for n in range(20)
        for turn in range(4)
    ]
    found = data(tmp_path, lines)
    asked = [{item.messages[-1].content.partition("\n")[0] for item in side} for side in (found.train, found.heldout)]
    assert not asked[0] & asked[1]


def test_entries_of_one_row_stay_together(tmp_path: Path) -> None:
    lines = [
        {
            "context": f"Text {n} tells of things.",
            "qas": [{"question": f"{n} {k}?", "answer": f"{n * k}!"} for k in range(4)],
        }
        for n in range(20)
    ]
    found = data(tmp_path, lines, explode="qas", prompt="{context}\n{question}", answer="{answer}")
    said = [{item.messages[-1].content.partition("\n")[0] for item in side} for side in (found.train, found.heldout)]
    assert not said[0] & said[1]


@pytest.mark.parametrize("kind", ["json", "jsonl"])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_object_around_the_list_is_no_row(tmp_path: Path, indent: int | None, kind: str) -> None:
    given = [{"prompt": f"question {n}", "answer": f"answer {n}"} for n in range(30)]
    path = tmp_path / f"x.{kind}"
    path.write_text(json.dumps({"version": "1.0", "d[a]ta": given}, indent=indent))
    domain = Domain(name="d", data=f"x.{kind}", explode="d[a]ta")
    found = read_rows(domain, path)
    assert [(row.values["prompt"], row.values["version"]) for row in found] == [
        (each["prompt"], "1.0") for each in given
    ]
    assert len({row.values[EXPLODED] for row in found}) == 30
    lines = path.read_text().split("\n")
    assert all(lines[int(row.place.rpartition(":")[2]) - 1].strip().startswith("{") for row in found)
    assert len({row.place for row in found}) == (30 if indent else 1)
    raw = {"model": "nano", "domain": [{"name": "d", "data": f"x.{kind}", "explode": "d[a]ta"}]}
    assert load(Recipe.of(raw, tmp_path / "recipe.toml")).domains[0].heldout


def test_without_explode_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"data": [{"prompt": "a", "answer": "b"}] * 30}, indent=2))
    with pytest.raises(DataError, match='explode = "data"'):
        load(Recipe.of({"model": "nano", "domain": [{"name": "d", "data": "x.json"}]}, tmp_path / "recipe.toml"))


def test_documents_of_one_name_in_many_folders_are_many(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / "notes" / f"s{number}").mkdir(parents=True)
        text = "\n\n".join(f"Paragraph {k} of {number} goes on for a while. " * 50 for k in range(3))
        (tmp_path / "notes" / f"s{number}" / "index.md").write_text(text)
    raw = {"model": "nano", "domain": [{"name": "d", "data": "notes"}]}
    found = load(Recipe.of(raw, tmp_path / "recipe.toml")).domains[0]
    files = [{item.place.rpartition(":")[0] for item in side} for side in (found.train, found.heldout)]
    assert not files[0] & files[1]


def test_both_ratings_are_on_every_side(tmp_path: Path) -> None:
    lines = [{"prompt": f"Q {n}?", "completion": f"A {n}.", "label": n % 10 > 0} for n in range(60)]
    found = data(tmp_path, lines)
    assert all(
        {item.liked for item in side} == {True, False} for side in (found.train, found.validation, found.heldout)
    )


def test_what_people_disliked_is_no_example() -> None:
    rated = [
        Item(f"{n}", "d", f"g{n}", "x", n, (Message("user", "q"),), (f"a{n}",), liked=n % 2 == 0) for n in range(8)
    ]
    shots = Shots.choose(rated, 8, "random", room=10_000, seed=0)
    (shown,) = shots.in_front_of(
        [Item("x", "d", "", "x", 0, (Message("user", "q"),), ("a",))], Renderer(tiny.tokenizer())
    )
    assert {example[-1].content for example in shown.shots} == {"a0", "a2", "a4", "a6"}


def test_a_rating_tells_nothing_of_messages_in_rows() -> None:
    talk = [{"ticket": n // 2, "role": ("user", "agent")[n % 2], "text": f"said {n}", "ok": True} for n in range(12)]
    keys = {"conversation": "ticket", "role": "role", "content": "text", "rating": "ok"}
    with pytest.raises(DataError, match="rating: tells nothing of a conversation"):
        items(talk, **keys)


def test_plain_text_is_asked_nothing() -> None:
    with pytest.raises(DataError, match="prompt: has no meaning for plain text"):
        items([{"text": "so"}] * 3, text="text", prompt="{text}")


@pytest.mark.parametrize("shape", ["pairs", "rated"])
def test_what_is_proposed_loads(tmp_path: Path, shape: str) -> None:
    rated = [{"prompt": f"Is {n} even?", "response": ("Yes.", "No.")[n % 2], "thumbs": n % 3 == 0} for n in range(60)]
    lines = rated if shape == "rated" else PAIRS
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    values = propose(tmp_path / "x.jsonl").model_dump(mode="json", exclude_none=True)
    assert Recipe.of({"model": "nano", "domain": [values]}, tmp_path / "recipe.toml").domain[0].name == "x"


@pytest.mark.parametrize("name", ["thumbs", "helpful", "feedback", "label"])
@pytest.mark.parametrize("words", [("up", "down"), ("yes", "no"), ("1", "0"), ("thumbs_up", "thumbs_down")])
def test_thumbs_beside_an_answer_are_ratings(name: str, words: tuple[str, str]) -> None:
    """Or bad answers would be learned."""
    made = [{"question": f"Why is {n} late?", "bot_answer": f"Because of {n}.", name: words[n % 2]} for n in range(30)]
    assert {item.liked for item in items(made)} == {True, False}
    assert items(made)[1].kind == "rated"


def test_scores_are_not_dropped_silently() -> None:
    with pytest.raises(DataError, match=r"score holds numbers beside the text; .*bins"):
        items([{"text": f"Shares of {n} rise and fall.", "score": str(n / 30 - 0.5)} for n in range(30)])


def test_letters_in_lower_case_are_letters() -> None:
    options = {"a": "w", "b": "x", "c": "y", "d": "z"}
    made = [{"question": f"Which is {n}?", **options, "correct": "abcd"[n % 4]} for n in range(12)]
    assert [item.reference for item in items(made)[:4]] == ["A", "B", "C", "D"]
