from __future__ import annotations

import sys
from pathlib import Path

import pytest

from metier.cli.main import main
from metier.recipe import Recipe


def init(*arguments: str) -> int:
    sys.argv = ["metier", "init", *arguments, "--offline"]
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    rows = "".join(f"how do I reset number {n},press it {n} times\n" for n in range(40))
    labels = "".join(f"headline {n}\t{('up', 'down')[n % 2]}\n" for n in range(40))
    for name, text in (("telecom.csv", f"question,answer\n{rows}"), ("mood.tsv", f"text\tlabel\n{labels}")):
        Path(name).write_text(text)
    Path("older").mkdir()
    Path("older/telecom.csv").write_text(f"question,answer\n{rows}")


def test_every_file_is_a_domain() -> None:
    assert init("telecom.csv", "mood.tsv") == 0
    written = Recipe.load(Path("recipe.toml"))
    assert [(each.name, each.data) for each in written.domain] == [("telecom", "telecom.csv"), ("mood", "mood.tsv")]
    assert written.domain[1].labels == ("down", "up")


def test_two_files_of_one_name_are_told_and_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert init("telecom.csv", "older/telecom.csv") == 2
    told = capsys.readouterr().err
    assert "older/telecom.csv: would be the domain 'telecom', as telecom.csv is" in told
    assert "rename one of the files" in told
    assert not Path("recipe.toml").exists()


def test_the_faults_of_all_files_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    for name, row in (("one.csv", "a,"), ("two.csv", ",b")):
        Path(name).write_text(f"question,answer\nhow,so\n{row}\n")
    assert init("one.csv", "telecom.csv", "two.csv") == 2
    told = capsys.readouterr().err
    assert "the data has 2 faults" in told
    assert "one.csv:3: answer: is empty" in told
    assert "two.csv:3: question: is empty" in told
    assert not Path("recipe.toml").exists()


def test_a_part_of_a_data_set_is_no_domain(capsys: pytest.CaptureFixture[str]) -> None:
    Path("telecom.csv").rename("train.csv")
    Path("older/telecom.csv").rename("test.csv")
    assert init("train.csv", "test.csv") == 2
    assert "train.csv: seems to be a part of a data set" in capsys.readouterr().err
    assert init("train.csv") == 0


def test_a_recipe_that_is_there_is_told_before_any_data_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.toml").write_text("as it was")
    monkeypatch.setattr("metier.cli.init._guessed", lambda *_: pytest.fail("the data was read"))
    assert init("telecom.csv", "-o", "mine.toml") == 2
    assert "mine.toml: exists already" in capsys.readouterr().err
    assert Path("mine.toml").read_text() == "as it was"
