"""A run is a base: the next stage begins with what was tuned, and is measured against the stage before."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from metier.data.items import fingerprint
from metier.errors import ModelError, RunError
from metier.experiment import train
from metier.inference.conversation import chat
from metier.inference.loaded import open_base, open_run
from metier.job import prepare
from metier.model.loading import NumberFormat
from metier.recipe import Recipe
from metier.run import Run
from metier.trees import Example, pack
from tests.unit import tiny

FLOAT = {"compute": "float32"}
ROW = Example(tuple(range(10, 40)), (0.0, *[1.0] * 29))


def stage(home: Path, name: str, model: str, domain: dict[str, Any], **strategy: Any) -> Run:
    raw = {
        "model": model,
        "domain": [{"name": "d", **domain}],
        "strategy": {"method": "lora", **strategy},
        "train": {"num_train_epochs": 2, "batch_size": 8, "learning_rate": 1e-2, "max_length": 128},
        "eval": {"general_choices": "", "general_text": "general.jsonl", "max_new_tokens": 4},
    }
    return train(Recipe.of(raw, home / f"{name}.toml"), overrides=FLOAT, offline=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    tiny.save(home / "base")
    (home / "general.jsonl").write_text('{"text": "the lazy dog"}\n')
    (home / "notes.md").write_text("\n\n".join(f"{n}. My card {n} was swallowed! " * 70 for n in range(12)))
    rows = [f"share {n} goes,{('up', 'down')[n % 3 == 0]},{('down', 'up')[n % 3 == 0]}" for n in range(60)]
    (home / "pairs.csv").write_text("prompt,chosen,rejected\n" + "\n".join(rows) + "\n")
    return home


@pytest.fixture(scope="module")
def first(home: Path) -> Run:
    return stage(home, "one", "base", {"data": "notes.md"})


def logprobs(loaded: Any) -> torch.Tensor:
    (tree,) = pack([ROW], 512)
    with torch.no_grad():
        found: torch.Tensor = loaded.forward.logprobs(tree)
    return found


@pytest.mark.long
@pytest.mark.parametrize(
    "strategy",
    [
        {},
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in ({"method": "full"}, {"peft": {"r": 4, "use_dora": True}})
        ),
    ],
    ids=str,
)
def test_base_and_adapter_are_the_merged_base(home: Path, strategy: dict[str, Any]) -> None:
    run = stage(home, "any", "base", {"data": "notes.md"}, **strategy)
    merged = open_base(str(run.directory), NumberFormat("float32", "float32"), "cpu")
    torch.testing.assert_close(logprobs(merged), logprobs(open_run(run)), rtol=1e-4, atol=1e-4)


@pytest.mark.long
def test_stages_chain_and_each_is_measured_against_the_one_before(home: Path, first: Run) -> None:
    second = stage(home, "two", f"runs/{first.name}", {"data": "pairs.csv"})
    assert second.recipe().strategy.objective == "dpo"  # type: ignore[union-attr]
    (against,) = (each["run"] for role, each in second.scores()["against"].items() if role == "none")
    untuned = Run.open(home / "runs" / against)
    assert untuned.recipe().model == f"runs/{first.name}"
    again = stage(home, "two", f"runs/{first.name}", {"data": "pairs.csv"})
    assert again.directory == second.directory
    assert isinstance(chat(second, "share 3 goes"), str)
    third = stage(home, "three", f"runs/{second.name}", {"data": "notes.md"})
    assert third.status == "finished"


def test_what_is_merged_is_remade_where_it_was_touched(home: Path, first: Run) -> None:
    open_base(str(first.directory), NumberFormat("float32", "float32"), "cpu")
    config = first.directory / "merged" / "config.json"
    before = config.read_text()
    config.write_text(before.replace("{", "{ ", 1))
    open_base(str(first.directory), NumberFormat("float32", "float32"), "cpu")
    assert config.read_text() == before


def test_what_cannot_be_a_base_is_said(home: Path, first: Run, tmp_path: Path) -> None:
    untuned = next(each for each in (home / "runs").glob("none-*") if Run.open(each).recipe().model == "base")
    with pytest.raises(ModelError, match="tuned nothing"):
        stage(home, "no", f"runs/{untuned.name}", {"data": "notes.md"})
    copy = Path(shutil.copytree(home, tmp_path / "copy"))
    Run.open(copy / "runs" / first.name).update(status="stopped")
    with pytest.raises(RunError, match="is not finished"):
        stage(copy, "no", f"runs/{first.name}", {"data": "notes.md"})


def test_what_lies_beside_the_weights_cannot_be_merged(home: Path) -> None:
    run = stage(home, "soft", "base", {"data": "notes.md"}, method="prompt_tuning", peft={"num_virtual_tokens": 4})
    with pytest.raises(ModelError, match="prompt_tuning cannot be merged"):
        stage(home, "no", f"runs/{run.name}", {"data": "notes.md"})


@pytest.mark.long
def test_what_an_earlier_stage_learned_is_never_held_out(home: Path) -> None:
    first = stage(home, "even", "base", {"data": "pairs.csv"})
    split = {"data": "pairs.csv", "heldout": {"permutation": 42, "share": 0.3}}
    second = stage(home, "odd", f"runs/{first.name}", split)
    known = {*first.seen()["train"], *first.seen()["validation"]}
    job = prepare(second.recipe().override(model=f"runs/{first.name}"), offline=True)
    assert not known & {fingerprint(item) for item in job.data.domains[0].heldout}
    assert any("was learned by" in str(fault) for fault in job.data.domains[0].left_out)
