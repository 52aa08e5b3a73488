"""metier from Python, as a notebook uses it."""

from __future__ import annotations

import csv
import linecache
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import metier
from metier.data.mixing import Unit
from metier.errors import MetierError
from metier.experiment import train
from metier.model.forward import Forward
from metier.recipe import Recipe
from metier.run import Run
from metier.tables import Table, html
from metier.training.objectives import Likelihood, Objective, Packing, source_of
from tests.unit import tiny

_RECIPE = """
model = "base"
[[domain]]
name = "support"
data = "x.csv"
prompt = "{question}"
answer = "{reply}"
[strategy]
method = "lora"
[strategy.peft]
r = 2
[train]
num_train_epochs = 1
[eval]
max_new_tokens = 4
general_text = "general.csv"
general_choices = ""
"""


def brevity(output: str, reference: str) -> float:
    return -float(abs(len(output) - len(reference)))


def doubled(forward: Forward, units: Sequence[Unit], packing: Packing) -> dict[str, float]:
    return {"loss": 2 * Likelihood()(forward, units, packing)["loss"], "tokens": 1}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    tiny.save(home / "base")
    (home / "recipe.toml").write_text(_RECIPE)
    rows = [(f"Where is <b>order</b> {number}?", f"Order {number} is on its way.") for number in range(20)]
    for name, table in (("x", [("question", "reply"), *rows]), ("general", [("text",), ("The sea is calm.",)])):
        with (home / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(table)
    return home


@pytest.fixture(scope="module")
def run(home: Path) -> Run:
    return train(Recipe.load(home / "recipe.toml"))


def test_every_public_name_is_there_and_importing_it_costs_nothing() -> None:
    assert all(getattr(metier, name) for name in metier.__all__)
    assert sorted(metier.__all__) == dir(metier)
    code = "import sys, metier; sys.exit(bool({'torch', 'pydantic', 'numpy', 'typer'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert (Path(metier.__file__).parent / "py.typed").exists()
    with pytest.raises(AttributeError, match="nothing"):
        _ = metier.nothing


def test_results_show_themselves_and_escape_what_they_quote(home: Path, run: Run) -> None:
    job = metier.check(Recipe.load(home / "recipe.toml"))
    plan = metier.plan(job)
    shown = [each._repr_html_() for each in (job, plan, run)]
    assert all("<table>" in each and "</table>" in each for each in shown)
    assert "&lt;b&gt;order&lt;/b&gt;" in shown[0]
    assert "<b>" not in shown[0]
    assert "tokens_per_batch" in shown[1]
    assert all(word in shown[2] for word in ("chrF", "95 % interval", "the untuned base", "verdict", "forgetting"))


def test_results_print_themselves_shortly(home: Path, run: Run) -> None:
    job = metier.check(Recipe.load(home / "recipe.toml"))
    plan = metier.plan(job)
    told = [str(each) for each in (job, plan, run)]
    assert "no faults" in told[0]
    assert "moves " in told[0]
    assert "tokens_per_batch" in told[1]
    assert all(word in told[2] for word in ("chrF", "95 % interval", "the untuned base", "forgetting"))
    assert all(len(each.splitlines()) < 60 and "Item(" not in each and "{" not in each for each in told[1:])
    assert repr(job) == told[0]
    assert repr(plan) == told[1]


@pytest.mark.slow
def test_python_hears_nothing_of_optional_packages() -> None:
    code = "import logging, metier; metier.check; print(logging.getLogger('bitsandbytes').getEffectiveLevel())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("40", "")


def test_an_unfinished_run_shows_how_it_stands(run: Run, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes((run.directory / "run.json").read_bytes())
    begun = Run(tmp_path)
    begun.update(status="stopped", why="stopped at train 3 of 5")
    assert "stopped at train 3 of 5" in begun._repr_html_()


def test_a_table_is_text_on_a_terminal_and_html_in_a_notebook() -> None:
    table = Table(("a", "long head"), [("<x>", "1")])
    assert str(table) == "a    long head\n<x>  1"
    assert html(["1 < 2", table]).count("&lt;") == 2


def test_own_metrics_stand_beside_the_built_in_ones(home: Path, run: Run) -> None:
    for _ in range(2):
        again = metier.train(Recipe.load(home / "recipe.toml"), metrics={"brevity <1>": brevity})
        (scored,) = [each for each in again.scores()["domains"][0]["scores"] if each["metric"] == "brevity <1>"]
        found = [brevity(each.get("output", ""), each["reference"]) for each in run.answers() if each["kind"] == "open"]
        assert scored["value"] == pytest.approx(sum(found) / len(found))
        assert scored["low"] <= scored["value"] <= scored["high"]
    assert again.directory == run.directory
    for against in again.scores()["against"].values():
        (difference,) = [each for each in against["domains"][0]["differences"] if each["metric"] == "brevity <1>"]
        assert difference["verdict"] in ("better", "worse", "no difference shown")
    page = again.report.read_text()
    assert "a metric of your own" in page
    assert "brevity &lt;1&gt;" in page
    assert page == metier.evaluate(again, metrics={"brevity <1>": brevity}).report.read_text()
    assert "brevity" not in metier.evaluate(again).report.read_text()


@pytest.mark.parametrize(
    ("metrics", "said"),
    [({"chrf": brevity}, "belongs to"), ({" ": brevity}, "is empty"), ({"odd": lambda a, b: float("nan")}, "gave nan")],
)
def test_a_metric_that_cannot_be_used_is_refused(run: Run, metrics: Any, said: str) -> None:
    with pytest.raises(MetierError, match=said):
        metier.evaluate(run, metrics=metrics)


def test_an_own_objective_makes_another_run(home: Path, run: Run) -> None:
    own = metier.train(Recipe.load(home / "recipe.toml"), objective=doubled)
    assert own.directory != run.directory
    first, other = (
        next(each["values"]["loss"] for each in made.events() if each["phase"] == "train") for made in (run, own)
    )
    assert other == pytest.approx(2 * first)
    own.update(status="stopped")
    with pytest.raises(MetierError, match="objective changed"):
        train(own.recipe(), resume=own)


@dataclass(frozen=True)
class Scaled:
    factor: float

    def __call__(self, forward: Forward, units: Sequence[Unit], packing: Packing) -> dict[str, float]:
        return {"loss": self.factor}


class Counting:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, forward: Forward, units: Sequence[Unit], packing: Packing) -> dict[str, float]:
        return {"loss": self.count}


def inner(factor: float) -> Objective:
    return lambda forward, units, packing: {"loss": factor}


def test_what_an_objective_depends_on_is_in_its_source() -> None:
    assert source_of(doubled).startswith("def doubled")
    assert source_of(Scaled(1.0)) != source_of(Scaled(2.0))
    for hidden, said in (
        (Counting(), "values"),
        (inner(2.0), "uses factor"),
        (eval("lambda *_: {}"), "cannot be read"),
    ):
        with pytest.raises(MetierError, match=said):
            source_of(hidden)


def test_the_text_of_a_class_in_a_notebook_s_cell_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for factor in (1, 2):
        code = f"class Own:\n    def __call__(self, forward, units, packing):\n        return {{'loss': {factor}}}\n"
        monkeypatch.setitem(linecache.cache, "<cell>", (len(code), None, code.splitlines(keepends=True), "<cell>"))
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(code, "<cell>", "exec"), names)
        found.append(source_of(names["Own"]()))
    assert "'loss': 1" in found[0]
    assert "'loss': 2" in found[1]


def test_chat_answers_as_the_run_and_as_its_base(run: Run) -> None:
    asked = "Where is order 3?"
    assert metier.chat(run, asked) == metier.chat(run, asked, domain="support")
    assert isinstance(metier.chat(run, asked, base=True), str)
    with pytest.raises(MetierError, match="no such"):
        metier.chat(run, asked, domain="sport")
    with pytest.raises(MetierError, match="nothing is asked"):
        metier.chat(run, "")
    classical = Run.open(run.directory.parent / run.scores()["against"]["classical"]["run"])
    with pytest.raises(MetierError, match="cannot chat"):
        metier.chat(classical, asked)


def test_a_notebook_shows_a_mistake_as_its_message(home: Path) -> None:
    with pytest.raises(MetierError) as caught:
        Recipe.load(home / "none.toml")
    shown = caught.value._render_traceback_()
    assert "does not exist" in shown[0]
    assert MetierError("a", "b")._render_traceback_() == ["error: a", "hint: b"]
