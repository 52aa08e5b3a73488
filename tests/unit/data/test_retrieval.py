"""The nearest passages of a folder in front of a question."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from metier.data.dataset import load
from metier.data.items import Item, Message
from metier.data.rendering import Renderer
from metier.data.retrieval import LENGTH, Found, Shelf, leaks, read_shelf, read_shelves, write_shelves
from metier.errors import DataError, RecipeError
from metier.experiment import train
from metier.identity import key
from metier.inference.conversation import Conversation
from metier.job import prepare
from metier.recipe import SAMPLES, Recipe
from tests.unit import tiny

_PASSAGES = {
    "cards": "A lost card is blocked in the app. A new card comes by post.",
    "fees": "An account costs nothing. A statement on paper costs two.",
    "limits": "The limit of a transfer is raised in the app within a day.",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    tiny.save(home / "base")
    rows = [{"ask": f"Where is my card number {n}?", "reply": f"Card {n} is with the post."} for n in range(24)]
    (home / "desk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = home / "handbook"
    (folder / "more").mkdir(parents=True)
    (folder / "cards.md").write_text(f"# Cards\n\n{_PASSAGES['cards']}\n\n## Fees\n\n{_PASSAGES['fees']}\n")
    (folder / "more" / "limits.jsonl").write_text(json.dumps({"text": _PASSAGES["limits"]}) + "\n")
    (folder / "logo.png").write_bytes(b"\x89PNG")
    return home


def recipe(home: Path, **strategy: Any) -> Recipe:
    domain = {"name": "desk", "data": "desk.jsonl", "prompt": "{ask}", "answer": "{reply}", "system": "Be kind."}
    asked = {"method": "none", "passages": "handbook", **strategy}
    values = {"model": "base", "domain": [domain], "strategy": asked, "eval": {"max_new_tokens": 4}}
    return Recipe.of({**values, "train": {"max_length": 256}}, home / "recipe.toml")


def item(question: str, answer: str = "", **more: Any) -> Item:
    return Item("1", "desk", "1", "x.csv:2", 0, (Message("user", question),), (answer,), **more)


def test_a_folder_is_cut_at_headings_and_paragraphs(home: Path, tmp_path: Path) -> None:
    found = read_shelf(home / "handbook")
    assert [each.text for each in found] == [
        f"# Cards\n\n{_PASSAGES['cards']}",
        f"## Fees\n\n{_PASSAGES['fees']}",
        _PASSAGES["limits"],
    ]
    assert [each.place.rpartition("/")[2] for each in found] == ["cards.md:1", "cards.md:5", "limits.jsonl:1"]
    (tmp_path / "long.txt").write_text("\n\n".join(f"Paragraph {n} " + "word " * 50 for n in range(40)))
    long = read_shelf(tmp_path / "long.txt")
    assert all(LENGTH <= len(each.text) <= 2 * LENGTH and each.text.startswith("Paragraph") for each in long[:-1])


@pytest.mark.parametrize("name", ["nothing", "empty", "pictures"])
def test_a_folder_without_text_is_refused(tmp_path: Path, name: str) -> None:
    for folder in ("empty", "pictures"):
        (tmp_path / folder).mkdir()
    (tmp_path / "empty" / "a.txt").write_text(" \n")
    (tmp_path / "pictures" / "a.png").write_bytes(b"")
    with pytest.raises(DataError):
        read_shelf(tmp_path / name)


def test_the_nearest_stand_first_and_the_farthest_give_way(home: Path) -> None:
    renderer = Renderer.load(home / "base")
    shelf = Shelf.of(read_shelf(home / "handbook"), 2, "{passages}\n\n{question}")
    asked = item("I lost my {passages} card, what now?")
    (shown,) = shelf.with_room(1000).in_front_of([asked], renderer)
    text = shown.asked[-1].content
    assert text.startswith(f"# Cards\n\n{_PASSAGES['cards']}\n\n")
    assert text.endswith("\n\nI lost my {passages} card, what now?")  # no template in what people type
    assert text.count("#") + text.count("transfer") == 2 + text.count("## ")
    length = len(renderer.prompt_ids(shown.asked))
    (tight,) = shelf.with_room(length - 1).in_front_of([asked], renderer)
    assert tight.asked[-1].content == f"# Cards\n\n{_PASSAGES['cards']}\n\nI lost my {{passages}} card, what now?"
    (bare,) = shelf.with_room(1).in_front_of([asked], renderer)
    assert bare == asked
    assert read_shelves(json.loads(json.dumps(write_shelves({"desk": shelf}))))["desk"].digest == shelf.digest


def test_held_out_answers_in_a_passage_are_told() -> None:
    answer = "Card 7 is with the post, and  arrives on the fourth day."
    passages = [Found("h.md:1", "Else."), Found("h.md:9", f"Q: Where?\nA: {answer.replace('  ', chr(10))} So it is.")]
    (fault,) = leaks(
        passages, [item("Where is it?", answer), item("Who is it?", "Nobody at all, as far as we know it.")]
    )
    assert (fault.place, "h.md:9" in fault.problem) == ("x.csv:2", True)
    short = [item("Where?", "Card 7", kind="open"), item("Elsewhere?", "Card 7", kind="open")]
    assert len([*leaks(passages, short)]) == 1  # with its question it is no coincidence


def test_check_and_run_tell_leaks(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = load(recipe(home)).domains[0].heldout[0]
    (home / "leaky.txt").write_text(f"{held.messages[-1].content}\n{held.reference}\n")
    job = prepare(recipe(home, passages="leaky.txt"))
    assert "its held-out answer stands in" in repr(job)
    assert "word for word" in str(job.front.leaks[0])


@pytest.mark.long
def test_passages_go_with_every_strategy_and_make_the_run(home: Path) -> None:
    run = train(recipe(home, num_fewshot=1))
    assert set(run.scores()["against"]) == {"none", "classical"}
    assert run.opponents["none"] == "the untuned base without examples and passages"
    assert "base, 1 shots, 3 passages" in run.report.read_text(encoding="utf-8")
    tuned = prepare(recipe(home, method="lora"))
    rows = [row for unit in tuned.units["desk"] for row in unit.rows]
    assert any(_PASSAGES["cards"] in tuned.renderer.decode(row.tokens) for row in rows)


def test_what_is_shown_makes_the_run_and_where_it_lies_does_not(home: Path) -> None:
    def known(**strategy: Any) -> str:
        job = prepare(recipe(home, **strategy))
        return key(job.recipe, **job.front.digests)

    first = known()
    shutil.copytree(home / "handbook", home / "elsewhere", dirs_exist_ok=True)
    assert known(passages="elsewhere") == first
    (home / "elsewhere" / "new.txt").write_text("One more passage.")
    others = {"passages": "elsewhere"}, {"num_passages": 1}, {"passages_prompt": "{passages} {question}"}
    assert len({first, *(known(**each) for each in others)}) == 4
    assert known(passages=None, num_passages=1) == known(passages=None)


def test_who_talks_with_the_run_is_asked_as_it_was_measured(home: Path) -> None:
    asked = recipe(home, num_fewshot=1, num_passages=2)
    job, conversation = prepare(asked), Conversation(train(asked))
    for each in job.heldout:
        mine = conversation.shown(conversation.questions.item(each.messages[-1].content, "desk"))
        assert conversation.renderer.prompt_ids(mine.asked) == job.renderer.prompt_ids(each.asked)
        assert "These passages may help:" in mine.asked[-1].content


def test_a_template_without_its_places_is_refused(home: Path) -> None:
    with pytest.raises(RecipeError, match=r"passages_prompt: needs \{passages\} and \{question\}"):
        recipe(home, passages_prompt="{question}")
    with pytest.raises(RecipeError, match="leaves no room"):
        prepare(recipe(home).override(**{"train.max_length": 12}))


def test_the_sample_handbook_holds_no_answer_of_the_samples() -> None:
    domains = [{"name": name, "data": f"sample:{name}"} for name in ("banking", "telecom")]
    data = load(Recipe.of({"model": "nano", "domain": domains}, Path("recipe.toml")))
    everything = [item for each in data.domains for item in (*each.train, *each.validation, *each.heldout)]
    passages = read_shelf(SAMPLES / "handbook")
    assert len(passages) > 10
    assert not [*leaks(passages, everything)]
