from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metier.data.dataset import Dataset, load, remember
from metier.data.general import read_passages
from metier.data.items import Item
from metier.errors import DataError
from metier.recipe import Recipe


def recipe(folder: Path, *domains: dict[str, Any], **keys: Any) -> Recipe:
    return Recipe.of({"model": "nano", "domain": list(domains), **keys}, folder / "care.toml")


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        if path.suffix == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def faq(count: int, start: int = 0) -> list[dict[str, str]]:
    return [
        {"question": f"What is item {number} for?", "answer": f"It is for task {number} only."}
        for number in range(start, start + count)
    ]


def remembered(asked: Recipe) -> Dataset:
    data = load(asked)
    remember(asked, data)
    return data


def ids(data: Dataset) -> list[list[str]]:
    (only,) = data.domains
    return [sorted(item.id for item in side) for side in (only.train, only.validation, only.heldout)]


DOMAIN = {"name": "faq", "data": "faq.csv"}


def test_a_recipe_s_data_is_read_completed_and_split(tmp_path: Path) -> None:
    write(tmp_path / "faq.csv", faq(40))
    data = load(recipe(tmp_path, DOMAIN))
    (only,) = data.domains
    assert (only.domain.prompt, only.domain.answer) == ("{question}", "{answer}")
    assert [len(side) for side in ids(data)] == [29, 3, 8]
    assert only.left_out == data.notes == ()
    assert [str(warning).partition(":")[2] for warning in only.warnings] == [
        " only 8 items held out: a difference must be large to show; give more rows, or a larger heldout",
        " only 3 items to validate on: chance has a large say in which checkpoint is the best; give more rows, or a"
        " larger validation",
    ]
    assert not (tmp_path / "care.split.json").exists()


TEXTS = st.text(st.characters(blacklist_categories=["Cs", "Cc"]) | st.sampled_from('\n\t",;|'), min_size=1, max_size=12)
SOME = st.lists(st.tuples(TEXTS, TEXTS), min_size=6, max_size=12)


@given(SOME.filter(lambda rows: all(map(str.strip, (cell for row in rows for cell in row)))))
@settings(max_examples=40, deadline=None)
def test_the_same_rows_in_csv_or_json_have_the_same_hashes(rows: list[tuple[str, str]]) -> None:
    values = [{"question": question, "answer": answer} for question, answer in rows]
    found = []
    for name in ("x.csv", "x.jsonl"):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder) / name, values)
            spec = {"name": "d", "data": name, "prompt": "{question}", "answer": "{answer}", "delimiter": ","}
            try:
                data = load(recipe(Path(folder), spec))
            except DataError as error:  # too few different prompts
                found.append(str([fault.problem for fault in error.faults]))
            else:
                found.append(data.heldout_hash + data.train_hash)
    assert found[0] == found[1]


def test_hashes_tell_the_sides_apart_and_see_every_answer(tmp_path: Path) -> None:
    rows = faq(40)
    write(tmp_path / "faq.csv", rows)
    first = remembered(recipe(tmp_path, DOMAIN))
    changed = first.domains[0].heldout[0].row
    rows[changed]["answer"] = "It is for nothing."
    write(tmp_path / "faq.csv", rows)
    second = load(recipe(tmp_path, DOMAIN))
    assert first.heldout_hash != second.heldout_hash
    assert first.train_hash == second.train_hash
    write(tmp_path / "faq.csv", rows[::-1])
    assert load(recipe(tmp_path, DOMAIN)).heldout_hash == second.heldout_hash


def test_the_split_is_remembered_and_only_newcomers_are_drawn(tmp_path: Path) -> None:
    path = write(tmp_path / "faq.csv", faq(40))
    asked = recipe(tmp_path, DOMAIN)
    first = ids(remembered(asked))
    memory = tmp_path / "care.split.json"
    before = memory.stat().st_mtime_ns, memory.read_text()
    assert ids(remembered(asked)) == first
    assert (memory.stat().st_mtime_ns, memory.read_text()) == before
    write(path, faq(60))
    grown = ids(remembered(asked))
    assert all(set(old) < set(new) for old, new in zip(first, grown, strict=True))
    content = json.loads(memory.read_text())
    assert content["format"] == 1
    assert set(content["domains"]["faq"]) == {"heldout", "validation", "heldout_ids", "validation_ids", "train_ids"}


def test_another_share_is_drawn_anew_but_another_validation_keeps_what_is_held_out(tmp_path: Path) -> None:
    path = write(tmp_path / "faq.csv", faq(40))
    remembered(recipe(tmp_path, DOMAIN))
    write(path, faq(60))
    _, _, heldout = ids(remembered(recipe(tmp_path, DOMAIN)))
    more = ids(load(recipe(tmp_path, DOMAIN | {"validation": 0.3})))
    assert more[2] == heldout
    assert len(more[1]) == 14
    fresh = ids(load(recipe(tmp_path, DOMAIN | {"heldout": 0.5})))
    (tmp_path / "care.split.json").unlink()
    assert ids(load(recipe(tmp_path, DOMAIN | {"heldout": 0.5}))) == fresh


def test_domains_that_are_away_keep_their_split(tmp_path: Path) -> None:
    write(tmp_path / "faq.csv", faq(40))
    other = {"name": "other", "data": "other.csv"}
    write(tmp_path / "other.csv", faq(40, start=100))
    remembered(recipe(tmp_path, DOMAIN, other))
    remembered(recipe(tmp_path, DOMAIN))
    assert set(json.loads((tmp_path / "care.split.json").read_text())["domains"]) == {"faq", "other"}


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"format": 2, "domains": {}}', '{"format": 1, "domains": {"faq": {}}}']
)
def test_a_broken_memory_is_a_fault(tmp_path: Path, content: str) -> None:
    write(tmp_path / "faq.csv", faq(40))
    (tmp_path / "care.split.json").write_text(content)
    with pytest.raises(DataError, match="remove it to draw the split anew"):
        load(recipe(tmp_path, DOMAIN))


def test_files_are_held_out_as_they_are(tmp_path: Path) -> None:
    write(tmp_path / "faq.csv", faq(40))
    write(tmp_path / "test.jsonl", faq(10, start=36))
    data = load(recipe(tmp_path, DOMAIN | {"heldout": "test.jsonl"}))
    assert [len(side) for side in ids(data)] == [32, 4, 10]
    assert len(data.domains[0].left_out) == 4
    assert "test.jsonl:1" in data.domains[0].left_out[0].problem


def test_every_fault_of_every_domain_is_told_at_once(tmp_path: Path) -> None:
    write(tmp_path / "faq.csv", [*faq(5), {"question": "Why?", "answer": ""}])
    domains = [
        DOMAIN | {"heldout": "missing.csv"},
        DOMAIN | {"name": "again"},
        {"name": "gone", "data": "gone.csv"},
    ]
    with pytest.raises(DataError) as raised:
        load(recipe(tmp_path, *domains))
    problems = [fault.problem for fault in raised.value.faults]
    assert problems == ["is empty", "does not exist", "does not exist"]
    assert "care.toml has 3 faults" in str(raised.value)


def test_a_fault_of_the_held_out_file_names_that_file(tmp_path: Path) -> None:
    write(tmp_path / "faq.csv", faq(40))
    write(tmp_path / "test.csv", [*faq(2, start=90), {"question": "Why?", "answer": ""}])
    with pytest.raises(DataError, match=r"test\.csv:4: answer: is empty"):
        load(recipe(tmp_path, DOMAIN | {"heldout": "test.csv"}))


def test_what_one_domain_measures_on_no_other_trains_on(tmp_path: Path) -> None:
    write(tmp_path / "faq.csv", faq(40))
    write(tmp_path / "test.csv", faq(10, start=30))
    write(tmp_path / "other.csv", faq(40, start=20))
    one = DOMAIN | {"heldout": "test.csv", "validation": 0.2}
    data = load(recipe(tmp_path, one, {"name": "other", "data": "other.csv"}))
    trained = [item.messages for domain in data.domains for item in domain.train]
    measured = [item.messages for domain in data.domains for item in (*domain.heldout, *domain.validation)]
    assert not set(trained) & set(measured)
    with pytest.raises(DataError, match="give the domains different rows"):
        load(
            recipe(
                tmp_path, DOMAIN | {"heldout": "faq.csv", "data": "other.csv"}, {"name": "other", "data": "test.csv"}
            )
        )


def test_warnings_and_notes_come_along(tmp_path: Path) -> None:
    rows = [
        {"ticket": str(n // 3), "sender": ("agent", "user", "agent")[n % 3], "text": f"line {n}"} for n in range(60)
    ]
    rows[4]["text"] = "mail me at jo@mail.org"
    write(tmp_path / "chat.csv", rows)
    data = load(recipe(tmp_path, {"name": "chat", "data": "chat.csv"}))
    assert [str(note) for note in data.notes] == [
        "domain chat: no column tells when a message was sent; the file's order is taken",
        "domain chat: 20 conversations begin with the assistant; those messages are left out",
    ]
    assert "e-mail" in data.domains[0].warnings[0].problem


def test_fewer_rows_than_asked_for_are_told(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", [{"question": f"what is {n}?", "answer": f"it is {n}"} for n in range(50)])
    wanted = recipe(tmp_path, {"name": "a", "data": "a.csv", "prompt": "{question}", "answer": "{answer}"})
    data = load(wanted.override(**{"train.rows": 41}))
    assert [str(note) for note in data.scarce] == ["domain a: has 40 rows to learn from, train.rows = 41; takes all"]
    assert load(wanted.override(**{"train.rows": 40})).scarce == ()


def test_passages_are_texts_with_their_places(tmp_path: Path) -> None:
    embedded = read_passages(recipe(tmp_path, DOMAIN))
    assert len(embedded) > 10
    assert embedded[0].place == "sample:general:1"
    write(tmp_path / "own.csv", [{"text": "One."}, {"text": "Two\nlines."}, {"text": "One."}])
    own = read_passages(recipe(tmp_path, DOMAIN, eval={"general_text": "own.csv"}))
    assert [passage.text for passage in own] == ["One.", "Two\nlines.", "One."]
    assert len({passage.id for passage in own}) == 3


def test_passages_need_a_column_of_texts(tmp_path: Path) -> None:
    write(tmp_path / "own.csv", [{"txt": "One."}])
    with pytest.raises(DataError, match="did you mean `txt`"):
        read_passages(recipe(tmp_path, DOMAIN, eval={"general_text": "own.csv"}))
    write(tmp_path / "own.jsonl", [{"text": "One."}, {"text": " "}])
    with pytest.raises(DataError, match=r"own\.jsonl:2: text: is empty"):
        read_passages(recipe(tmp_path, DOMAIN, eval={"general_text": "own.jsonl"}))


def test_rows_that_are_unreadable_are_told_with_those_that_are_unusable(tmp_path: Path) -> None:
    lines = ['{"prompt": "a", "answer": "b"}', '{"prompt": "a", "answer": ""}', '{"prompt": "a", "ans', "[1]"]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError) as told:
        load(recipe(tmp_path, {"name": "x", "data": "x.jsonl"}))
    assert sorted(fault.place.rpartition("x.jsonl")[2] for fault in told.value.faults) == [":2: answer", ":3", ":4"]


def test_the_same_question_in_two_domains_never_leaks_whatever_is_written_around_it(tmp_path: Path) -> None:
    write(tmp_path / "faq.csv", [*faq(200), *({**row, "question": row["question"].upper() + " "} for row in faq(200))])
    other = {"name": "other", "data": "faq.csv", "heldout": 0.25, "prompt": "Please: {question}", "answer": "{answer}"}
    data = load(recipe(tmp_path, {"name": "faq", "data": "faq.csv", "heldout": 0.2, "validation": 0.2}, other))

    def asked(items: Sequence[Item]) -> set[str]:
        return {item.messages[-1].content.removeprefix("Please: ").strip().lower() for item in items}

    trained = asked([item for domain in data.domains for item in domain.train])
    measured = asked([item for domain in data.domains for item in (*domain.heldout, *domain.validation)])
    assert not trained & measured
