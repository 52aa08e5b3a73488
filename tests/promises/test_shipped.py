"""What ships to begin with: recipes and comparisons, written, checked and planned by name; nothing is overwritten."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from metier.cli.shipped import shipped
from metier.comparison.running import How, look_ahead
from metier.data.dataset import load
from metier.events import silent
from metier.grid import Comparison, Entry
from tests.promises.test_faults import call


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def entries(name: str) -> list[Entry]:
    assert call("init", "--recipe", name) == 0
    return Comparison.load(f"{name}.toml").entries()


@pytest.mark.parametrize("name", shipped("comparisons"))
def test_a_comparison_comes_with_its_recipe(name: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert entries(name)
    assert {path.stem for path in home.iterdir()} == {name, Path(Comparison.load(f"{name}.toml").recipe).stem}
    assert f"metier compare {name}.toml" in capsys.readouterr().err


def test_what_is_there_is_kept(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("init", "--recipe", "care", "--out", "care.toml") == 0
    assert call("init", "--recipe", "care_claim", "--out", "mine.toml") == 0
    assert "care.toml is there already, as it ships" in capsys.readouterr().err
    changed = (home / "care.toml").read_text() + "# mine\n"
    (home / "care.toml").write_text(changed)
    assert call("init", "--recipe", "care_claim") == 2
    assert "care.toml: exists already and is not the shipped recipe" in capsys.readouterr().err
    assert (home / "care.toml").read_text() == changed
    assert not (home / "care_claim.toml").exists()


def test_both_kinds_are_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("init", "--recipe", "care_clam") == 2
    said = capsys.readouterr().err
    assert "quickstart" in said
    assert "fingpt_claim" in said
    assert list(home.iterdir()) == []


def test_the_wrong_verb_is_told_the_right_one(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries("care_claim")
    assert call("train", "care_claim.toml") == 2
    assert "is a comparison, it has [[strategy]]; run it with `metier compare care_claim.toml`" in _said(capsys)
    assert call("compare", "care.toml") == 2
    assert "is a recipe, it has no [[strategy]]; run it with `metier train care.toml`" in _said(capsys)


def _said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def test_cares_four_approaches_beside_base_examples_and_baseline(home: Path) -> None:
    found = entries("care_claim")
    assert [entry.name for entry in found] == [
        "one adapter",
        "one adapter, per domain",
        "one adapter, four times the rank",
        "base",
        "3 examples shown",
        "nearest training answer",
    ]
    assert [cell.domain for cell in found[1].cells] == ["telecom", "medical", "e-commerce", "banking"]
    assert {entry.rows for entry in found if entry.name != "base"} == {100}


def test_fingpts_bases_untuned_tuned_on_one_and_on_all(home: Path) -> None:
    found = entries("fingpt_claim")
    assert Counter(entry.layout for entry in found if entry.arm == "LoRA") == {"one-set": 5, "shared": 1}
    assert [entry.name for entry in found if entry.arm != "LoRA"] == ["base", "SVM on TF-IDF"]
    text = Path("fingpt_claim.toml").read_text()
    assert text.count('models = ["nano"]\n') == 1
    Path("two.toml").write_text(text.replace('models = ["nano"]\n', 'models = ["nano", "owner/other"]\n'))
    assert Counter(entry.model for entry in Comparison.load("two.toml").entries()) == {"nano": 8, "owner/other": 7}


def test_the_foreign_adapter_is_a_strategy_once_it_is_uncommented(home: Path) -> None:
    entries("fingpt_claim")
    before, mark, after = Path("fingpt_claim.toml").read_text().partition("# [[strategy]]")
    Path("with.toml").write_text(before + (mark + after).replace("# ", ""))
    (foreign,) = [entry for entry in Comparison.load("with.toml").entries() if entry.name == "foreign adapter"]
    assert (foreign.recipe.strategy.method, foreign.model) == ("adapter", "meta-llama/Llama-2-7b-chat-hf")


@pytest.mark.long
@pytest.mark.parametrize("name", ["care_claim", "fingpt_claim"])
def test_the_claims_data_is_there_for_every_strategy(name: str, home: Path, shared: Path) -> None:
    assert call("init", "--recipe", name) == 0
    comparison = Comparison.load(f"{name}.toml", {"data_root": str(shared / "data")})
    recipe = comparison.entries()[0].recipe
    assert len(load(recipe, offline=True).domains) == 4


@pytest.mark.slow
@pytest.mark.parametrize(("name", "runs"), [("care_claim", 9), ("fingpt_claim", 7)])
def test_the_claims_check_against_public_data(name: str, runs: int, home: Path, shared: Path) -> None:
    """Without the one set that only the hub has."""
    assert call("init", "--recipe", name) == 0
    comparison = Comparison.load(f"{name}.toml", {"data_root": str(shared / "data")})
    lines = look_ahead(comparison, How({}, True, 1, silent))
    assert sum(line.runs for line in lines) == sum(len(line.missing) for line in lines) == runs


_RECIPE = """
model = "nano"
[[domain]]
name = "telecom"
data = "sample:telecom"
[[domain]]
name = "absent"
data = "absent.csv"
optional = true
[strategy]
method = "lora"
"""
_COMPARISON = 'recipe = "recipe.toml"\n[[strategy]]\nname = "LoRA"\nlayout = ["one-set", "shared"]\n'


@pytest.fixture
def small(home: Path) -> Path:
    (home / "recipe.toml").write_text(_RECIPE)
    (home / "small.toml").write_text(_COMPARISON)
    return home


@pytest.mark.long
def test_check_reads_every_strategy_and_runs_none(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("check", "small.toml", "--json", "--offline") == 0
    found = capsys.readouterr()
    assert [(line["name"], line["missing"]) for line in json.loads(found.out)] == [
        ("LoRA, on telecom alone", 1),
        ("LoRA", 1),
        ("untuned base", 1),
        ("classical baseline", 1),
    ]
    assert found.err.count("domain absent: is skipped") == 1
    assert not (small / "runs").exists()


def test_check_tells_the_faults_of_all_strategies_once(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (small / "recipe.toml").write_text(_RECIPE.replace("optional = true", ""))
    assert call("check", "small.toml", "--offline") == 2
    said = capsys.readouterr().err
    assert said.count("absent.csv") == 1
    assert "small.toml has 1 fault" in said


@pytest.mark.long
def test_plan_tells_time_and_memory_of_what_is_missing(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (small / "small.toml").write_text(_COMPARISON.replace('layout = ["one-set", "shared"]\n', ""))
    assert call("plan", "small.toml", "--json", "--offline") == 0
    lines = json.loads(capsys.readouterr().out)
    tuned, base, classical = lines
    assert tuned["seconds"] > base["seconds"] > 0
    assert tuned["memory"] > 2**20
    assert (classical["seconds"], classical["memory"]) == (None, None)


@pytest.mark.long
def test_plan_counts_merges_and_tells_numbers_of_rows_apart(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layouts = 'rows = [4, 1.0]\nlayout = ["one-set", "per-domain"]\n'
    (small / "small.toml").write_text(_COMPARISON.replace('layout = ["one-set", "shared"]\n', layouts))
    assert call("plan", "small.toml", "--json", "--offline") == 0
    lines = {line["name"]: line for line in json.loads(capsys.readouterr().out)}
    expert, merged = lines["LoRA, on telecom alone, rows = 1.0"], lines["LoRA, per domain, rows = 1.0, merged"]
    assert "LoRA, per domain, rows = 4" in lines
    assert merged["missing"] == 3
    assert 0 < merged["seconds"] < 3 * expert["seconds"]
