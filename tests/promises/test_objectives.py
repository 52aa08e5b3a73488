"""Preferences over trees are the published losses, row by row, however the step is cut into trees."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn.functional import logsigmoid

from metier.data.items import Item, Message
from metier.data.mixing import Unit
from metier.data.rendering import Renderer
from metier.data.units import choose_objective, make_units
from metier.errors import RecipeError
from metier.experiment import train
from metier.inference.engine import Capacity, Engine
from metier.job import prepare
from metier.model.adapters import attach, disabled, trainable
from metier.model.forward import Forward
from metier.model.loading import NumberFormat, load
from metier.recipe import Recipe
from metier.run import Run
from metier.scores import auc
from metier.strategies import Objective
from metier.training.objectives import Dpo, Kto, Packing, Reference, read_reference
from metier.trees import Example
from tests.unit import tiny

RENDERER = Renderer(tiny.tokenizer())
WIDE, NARROW = Packing(1 << 20, True, None), Packing(80, True, None)


def pair(number: int) -> Item:
    asked = Message("user", f"the quick brown fox {number % 3} jumps")
    return Item(f"i{number}", "d", f"g{number}", f"f:{number}", number, (asked,), (f"good {number}", "bad fine"), 0)


def units(objective: Objective) -> list[Unit]:
    return make_units([pair(number) for number in range(7)], RENDERER, objective, 512)[0]


@pytest.fixture(scope="module")
def forward(tmp_path_factory: pytest.TempPathFactory) -> Forward:
    """A tiny base with an adapter that has moved."""
    base = load(tiny.save(tmp_path_factory.mktemp("base")), NumberFormat("float32", "float32"), "cpu")
    adapted, _ = attach(base.network, tiny.lora(), seed=1)
    torch.manual_seed(5)
    for parameter in trainable(adapted).values():
        parameter.data.normal_(0, 0.3)
    return base.forward.over(adapted.eval())


def reference(forward: Forward, found: Sequence[Unit]) -> Reference:
    with disabled(forward.network):
        return read_reference(Engine(forward, Capacity(512, 4), boundary=None), found)


def alone(forward: Forward, row: Example) -> Tensor:
    """The log-probability of a row's targets by plain transformers."""
    tokens = torch.tensor([row.tokens])
    forward.network.config._attn_implementation = "eager"  # type: ignore[union-attr]
    try:
        logits = forward.network(input_ids=tokens, use_cache=False).logits[0, :-1].log_softmax(-1)
    finally:
        forward.network.config._attn_implementation = "metier_tree"  # type: ignore[union-attr]
    weights = torch.tensor(row.weights[1:])
    return torch.as_tensor((logits.gather(-1, tokens[0, 1:, None])[:, 0] * weights).sum())


def gains(forward: Forward, rows: Sequence[Example]) -> Tensor:
    with torch.no_grad(), disabled(forward.network):
        base = torch.stack([alone(forward, row) for row in rows])
    return torch.stack([alone(forward, row) for row in rows]) - base


def gradients(forward: Forward) -> list[Tensor]:
    found = []
    for parameter in trainable(forward.network).values():
        assert parameter.grad is not None
        found.append(parameter.grad.clone())
        parameter.grad = None
    return found


def assert_same(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-4, atol=2e-6)


def test_dpo_over_trees_is_the_published_loss_and_its_gradient(forward: Forward) -> None:
    found = units("dpo")
    ours = Dpo(0.3, reference(forward, found))
    value = ours(forward, found, WIDE)
    mine = gradients(forward)
    ratio = torch.stack([gains(forward, [unit.rows[0]])[0] - gains(forward, [unit.rows[1]])[0] for unit in found])
    loss = -logsigmoid(0.3 * ratio).mean()
    loss.backward()
    assert value["loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert value["gain"] == pytest.approx(ratio.mean().item(), abs=1e-4)
    assert_same(mine, gradients(forward))
    assert ours(forward, found, NARROW)["loss"] == pytest.approx(value["loss"], abs=1e-6)
    assert_same(mine, gradients(forward))


def test_kto_over_trees_is_the_published_loss_and_its_gradient(forward: Forward) -> None:
    found = units("kto")
    assert {len(unit.rows) for unit in found} == {2}
    ours = Kto(0.3, reference(forward, found))
    value = ours(forward, found, WIDE)
    mine = gradients(forward)
    with torch.no_grad():
        drift = gains(forward, [unit.rows[1] for unit in found]).mean().clamp(min=0)
    gain = gains(forward, [unit.rows[0] for unit in found])
    sign = torch.tensor([1.0 if unit.liked else -1.0 for unit in found])
    loss = (1 - torch.sigmoid(0.3 * sign * (gain - drift))).mean()
    loss.backward()
    assert float(drift) > 0, "a reference point at its floor would prove little"
    assert value["drift"] == pytest.approx(drift.item(), abs=1e-4)
    assert value["loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert_same(mine, gradients(forward))
    assert ours(forward, found, NARROW)["loss"] == pytest.approx(value["loss"], abs=1e-6)
    assert_same(mine, gradients(forward))


def test_before_anything_moved_preferences_are_even(tmp_path: Path) -> None:
    base = load(tiny.save(tmp_path), NumberFormat("float32", "float32"), "cpu")
    fresh = base.forward.over(attach(base.network, tiny.lora(), seed=1)[0].eval())
    value = Dpo(0.1, reference(fresh, units("dpo")))(fresh, units("dpo"), WIDE)
    assert value["loss"] == pytest.approx(np.log(2), abs=1e-6)


def test_few_thumbs_down_count_as_much_as_many_up() -> None:
    rated = [Item(f"i{n}", "d", f"g{n}", "f", n, (Message("user", "x"),), (f"a{n}",), liked=n > 0) for n in range(4)]
    found, _ = make_units(rated, RENDERER, "kto", 512)
    assert sum(unit.weight for unit in found if unit.liked) == sum(unit.weight for unit in found if not unit.liked)


@pytest.mark.slow
def test_log_ratios_are_trls(forward: Forward, tmp_path: Path) -> None:
    """TRL's own trainer on the same rows."""
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    found = units("dpo")
    rows = [(unit.rows[0].weights.index(1.0), unit.rows) for unit in found]
    ids = [
        {
            "prompt_ids": list(chosen.tokens[:start]),
            "chosen_ids": list(chosen.tokens[start:]),
            "rejected_ids": list(rejected.tokens[start:]),
        }
        for start, (chosen, rejected) in rows
    ]
    tuned, base = (copy.deepcopy(forward.network) for _ in range(2))
    tuned, base = tuned.merge_and_unload(), base.unload()  # type: ignore[operator]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = trl.DPOConfig(str(tmp_path), beta=0.3, report_to=[], use_cpu=True, bf16=False, max_length=None)
        unused = datasets.Dataset.from_list([{"prompt": "x", "chosen": "y", "rejected": "z"}] * 2)
        for network in (tuned, base):
            network.set_attn_implementation("eager")
        how = {"args": config, "train_dataset": unused, "processing_class": tiny.tokenizer()}
        trainer = trl.DPOTrainer(tuned, base, **how)
        theirs = trainer.compute_loss(trainer.model, trainer.data_collator(ids))
    ours = Dpo(0.3, reference(forward, found))(forward, found, WIDE)
    gradients(forward)
    (margin,) = trainer._metrics["eval"]["rewards/margins"]
    assert ours["gain"] == pytest.approx(margin / 0.3, abs=1e-4)
    assert ours["loss"] == pytest.approx(theirs.item(), abs=1e-4)


@pytest.mark.parametrize("weighted", [False, True])
def test_auc_is_scikit_learns(weighted: bool) -> None:
    random = np.random.default_rng(3)
    scores, liked = random.integers(0, 12, 60), random.random(60) < 0.4
    weights = random.integers(0, 4, (5, 60)).astype(float) if weighted else np.ones((1, 60))
    theirs = [roc_auc_score(liked, scores, sample_weight=each) for each in weights]
    np.testing.assert_allclose(auc(scores, liked)(weights), theirs, atol=1e-12)
    assert auc([1.0, 2.0], [True, True])(np.ones((1, 2)))[0] == 0.5


def recipe(objective: str = "auto") -> Recipe:
    raw = {
        "model": "nano",
        "domain": [{"name": "d", "data": "x"}],
        "strategy": {"method": "lora", "objective": objective},
    }
    return Recipe.of(raw, Path("recipe.toml"))


def test_the_data_tells_the_objective_unless_the_recipe_does() -> None:
    assert choose_objective(recipe(), {"d": "preference"}) == "dpo"
    assert choose_objective(recipe(), {"d": "rated"}) == "kto"
    assert choose_objective(recipe(), {"d": "passage"}) == "lm"
    assert choose_objective(recipe(), {"d": "open", "e": "label", "f": "choice"}) == "sft"
    assert choose_objective(recipe("sft"), {"d": "preference"}) == "sft"
    assert choose_objective(recipe("kto"), {"d": "preference", "e": "rated"}) == "kto"
    with pytest.raises(RecipeError, match="domain d holds answers"):
        choose_objective(recipe("dpo"), {"d": "open"})
    with pytest.raises(RecipeError, match="d holds plain text, e holds answers"):
        choose_objective(recipe(), {"d": "passage", "e": "open"})


def run_of(folder: Path, domain: dict[str, Any], **settings: Any) -> Run:
    tiny.save(folder / "base")
    raw = {
        "model": "base",
        "domain": [{"name": "d", **domain}],
        "strategy": {"method": "lora"},
        "train": {"num_train_epochs": 6, "batch_size": 8, "learning_rate": 1e-2, "max_length": 256, **settings},
        "eval": {"general_choices": "", "general_text": "general.jsonl"},
    }
    (folder / "general.jsonl").write_text('{"text": "the quick brown fox jumps over the lazy dog"}\n')
    return train(Recipe.of(raw, folder / "recipe.toml"), offline=True)


def difference(run: Run, metric: str) -> dict[str, Any]:
    (record,) = run.scores()["against"]["none"]["domains"]
    return next(each for each in record["differences"] if each["metric"] == metric)


@pytest.mark.long
def test_a_run_on_pairs_raises_the_held_out_margin(tmp_path: Path) -> None:
    lines = ["prompt,chosen,rejected"]
    lines += [f"fox {n} jumps over dog {n * 7 % 5},good fine {n % 4},bad {n % 3} dog" for n in range(80)]
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    run = run_of(tmp_path, {"data": "pairs.csv"})
    assert run.recipe().strategy.objective == "dpo"  # type: ignore[union-attr]
    assert difference(run, "margin")["value"] > 0
    assert run.facts["measured"]["seconds"]["reference"] > 0
    assert run.plan()["seconds"]["reference"] > 0
    assert difference(run, "margin")["verdict"] == "better"


@pytest.mark.long
def test_a_run_on_plain_text_lowers_its_held_out_loss(tmp_path: Path) -> None:
    text = "\n\n".join(f"{n}. My card {n} was swallowed! What now, lazy dog? " * 40 for n in range(40))
    (tmp_path / "notes.md").write_text(text)
    run = run_of(tmp_path, {"data": "notes.md"}, num_train_epochs=2)
    assert run.recipe().strategy.objective == "lm"  # type: ignore[union-attr]
    assert difference(run, "loss")["verdict"] == "better"
    assert "classical" not in run.scores()["against"]
    assert run.report.exists()


def test_nothing_stands_in_front_of_plain_text(tmp_path: Path) -> None:
    tiny.save(tmp_path / "base")
    (tmp_path / "notes.md").write_text("\n\n".join(f"{n}. My card {n} was swallowed! " * 70 for n in range(12)))
    raw = {
        "model": "base",
        "domain": [{"name": "d", "data": "notes.md"}],
        "strategy": {"method": "lora", "num_fewshot": 2},
    }
    assert not prepare(Recipe.of(raw, tmp_path / "recipe.toml"), offline=True).front
