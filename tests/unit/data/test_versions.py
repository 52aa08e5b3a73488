"""Rows that are versions of one text, each naming somebody else."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from metier.data.dataset import Dataset, load
from metier.data.items import Version
from metier.errors import DataError, RecipeError
from metier.recipe import Recipe

COLUMNS = {"of": "base", "attribute": "what", "group": "who", "favourable": "fair"}
GROUPS = ("woman", "man")


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def named(count: int) -> list[dict[str, Any]]:
    return [
        {"base": number, "what": "gender", "who": who, "text": f"job {number} for a {who}", "label": label}
        for number in range(count)
        for label in [("fair", "biased")[number % 2]]
        for who in GROUPS
    ]


def plain(count: int) -> list[dict[str, Any]]:
    return [
        {"pair": number // 2, "text": f"work {number}", "label": ("fair", "biased")[number % 2]}
        for number in range(count)
    ]


def recipe(home: Path, **changes: Any) -> Recipe:
    domain = {"name": "ads", "data": "ads.csv", "prompt": "{text}", "answer": "{label}", "labels": ["fair", "biased"]}
    return Recipe.of({"model": "nano", "domain": [{**domain, **changes}]}, home / "recipe.toml")


def read(home: Path, **changes: Any) -> Dataset:
    return load(recipe(home, **changes))


def test_versions_in_the_file_stay_on_one_side_and_keep_whom_they_name(tmp_path: Path) -> None:
    write(tmp_path / "ads.csv", named(40))
    (domain,) = read(tmp_path, versions=COLUMNS).domains
    sides = [{item.group for item in side} for side in (domain.train, domain.validation, domain.heldout)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 40
    assert {item.version for item in domain.heldout} == {Version("gender", who, "fair") for who in GROUPS}
    assert domain.unused == ()


def test_a_held_out_file_alone_has_them(tmp_path: Path) -> None:
    write(tmp_path / "ads.csv", plain(80))
    write(tmp_path / "named.csv", named(10))
    (domain,) = read(tmp_path, heldout="named.csv", group="pair", versions=COLUMNS).domains
    assert len(domain.heldout) == 20
    assert len({item.group for item in domain.heldout}) == 10
    assert all(item.version for item in domain.heldout)
    learned = (*domain.train, *domain.validation)
    assert len(learned) == 80
    assert len({item.group for item in learned}) == 40
    assert not any(item.version for item in learned)


def test_a_text_of_which_a_version_is_held_out_is_not_learned(tmp_path: Path) -> None:
    write(tmp_path / "ads.csv", [{**row, "text": f"{row['text']}, once more"} for row in named(20)])
    write(tmp_path / "named.csv", named(10))
    (domain,) = read(tmp_path, heldout="named.csv", group="base", versions=COLUMNS).domains
    assert len(domain.left_out) == 20
    assert len(domain.train) + len(domain.validation) == 20


def test_whom_a_text_names_is_part_of_what_is_held_out(tmp_path: Path) -> None:
    write(tmp_path / "ads.csv", named(40))
    named_hash = read(tmp_path, versions=COLUMNS).heldout_hash
    assert read(tmp_path, versions={**COLUMNS, "favourable": "biased"}).heldout_hash != named_hash
    assert read(tmp_path, group="base").heldout_hash != named_hash


def test_a_column_that_is_not_there_and_an_empty_cell_are_told(tmp_path: Path) -> None:
    rows = named(40)
    rows[3]["who"] = " "
    write(tmp_path / "ads.csv", rows)
    with pytest.raises(DataError, match=r"ads.csv:5: who: is empty"):
        read(tmp_path, versions=COLUMNS)
    with pytest.raises(DataError, match=r"versions.attribute: there is no column 'whta'"):
        read(tmp_path, versions={**COLUMNS, "attribute": "whta"})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"versions": {**COLUMNS, "favourable": "good"}}, "favourable = 'good' is none of labels"),
        ({"versions": COLUMNS, "labels": None}, "is none of labels"),
        ({"versions": COLUMNS, "group": "pair"}, "group: does not go with versions"),
        ({"versions": {"of": "base"}}, "versions.attribute: is missing"),
        ({"versions": {**COLUMNS, "groups": "x"}}, "versions.groups: is not a field"),
        ({"labelled_by": "robots"}, "labelled_by: is 'robots'"),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        recipe(tmp_path, **changes)


def test_who_is_warned_of_labels_that_a_model_gave(tmp_path: Path) -> None:
    write(tmp_path / "ads.csv", plain(80))
    told = {who: str(read(tmp_path, labelled_by=who).domains[0].warnings) for who in (None, "people", "model")}
    assert "agreement with them is not correctness" in told["model"]
    assert "correctness" not in f"{told['people']}{told[None]}"


def test_a_fifth_of_3000_rows_is_600_with_every_pair_on_one_side(tmp_path: Path) -> None:
    write(tmp_path / "ads.csv", plain(3000))
    (domain,) = read(tmp_path, heldout=0.2, group="pair").domains
    assert len(domain.heldout) == 600
    assert len(domain.train) + len(domain.validation) == 2400
    sides = [{item.group for item in side} for side in (domain.train, domain.validation, domain.heldout)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 1500


def test_files_of_2400_and_600_rows_stay_as_they_are(tmp_path: Path) -> None:
    rows = plain(3000)
    write(tmp_path / "ads.csv", rows[:2400])
    write(tmp_path / "test.csv", rows[2400:])
    (domain,) = read(tmp_path, heldout="test.csv", group="pair").domains
    assert len(domain.heldout) == 600
    assert len(domain.train) + len(domain.validation) == 2400
    assert domain.left_out == ()
