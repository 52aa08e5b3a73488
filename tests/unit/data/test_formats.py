"""Files as other tools write them: read without a mapping, and the same rows are the same data in every format."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
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

COUNT = 24
ASKED = [f"How do I reset device {number} after the last update?" for number in range(COUNT)]
SAID = [f"Hold its button for {number} seconds, then wait for the light." for number in range(COUNT)]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def alpaca(asked: str, said: str) -> dict[str, Any]:
    return {"instruction": asked, "input": "", "output": said}


def alpaca_with_all(asked: str, said: str) -> dict[str, Any]:
    """As LLaMA-Factory has it."""
    return {**alpaca(asked, said), "system": "Be kind.", "history": [["Hello?", "Good day."]]}


def sharegpt(asked: str, said: str) -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": said}]}


def sharegpt_with_system(asked: str, said: str) -> dict[str, Any]:
    return {**sharegpt(asked, said), "system": "Be kind."}


def openai(asked: str, said: str) -> dict[str, Any]:
    return {"messages": [user(asked), assistant(said)]}


def openai_with_system(asked: str, said: str) -> dict[str, Any]:
    return {"messages": [{"role": "system", "content": "Be kind."}, user(asked), assistant(said)]}


def completion(asked: str, said: str) -> dict[str, Any]:
    return {"prompt": asked, "completion": said}


def chat_completion(asked: str, said: str) -> dict[str, Any]:
    """TRL's conversational prompt and completion."""
    return {"prompt": [user(asked)], "completion": [assistant(said)]}


Shape = Callable[[str, str], dict[str, Any]]
PLAIN = [alpaca, sharegpt, openai, completion, chat_completion]
SYSTEM = [sharegpt_with_system, openai_with_system]
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


def rows(shape: Shape) -> list[dict[str, Any]]:
    return [shape(*pair) for pair in zip(ASKED, SAID, strict=True)]


def items(path: Path) -> list[Item]:
    domain = propose(path)
    return make_items(domain, read_rows(domain, path))


def hashes(path: Path) -> tuple[str, str]:
    raw = {"model": "nano", "domain": [{"name": "d", "data": path.name}]}
    data = load(Recipe.of(raw, path.parent / "recipe.toml"))
    return data.train_hash, data.heldout_hash


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("shape", [*PLAIN, *SYSTEM], ids=lambda shape: shape.__name__)
def test_every_shape_is_the_same_data_in_every_format(tmp_path: Path, shape: Shape, kind: str) -> None:
    reference = SYSTEM[0] if shape in SYSTEM else PLAIN[0]
    assert hashes(write(tmp_path / f"x.{kind}", rows(shape))) == hashes(write(tmp_path / "y.jsonl", rows(reference)))


@pytest.mark.parametrize("kind", FORMATS)
def test_alpacas_system_and_history_become_turns(tmp_path: Path, kind: str) -> None:
    first = items(write(tmp_path / f"x.{kind}", rows(alpaca_with_all)))
    said = [(message.role, message.content) for message in first[1].messages]
    assert said == [("system", "Be kind."), ("user", "Hello?"), ("assistant", "Good day."), ("user", ASKED[0])]
    assert (first[0].reference, first[1].reference) == ("Good day.", SAID[0])


def test_a_row_without_its_own_system_prompt_has_none(tmp_path: Path) -> None:
    made = rows(sharegpt_with_system)
    made[0]["system"] = ""
    found = items(write(tmp_path / "x.jsonl", made))
    assert [message.role for message in found[0].messages] == ["user"]
    assert [message.role for message in found[1].messages] == ["system", "user"]


def test_a_file_that_is_no_parquet_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"x\.parquet: is no parquet file"):
        propose(tmp_path / "x.parquet")


def test_a_fault_in_parquet_names_its_row(tmp_path: Path) -> None:
    made = [*rows(completion), {"prompt": "Why?", "completion": None}]
    with pytest.raises(DataError, match=rf"x\.parquet:{COUNT + 1}: completion: is empty"):
        items(write(tmp_path / "x.parquet", made))
