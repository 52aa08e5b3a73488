"""Files as other tools write them: read without a mapping, and the same rows are the same data in every format."""

from __future__ import annotations

import csv
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from metier.data.dataset import load
from metier.data.guessing import propose
from metier.data.items import Item, make_items
from metier.data.sources import read_rows
from metier.errors import DataError
from metier.recipe import Recipe
from tests.unit.data import foreign
from tests.unit.data.foreign import COUNT, FAMILIES, SHAPES, Shape, asked, rows, said, worse

FORMATS = ["jsonl", "json", "parquet", "csv", "tsv"]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".json":
            path.write_text(json.dumps(rows, indent=1))
        case ".parquet":
            parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        case suffix:
            with path.open("w", newline="") as file:
                writer = csv.writer(file, delimiter="\t" if suffix == ".tsv" else ",")
                writer.writerow(rows[0])
                for row in rows:
                    writer.writerow(v if isinstance(v, str) else json.dumps(v) for v in row.values())
    return path


def items(path: Path) -> list[Item]:
    domain = propose(path)
    return make_items(domain, read_rows(domain, path))


def first(path: Path, shape: Shape) -> Item:
    return items(write(path / "x.jsonl", rows(shape)))[0]


def hashes(path: Path) -> tuple[str, str]:
    raw = {"model": "nano", "domain": [{"name": "d", "data": path.name}]}
    data = load(Recipe.of(raw, path.parent / "recipe.toml"))
    return data.train_hash, data.heldout_hash


@cache
def reference(family: int) -> tuple[str, str]:
    """The hashes of a family's first shape, as JSON lines."""
    with TemporaryDirectory() as folder:
        return hashes(write(Path(folder) / "y.jsonl", rows(next(iter(FAMILIES[family].values())))))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_is_the_same_data_in_every_format(tmp_path: Path, name: str, kind: str) -> None:
    (family,) = (number for number, shapes in enumerate(FAMILIES) if name in shapes)
    assert hashes(write(tmp_path / f"x.{kind}", rows(SHAPES[name]))) == reference(family)


def test_families_differ() -> None:
    assert len({reference(family) for family in range(len(FAMILIES))}) == len(FAMILIES)


def test_an_answer_is_open_and_its_prompt_is_asked(tmp_path: Path) -> None:
    item = first(tmp_path, foreign.ANSWERS["completion"])
    assert (item.kind, item.replies) == ("open", (said(0),))
    assert [(each.role, each.content) for each in item.messages] == [("user", asked(0))]


def test_a_pair_has_both_answers(tmp_path: Path) -> None:
    item = first(tmp_path, foreign.PAIRS["preference"])
    assert (item.kind, item.replies, item.answer) == ("preference", (said(0), worse(0)), 0)


def test_a_rating_tells_who_was_liked(tmp_path: Path) -> None:
    found = items(write(tmp_path / "x.jsonl", rows(foreign.RATINGS["unpaired_preference"])))
    assert [item.liked for item in found[:3]] == [True, False, True]
    assert {item.kind for item in found} == {"rated"}


def test_choices_are_lettered_in_the_prompt(tmp_path: Path) -> None:
    found = items(write(tmp_path / "x.jsonl", rows(foreign.CHOICES["medmcqa"])))
    assert found[0].messages[-1].content.endswith("\nC. Call us\nD. Read the manual\nAnswer:")
    assert [item.reference for item in found[:5]] == ["A", "B", "C", "D", "A"]
    assert found[0].options == ("Hold its button", "Wait for the light", "Call us", "Read the manual")


@pytest.mark.parametrize("name", [*foreign.TOOLS, *foreign.FUNCTIONS])
def test_calls_keep_their_numbers(tmp_path: Path, name: str) -> None:
    found = items(write(tmp_path / "x.jsonl", rows(SHAPES[name])))
    call, result = found[2], found[3]
    assert call.reference == '<tool_call>\n{"name": "reset", "arguments": {"device": 1, "share": 0.5}}\n</tool_call>'
    assert '"name": "reset", "description": "Reset a device"' in call.messages[0].content
    assert result.messages[-1].content == "<tool_response>\ndone\n</tool_response>"
    assert result.reference == said(1)


def test_what_has_no_weight_is_read_but_not_learned(tmp_path: Path) -> None:
    found = items(write(tmp_path / "x.jsonl", rows(foreign.READ_FIRST["openai_weight"])))
    assert len(found) == COUNT
    assert [message.content for message in found[1].messages] == ["Hello?", "Good day.", asked(1)]


@pytest.mark.parametrize("kind", FORMATS)
def test_alpacas_system_and_history_become_turns(tmp_path: Path, kind: str) -> None:
    found = items(write(tmp_path / f"x.{kind}", rows(foreign.HISTORIES["alpaca_with_all"])))
    turns = [(message.role, message.content) for message in found[1].messages]
    assert turns == [("system", "Be kind."), ("user", "Hello 0?"), ("assistant", "Good day."), ("user", asked(0))]
    assert (found[0].reference, found[1].reference) == ("Good day.", said(0))


def test_a_row_without_its_own_system_prompt_has_none(tmp_path: Path) -> None:
    made = rows(foreign.WITH_SYSTEM["sharegpt_with_system"])
    made[0]["system"] = ""
    found = items(write(tmp_path / "x.jsonl", made))
    assert [message.role for message in found[0].messages] == ["user"]
    assert [message.role for message in found[1].messages] == ["system", "user"]


@pytest.mark.parametrize("suffix", ["txt", "md"])
def test_plain_text_is_cut_into_passages(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"x.{suffix}").write_text("\n\n".join(f"{asked(i)} {said(i)} " * 20 for i in range(COUNT)))
    found = items(tmp_path / f"x.{suffix}")
    assert {item.kind for item in found} == {"passage"}
    assert len(found) > 5
    assert "".join(item.reference for item in found).count(asked(3)) == 20


def test_a_folder_of_texts_keeps_each_file_on_one_side(tmp_path: Path) -> None:
    for number in range(12):
        text = "\n\n".join(f"{asked(number)} {said(line)} " * 20 for line in range(4))
        (tmp_path / f"{number}.md").write_text(text)
    assert len({item.group for item in items(tmp_path)}) == 12


def test_a_file_that_is_no_parquet_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"x\.parquet: is no parquet file"):
        propose(tmp_path / "x.parquet")


def test_a_fault_in_parquet_names_its_row(tmp_path: Path) -> None:
    made = [*rows(foreign.ANSWERS["completion"]), {"prompt": "Why?", "completion": None}]
    with pytest.raises(DataError, match=rf"x\.parquet:{COUNT + 1}: completion: is empty"):
        items(write(tmp_path / "x.parquet", made))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "Why?", "chosen": "So.", "rejected": ""}, "rejected: is empty"),
        ({"prompt": "Why?", "chosen": "So.", "rejected": "So."}, "rejected: is the same as the liked answer"),
        (
            {
                "chosen": [foreign.user("Why?"), foreign.assistant("So.")],
                "rejected": [foreign.user("When?"), foreign.assistant("Now.")],
            },
            "rejected: answers another question",
        ),
        ({"prompt": "Why?", "completion": "So.", "label": "perhaps"}, "label: 'perhaps' is no rating"),
        ({"question": "Why?", "choices": ["So."], "answer": 0}, "choices: holds 1 choices"),
        ({"question": "Why?", "choices": ["So.", ""], "answer": 0}, "choices: holds 1 choices"),
        ({"question": "Why?", "choices": ["So.", "", "No."], "answer": 0}, "choices: choice B is empty"),
    ],
)
def test_a_row_that_lacks_something_is_a_fault_with_its_place(tmp_path: Path, row: foreign.Row, said: str) -> None:
    (name,) = (
        name
        for name in ("preference", "implicit_chat_preference", "unpaired_preference", "choice_list")
        if set(SHAPES[name](0)) == set(row) and (name != "implicit_chat_preference" or "prompt" not in row)
    )
    domain = propose(write(tmp_path / "x.jsonl", rows(SHAPES[name])))
    write(tmp_path / "x.jsonl", [*rows(SHAPES[name]), row])
    with pytest.raises(DataError, match=rf"x\.jsonl:{COUNT + 1}: {said}"):
        make_items(domain, read_rows(domain, tmp_path / "x.jsonl"))


@pytest.mark.parametrize("name", SHAPES)
def test_a_mapping_that_was_completed_is_complete(tmp_path: Path, name: str) -> None:
    """So that a run's recipe, which holds it, reads the same items again."""
    write(tmp_path / "x.jsonl", rows(SHAPES[name]))
    drafted = Recipe.of({"model": "nano", "domain": [{"name": "d", "data": "x.jsonl"}]}, tmp_path / "recipe.toml")
    data = load(drafted)
    (domain,) = (each.domain for each in data.domains)
    path = tmp_path / "again.toml"
    path.write_text(drafted.model_copy(update={"domain": (domain,)}).to_toml())
    again = load(Recipe.load(path))
    assert [each.domain for each in again.domains] == [domain]
    assert (again.heldout_hash, again.train_hash) == (data.heldout_hash, data.train_hash)
