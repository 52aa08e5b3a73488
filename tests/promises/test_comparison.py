"""A comparison is its runs: every number follows from their answers, and nothing is run twice."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from metier import experiment
from metier.cli.main import app
from metier.comparison import layouts
from metier.comparison.costs import Costs
from metier.comparison.outcome import Outcome, check, compare
from metier.comparison.pair import compare_runs
from metier.comparison.running import How, look_ahead
from metier.errors import DataError, MetierError, ModelError, RecipeError, RunError
from metier.evaluation.answers import read_answers
from metier.evaluation.lines import Line, Runs
from metier.evaluation.metrics import align, out_of_one
from metier.events import Event, silent
from metier.grid import Comparison
from metier.recipe import Recipe
from metier.run import Run
from tests.promises import two_domains

pytestmark = pytest.mark.long

_RECIPE = f"""{two_domains.DOMAINS}
[strategy]
method = "lora"
peft.r = 2
[train]
num_train_epochs = 1
learning_rate = 1e-3
[eval]
max_new_tokens = 4
general_text = "general.csv"
general_choices = ""
"""
_COMPARISON = """
recipe = "recipe.toml"
[[strategy]]
name = "LoRA"
rows = [8, 1.0]
seeds = [1, 2]
[[strategy]]
name = "2 examples"
method = "none"
num_fewshot = 2
"""


def train(recipe: Recipe, overrides: Mapping[str, Any], **how: Any) -> Run:
    """In this process: a child takes seconds to start."""
    return experiment.train(recipe, overrides=overrides, **how)


def refuse(*_: Any, **__: Any) -> Run:
    raise AssertionError("a run was asked for that is there already")


def write(home: Path) -> None:
    two_domains.write(home)
    (home / "recipe.toml").write_text(_RECIPE)
    (home / "comparison.toml").write_text(_COMPARISON)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished comparison."""
    home = tmp_path_factory.mktemp("home")
    write(home)
    compare(Comparison.load(home / "comparison.toml"), train=train)
    return home


@pytest.fixture
def copy(home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(home, tmp_path / "moved"))


def lines(home: Path) -> dict[str, Any]:
    return {line["name"]: line for line in Outcome.open(home / "comparisons" / "comparison").table["lines"]}


def test_every_strategy_has_its_line_and_the_base_and_the_baseline_too(home: Path) -> None:
    assert list(lines(home)) == ["LoRA", "2 examples", "untuned base", "classical baseline"]
    assert {path.name for path in (home / "comparisons" / "comparison").iterdir()} == {
        "comparison.json",
        "report.html",
        "summary.md",
        "table.csv",
    }


def test_the_overall_score_is_the_mean_of_the_domains_and_the_seeds(home: Path) -> None:
    line = lines(home)["LoRA"]
    names = [source["run"] for source in line["sources"]]
    assert len(set(names)) == 2
    scores = [Run(home / "runs" / name).scores()["domains"] for name in names]
    primary = [
        [
            out_of_one(each["scores"][0]["metric"], each["scores"][0]["value"])
            for each in domains
            if each["kind"] != "text"
        ]
        for domains in scores
    ]
    means = [sum(each) / len(each) for each in primary]
    assert line["seeds"] == pytest.approx(means)
    assert line["overall"]["value"] == pytest.approx(sum(means) / 2)
    by_hand = {"mood": (primary[0][0] + primary[1][0]) / 2, "help": (primary[0][1] + primary[1][1]) / 2}
    assert {name: each["value"] for name, each in line["by_domain"].items()} == pytest.approx(by_hand)


def test_a_domain_s_test_is_that_of_the_run_s_own_report(home: Path) -> None:
    """With one seed and one family the paired bootstrap of the table is the run's."""
    line = lines(home)["2 examples"]
    found = line["against_base"]["by_domain"]["help"]
    run = Run(home / "runs" / line["sources"][0]["run"])
    own = next(each for each in run.scores()["against"]["none"]["domains"] if each["domain"] == "help")
    chrf = next(each for each in own["differences"] if each["metric"] == "chrf")
    for key in ("value", "low", "high"):
        assert 100 * found[key] == pytest.approx(chrf[key], abs=1e-6)
    assert found["p"] == pytest.approx(chrf["p"])


def test_again_runs_nothing_and_changes_nothing(home: Path) -> None:
    folder = home / "comparisons" / "comparison"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    compare(Comparison.load(home / "comparison.toml"), train=refuse)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_fewer_rows_lie_in_more_and_held_out_items_stay(home: Path) -> None:
    curve = Outcome.open(home / "comparisons" / "comparison").table["curves"][0]
    assert [point["examples"] for point in curve["points"]] == [8, 24]
    assert curve["per_doubling"]["low"] <= curve["per_doubling"]["value"] <= curve["per_doubling"]["high"]
    sizes = {}
    for run in map(Run, sorted((home / "runs").glob("lora-*"))):
        seen, recipe = run.seen(), run.recipe()
        sizes[recipe.train.seed, recipe.train.rows] = {*seen["train"], *seen["validation"]}
        assert sum(each.of_domain for each in read_answers(run.directory / "answers.jsonl")) == 2 * 16
    for seed in (1, 2):
        assert sizes[seed, 8] < sizes[seed, 1.0]
        assert len(sizes[seed, 8]) == 16
    assert sizes[1, 8] != sizes[2, 8]


def test_a_report_is_checked_against_its_runs(copy: Path) -> None:
    outcome = Outcome.open(copy / "comparisons" / "comparison")
    assert check(outcome) == []
    path = outcome.directory / "table.csv"
    path.write_text(re.sub(r"0\.(\d)", r"0.9\1", path.read_text(), count=1))
    (told,) = check(outcome)
    assert told.startswith(f"{path}:")
    result = CliRunner().invoke(app, ["compare", "--check", str(outcome.report)])
    assert isinstance(result.exception, MetierError)


def test_an_answer_that_was_changed_is_found(copy: Path) -> None:
    outcome = Outcome.open(copy / "comparisons" / "comparison")
    run = copy / "runs" / outcome.table["lines"][0]["sources"][0]["run"] / "answers.jsonl"
    rows = [json.loads(line) for line in run.read_text().splitlines()]
    rows[0]["output"] = "up" if rows[0]["output"] == "down" else "down"
    run.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert {told.rpartition("/")[2].partition(":")[0] for told in check(outcome)} >= {"comparison.json", "table.csv"}


def test_a_run_that_is_gone_is_named(copy: Path) -> None:
    outcome = Outcome.open(copy / "comparisons" / "comparison")
    name = outcome.table["lines"][0]["sources"][0]["run"]
    shutil.rmtree(copy / "runs" / name)
    with pytest.raises(RunError, match=name):
        check(outcome)


def test_one_strategy_that_fails_leaves_the_others(copy: Path) -> None:
    (copy / "comparison.toml").write_text(_COMPARISON + '[[strategy]]\nname = "IA3"\nmethod = "ia3"\n')

    def failing(recipe: Recipe, *_: Any, **__: Any) -> Run:
        raise MetierError("the card is on fire", "put it out")

    outcome = compare(Comparison.load(copy / "comparison.toml"), train=failing)
    assert outcome.table["failed"] == {"IA3": "the card is on fire"}
    assert len(outcome.table["lines"]) == 4
    assert "failed: IA3: the card is on fire" in str(outcome)


def test_every_fault_is_told_before_anything_starts(copy: Path) -> None:
    text = _COMPARISON + '[[strategy]]\nname = "a"\ndomain.mood.data = "gone.csv"\n'
    text += '[[strategy]]\nname = "b"\nmodel = "nowhere"\n'
    (copy / "comparison.toml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        compare(Comparison.load(copy / "comparison.toml"), train=refuse)
    assert "strategy 'a'" in str(caught.value)
    assert "gone.csv" in str(caught.value)
    assert "strategy 'b'" in str(caught.value)


def test_strategies_that_are_asked_other_items_are_not_paired(copy: Path) -> None:
    difference = '[[strategy]]\nname = "other"\nmethod = "none"\neval.limit = 5\n'
    (copy / "comparison.toml").write_text(_COMPARISON + difference)
    table = compare(Comparison.load(copy / "comparison.toml"), train=train).table
    assert table["failed"]["other"].startswith("was asked other items of mood than LoRA; ")
    assert "other" not in {line["name"] for line in table["lines"]}


def test_two_runs_are_paired_over_what_both_held_out(copy: Path) -> None:
    """Last month's data and this month's, of which some rows are new."""
    first = next(run for run in map(Run, (copy / "runs").glob("lora-*")) if run.recipe().train.rows == 1.0)
    with (copy / "mood.csv").open("a", newline="") as file:
        csv.writer(file).writerows((f"bond {n} rises", "up") for n in range(30))
    second = experiment.train(Recipe.load(copy / "recipe.toml"))
    found = compare_runs(first, second)
    items = {
        run.name: {(row["domain"], row["id"]) for row in run.answers() if row["kind"] != "text"}
        for run in (first, second)
    }
    common = items[first.name] & items[second.name]
    assert {record.domain: record.n for record in found.records} == {
        name: sum(domain == name for domain, _ in common) for name in ("mood", "help")
    }
    assert sum(found.left_out.values()) == len(items[first.name] ^ items[second.name]) > 0
    result = CliRunner().invoke(app, ["compare", str(first.directory), str(second.directory)])
    assert result.exit_code == 0
    assert "left out" in result.output


def test_runs_without_a_common_item_are_refused(home: Path, tmp_path: Path) -> None:
    write(tmp_path)
    text = (tmp_path / "mood.csv").read_text().replace("share", "bond")
    (tmp_path / "mood.csv").write_text(text)
    (tmp_path / "recipe.toml").write_text(_RECIPE.replace('name = "help"', 'name = "aid"'))
    other = experiment.train(Recipe.load(tmp_path / "recipe.toml", {"strategy": {"method": "classical"}}))
    first = next((home / "runs").glob("classical-*"))
    with pytest.raises(RunError, match="have no held-out item in common"):
        compare_runs(Run(first), other)


def test_alignment_is_over_the_items_that_all_have(home: Path) -> None:
    answers = read_answers(next((home / "runs").glob("lora-*")) / "answers.jsonl")
    asked = [each for each in answers if each.of_domain]
    found = {each.domain: each for each in align({"one": asked, "two": asked})}
    assert found.keys() == {"mood", "help"}
    with pytest.raises(ValueError, match="items are in one run only"):
        align({"one": asked, "two": asked[1:]})


def test_a_score_under_the_asked_one_is_a_gate(home: Path) -> None:
    for score, code in ((0.0, 0), (100.0, 3)):
        result = CliRunner().invoke(
            app, ["compare", str(home / "comparison.toml"), "--fail-under", str(score), "--csv"]
        )
        assert result.exit_code == code
    assert result.stdout.splitlines()[0].startswith("name,model,")


def test_a_red_guard_is_not_recommended(copy: Path) -> None:
    for path in (copy / "runs").glob("lora-*/answers.jsonl"):  # as if all of them had forgotten
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        worse = [row | {"logprob": 2 * row["base_logprob"]} if row["kind"] == "text" else row for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in worse))
    outcome = compare(Comparison.load(copy / "comparison.toml", {"eval.guard": {"general_text": 0.0}}), train=refuse)
    red = {name for name, line in lines(copy).items() if not line["guards_hold"]}
    assert red == {"LoRA"}
    assert str(outcome).count("a guard says no") == 1
    assert outcome.table["recommended"] not in red


@pytest.mark.slow
def test_experts_are_put_together(copy: Path) -> None:
    """Their oracle, two routers and three merges follow from their own answers; nothing is run twice."""
    layouts = 'layout = ["shared", "one-set", "per-domain"]\nprompts = "prompts.jsonl"\n'
    (copy / "comparison.toml").write_text(layouts + _COMPARISON.replace("rows = [8, 1.0]", ""))
    hard = [
        {"prompt": "my share falls", "domain": "mood", "kind": "short"},
        {"prompt": "open the box", "domain": "help", "allowed": ["help", "mood"], "kind": "mixed"},
    ]
    (copy / "prompts.jsonl").write_text("".join(json.dumps(each) + "\n" for each in hard))
    outcome = compare(Comparison.load(copy / "comparison.toml"), train=train)
    found = lines(copy)
    experts = "LoRA, per domain"
    more = ["routed", "routed by the base", "merged (linear)", "merged (ties)", "merged (cat)"]
    tuned = ["LoRA", "LoRA, on mood alone", "LoRA, on help alone", experts, *(f"{experts}, {each}" for each in more)]
    assert list(found) == [*tuned, "2 examples", "untuned base", "classical baseline"]
    # The oracle's score in a domain is that of the adapter that was tuned on it alone.
    for domain in ("mood", "help"):
        alone = found[f"LoRA, on {domain} alone"]["by_domain"][domain]
        assert found[experts]["by_domain"][domain] == alone
        matrix = outcome.table["layouts"][0]["matrix"]
        assert matrix[domain][domain] == pytest.approx(alone["value"])
    assert {*outcome.table["layouts"][0]["contrasts"]} >= {"interference", "routing loss", "routing loss of the base"}
    for router in outcome.table["routers"]:
        held = router["heldout"]
        assert held["right"] + held["wrong"] + held["abstained"] == 32 == sum(map(sum, held["counts"]))
        assert router["hard"].keys() == {"all hard prompts", "short", "mixed"}
    for line in lines(copy).values():
        assert (line["kind"] in ("router", "base-router")) == (line["sources"][0]["routing"] > 0)
    for way in more[:2]:
        line = Line.of_json({key: found[f"{experts}, {way}"][key] for key in Line.__dataclass_fields__})
        unsent = replace(line, sources=tuple(replace(each, routing=0.0) for each in line.sources))
        answering = Costs(Runs(copy / "runs")).of(unsent).answering or 0
        routing = sum(each.routing for each in line.sources) / len(line.sources)
        assert found[line.name]["cost"]["answering"] == pytest.approx(answering + routing)
        # Every expert was tuned for it, whoever is asked.
        assert found[line.name]["cost"]["parameters"] >= found[experts]["cost"]["parameters"]
        assert line.sources[0].domains == found[experts]["sources"][0]["domains"]
    routed = next(each for each in outcome.table["routers"] if each["kind"] == "router")
    assert routed["heldout"]["wrong"] == 0 < routed["heldout"]["right"]  # the two domains share no word
    assert check(outcome) == []
    before = sorted(path.name for path in (copy / "runs").iterdir())
    compare(Comparison.load(copy / "comparison.toml"), train=refuse)
    assert sorted(path.name for path in (copy / "runs").iterdir()) == before
    merges = [found[f"{experts}, merged ({kind})"]["sources"][0]["run"] for kind in ("linear", "ties")]
    for name in merges:
        shutil.rmtree(copy / "runs" / name)
    how = How({}, offline=True, jobs=1, listen=silent)
    assert {line.name: line.unmerged for line in look_ahead(Comparison.load(copy / "comparison.toml"), how)}[
        experts
    ] == 2


def test_experts_alone_are_tuned_and_not_asked(copy: Path) -> None:
    """Without one adapter for all, the base stands in for a router's experts; the lines rest on tuning all the same."""
    text = _COMPARISON.replace("rows = [8, 1.0]\nseeds = [1, 2]", 'layout = "per-domain"')
    (copy / "comparison.toml").write_text(text)
    table = compare(Comparison.load(copy / "comparison.toml"), train=train).table
    assert table["tuned_or_asked"]["tuned"].startswith("LoRA, per domain")
    assert table["tuned_or_asked"]["asked"] in ("2 examples", "untuned base")


def test_a_router_that_fails_leaves_the_merges(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ModelError("no router today", "")

    monkeypatch.setattr(layouts.Router, "fit", broken)
    (copy / "comparison.toml").write_text(
        _COMPARISON.replace("rows = [8, 1.0]\nseeds = [1, 2]", 'layout = "per-domain"')
    )
    table = compare(Comparison.load(copy / "comparison.toml"), train=train).table
    assert table["failed"] == {"LoRA, per domain, routed": "no router today"}
    assert "LoRA, per domain, merged (ties)" in [line["name"] for line in table["lines"]]


def test_plain_text_is_compared_without_a_baseline(copy: Path) -> None:
    """Who asks for nothing has no classical baseline; its line is left out and no fault."""
    texts = [f"Harbour number {n} lies north of the old mill." for n in range(30)]
    (copy / "read.csv").write_text("text\n" + "\n".join(texts))
    reading = 'model = "base"\n[[domain]]\nname = "read"\ndata = "read.csv"\ntext = "text"\n'
    how = '[train]\nnum_train_epochs = 1\n[eval]\ngeneral_text = "general.csv"\ngeneral_choices = ""\n'
    (copy / "read.toml").write_text(reading + how)
    (copy / "reading.toml").write_text('recipe = "read.toml"\n[[strategy]]\nname = "LoRA"\n')
    outcome = compare(Comparison.load(copy / "reading.toml"), train=train)
    assert [line["name"] for line in outcome.table["lines"]] == ["LoRA", "untuned base"]
    assert outcome.table["failed"] == {}
    assert check(outcome) == []
    # Continued pre-training first, then the comparison's own recipe: its line rests on both runs.
    staged = '[[strategy]]\nname = "read first"\nafter = "read.toml"\n'
    (copy / "comparison.toml").write_text(_COMPARISON + staged)
    line = compare(Comparison.load(copy / "comparison.toml"), train=train).table["lines"][2]
    assert line["name"] == "read first"
    (source,) = line["sources"]
    stage = next(name for name in source["learned"])
    assert Run(copy / "runs" / source["run"]).recipe().model.endswith(stage)
    assert line["model"] == "base"
    assert line["against_base"]["overall"]
    compare(Comparison.load(copy / "comparison.toml"), train=refuse)


def test_a_stage_that_fails_is_told_and_nothing_goes_on_from_the_base_instead(copy: Path) -> None:
    (copy / "stage.toml").write_text(_RECIPE.replace("num_train_epochs = 1", "num_train_epochs = 2"))
    (copy / "comparison.toml").write_text(_COMPARISON + '[[strategy]]\nname = "later"\nafter = "stage.toml"\n')

    def failing(*_: Any, **__: Any) -> Run:
        raise MetierError("the card is on fire", "put it out")

    table = compare(Comparison.load(copy / "comparison.toml"), train=failing).table
    assert table["failed"] == {"later": "the stage before it failed: the card is on fire"}


def test_an_hour_of_this_machine_prices_every_line(copy: Path) -> None:
    (copy / "comparison.toml").write_text("price_per_hour = 3.6\n" + _COMPARISON)
    outcome = compare(Comparison.load(copy / "comparison.toml"), train=refuse)
    for line in outcome.table["lines"]:
        assert line["cost"]["price"] == pytest.approx(line["cost"]["answering"] / 1000)
    assert "price of 1,000" in outcome.report.read_text()
    assert check(outcome) == []


def test_a_guard_belongs_to_its_comparison(copy: Path) -> None:
    """Two comparisons share their runs, and each keeps its own report."""
    own = Outcome.open(copy / "comparisons" / "comparison")
    (copy / "strict.toml").write_text("eval = { guard = { general_text = 0.0 } }\n" + _COMPARISON)
    strict = compare(Comparison.load(copy / "strict.toml"), train=refuse)
    assert strict.table["lines"][0]["guard"] == {"general_text": 0.0}
    assert check(own) == []
    assert check(strict) == []
    assert own.table["lines"][0]["guard"] == {}


def test_what_began_beside_others_is_never_timed_as_alone(copy: Path) -> None:
    (copy / "comparison.toml").write_text('recipe = "recipe.toml"\n[[strategy]]\nname = "new"\npeft.r = 5\n')

    def stop(recipe: Recipe, overrides: Mapping[str, Any], **how: Any) -> Run:
        def first(event: Event) -> None:
            if event.phase == "train":
                raise MetierError("the lights went out", "")

        return train(recipe, overrides, **{**how, "on_event": first})

    outcome = compare(Comparison.load(copy / "comparison.toml"), jobs=2, train=stop)
    assert outcome.table["failed"] == {"new": "the lights went out"}
    again = compare(Comparison.load(copy / "comparison.toml"), train=train).table["lines"]
    assert next(line for line in again if line["name"] == "new")["cost"]["training"] is None


def test_cells_that_need_one_run_wait_for_it(copy: Path) -> None:
    """A scaled adapter is the whole's, and more rows than there are is all of them: no run has two processes."""
    busy: set[str] = set()

    def alone(recipe: Recipe, overrides: Mapping[str, Any], **how: Any) -> Run:
        run, _ = experiment.locate(recipe, overrides)
        assert run.name not in busy
        busy.add(run.name)
        try:
            return train(recipe, overrides, **how)
        finally:
            busy.discard(run.name)

    text = 'recipe = "recipe.toml"\n[[strategy]]\nname = "whole"\npeft.r = 3\nrows = [100000, 1.0]\n'
    text += '[[strategy]]\nname = "half"\npeft.r = 3\nscale = 0.5\n'
    (copy / "comparison.toml").write_text(text)
    outcome = compare(Comparison.load(copy / "comparison.toml"), jobs=3, train=alone)
    assert outcome.table["failed"] == {}
    assert [line["name"] for line in outcome.table["lines"]][:2] == ["whole", "half"]
    whole, half = outcome.table["lines"][:2]
    assert half["cost"]["parameters"] == whole["cost"]["parameters"]
    assert whole["cost"]["training"] is None  # beside others


def test_the_base_is_what_the_recipe_asks_bare(copy: Path) -> None:
    """Another system prompt is a strategy; the base that everything is compared with stays what it is."""
    pirate = '[[strategy]]\nname = "pirate"\nmethod = "none"\ndomain.mood.system = "You are a pirate."\n'
    (copy / "comparison.toml").write_text('recipe = "recipe.toml"\n' + pirate)
    found = compare(Comparison.load(copy / "comparison.toml"), train=train).table["lines"]
    assert [(line["name"], line["kind"]) for line in found] == [
        ("pirate", ""),
        ("untuned base", "base"),
        ("classical baseline", ""),
    ]
    assert found[0]["against_base"]["overall"]


def test_it_is_checked_by_the_name_of_its_file_too(home: Path) -> None:
    result = CliRunner().invoke(app, ["compare", "--check", str(home / "comparison.toml")])
    assert result.exit_code == 0, result.output


def test_it_is_checked_from_inside_its_folder(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy / "comparisons" / "comparison")
    assert check(Outcome.open("report.html")) == []


def test_hard_prompts_are_read_before_anything_is_trained(copy: Path) -> None:
    (copy / "comparison.toml").write_text('layout = "per-domain"\nprompts = "gone.jsonl"\n' + _COMPARISON)
    with pytest.raises(RecipeError, match=r"prompts: gone\.jsonl does not exist"):
        compare(Comparison.load(copy / "comparison.toml"), train=refuse)


def _said(run: Run) -> list[dict[str, Any]]:
    return [{**row, "place": row["place"].rpartition("/")[2]} for row in run.answers()]


@pytest.mark.slow
def test_killed_five_times_the_answers_are_the_same(home: Path, tmp_path: Path) -> None:
    """By kill -9 of the whole group, at moments that the runs' own work chooses; then the same command again."""
    write(tmp_path)
    command = [sys.executable, "-m", "metier.cli.main", "compare", "comparison.toml"]
    kills = 0
    for events in (1, 3, 6, 9, 12):
        child = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
        assert child.stderr
        for number, _ in enumerate(child.stderr):
            if number == events:
                break
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            kills += 1
        child.stderr.close()
        child.wait()
        time.sleep(1)  # what it started ends by itself
    assert kills == 5
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {path.name for path in (home / "runs").iterdir()}
    for path in (home / "runs").iterdir():
        again = Run(tmp_path / "runs" / path.name)
        assert again.scores() == Run(path).scores()
        # Places are as the command line named the files.
        said = [
            [{**row, "place": row["place"].rpartition("/")[2]} for row in run.answers()] for run in (again, Run(path))
        ]
        assert said[0] == said[1]


@pytest.mark.slow
def test_a_child_tells_the_user_s_mistake(home: Path) -> None:
    from metier import child

    recipe = Recipe.load(home / "recipe.toml", {"domain.mood.data": "gone.csv"})
    with pytest.raises(MetierError, match=r"gone\.csv"):
        child.train(recipe, {}, offline=True, on_event=print)
    with pytest.raises(DataError):
        experiment.check(recipe)
