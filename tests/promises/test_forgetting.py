"""What was forgotten is seen, a share of a change is that share, and what is replayed enters exactly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metier import experiment
from metier.data.general import read_general
from metier.data.mixing import Unit, beside
from metier.errors import DataError, RecipeError
from metier.evaluation import tradeoff
from metier.events import Event
from metier.files import write_directory
from metier.hardware import Rates
from metier.job import prepare
from metier.model.adapters import Identity, attach, disabled, load, merge, save, trainable
from metier.model.forward import Forward
from metier.model.loading import Base, NumberFormat
from metier.model.loading import load as load_base
from metier.model.scaling import scale, scaled
from metier.recipe import Recipe
from metier.run import Run
from metier.strategies import Full, LastN, Tuned
from metier.training.loop import Stopped
from metier.training.objectives import Likelihood, Packing
from metier.training.replay import Replayed
from metier.trees import Example, pack
from tests.unit import tiny

METHODS: dict[str, Tuned] = {
    "lora": tiny.lora(),
    "rsLoRA": tiny.lora(use_rslora=True),
    "PiSSA": tiny.lora(init_lora_weights="pissa"),
    "OLoRA": tiny.lora(init_lora_weights="olora"),
    "modules_to_save": tiny.lora(modules_to_save=("lm_head",)),
    "full": Full(method="full", objective="sft"),
    "last-n": LastN(method="last-n", layers=1, objective="sft"),
}
ROWS = [
    Example((7, 8, 9, 10, 11), (0, 1, 1, 1, 1)),
    Example((7, 8, 20, 21), (0, 0, 1, 1)),
    Example((7, 8, 9, 30), (0, 0, 1, 1)),
]
GENERAL = [Example((40, 41, 42, 43, 44), (0, 1, 1, 1, 1)), Example((40, 41, 50), (0, 0, 1)), Example((7, 60), (0, 1))]
STEP = [*(Unit((row,)) for row in ROWS), *(Unit((row,), replay=True) for row in GENERAL)]
WIDE, NARROW = Packing(1 << 20, True, None), Packing(5, True, None)
TREE = pack(ROWS, 1 << 20)[0]


def moved(folder: Path, strategy: Tuned, **changes: Any) -> tuple[Base, Forward]:
    """A tiny base and a forward through an adapter on it that has moved."""
    base = load_base(tiny.save(folder, **changes), NumberFormat("float32", "float32"), "cpu")
    adapted, _ = attach(base.network, strategy, seed=1)
    torch.manual_seed(5)
    for parameter in trainable(adapted).values():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.2)
    return base, base.forward.over(adapted.eval())


def logprobs(forward: Forward) -> Tensor:
    with torch.no_grad():
        return forward.logprobs(TREE)


@pytest.mark.parametrize("name", METHODS)
def test_no_share_of_a_change_is_the_base_and_the_whole_is_the_run(tmp_path: Path, name: str) -> None:
    _, forward = moved(tmp_path, METHODS[name])
    whole = logprobs(forward)
    with disabled(forward.network):
        base = logprobs(forward)
    assert not torch.allclose(base, whole, atol=1e-3)
    with scaled(forward.network, 0.0):
        none = logprobs(forward)
        assert torch.equal(none, base) or name in ("PiSSA", "OLoRA")  # two adapters' zeros are summed
        torch.testing.assert_close(none, base, rtol=0, atol=1e-6)
    with scaled(forward.network, 1.0):
        assert torch.equal(logprobs(forward), whole)
    assert torch.equal(logprobs(forward), whole), "what was scaled is put back"


@pytest.mark.parametrize(("name", "tied"), [*((name, False) for name in METHODS), ("full", True)])
def test_half_of_a_saved_change_is_halfway_between_the_weights(tmp_path: Path, name: str, tied: bool) -> None:
    _, forward = moved(tmp_path / "one", METHODS[name], tie_word_embeddings=tied)
    identity = Identity("tiny", "b", "t", "c")
    write_directory(tmp_path / "adapter", lambda to: save(forward.network, identity, "", to))  # type: ignore[arg-type]
    fresh = (load_base(tmp_path / "one", NumberFormat("float32", "float32"), "cpu").network for _ in range(3))
    origin, weights = dict(next(fresh).named_parameters()), []
    for factor in (1.0, 0.5):
        adapted = load(next(fresh), tmp_path / "adapter", identity)
        scale(adapted, factor)
        weights.append(dict(merge(adapted).named_parameters()))
    whole, half = weights
    assert any(not torch.allclose(whole[key], origin[key], atol=1e-3) for key in origin)
    for key, before in origin.items():
        torch.testing.assert_close(half[key], (before + whole[key]) / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("strategy", "why"),
    [
        ({"method": "ia3"}, "not a sum"),
        ({"method": "prompt_tuning", "peft": {"num_virtual_tokens": 4}}, "not a sum"),
        ({"method": "lora", "peft": {"use_dora": True}}, "use_dora"),
        ({"method": "lora", "objective": "classify"}, "a head that classifies"),
        ({"method": "head"}, "a head that classifies"),
    ],
)
def test_a_share_that_would_mean_nothing_is_refused(strategy: dict[str, Any], why: str) -> None:
    raw = {"model": "nano", "domain": [{"name": "d", "data": "x"}], "strategy": {**strategy, "scale": 0.5}}
    with pytest.raises(RecipeError, match=rf"strategy\.scale: has no meaning .*{why}"):
        Recipe.of(raw, Path("recipe.toml"))


def alone(forward: Forward, row: Example) -> Tensor:
    """Log-probabilities of the whole vocabulary at a row's targets, by plain transformers, [targets, V]."""
    forward.network.config._attn_implementation = "eager"  # type: ignore[union-attr]
    try:
        logits = forward.network(input_ids=torch.tensor([row.tokens]), use_cache=False).logits[0]
    finally:
        forward.network.config._attn_implementation = "metier_tree"  # type: ignore[union-attr]
    places = [place for place, weight in enumerate(row.weights) if weight]
    return torch.as_tensor(logits.log_softmax(-1)[[place - 1 for place in places]])


def expected(forward: Forward, share: float, kl: float) -> Tensor:
    def said(rows: Sequence[Example]) -> Tensor:
        parts = []
        for row in rows:
            tokens = [token for token, weight in zip(row.tokens, row.weights, strict=True) if weight]
            parts.append(alone(forward, row)[range(len(tokens)), tokens])
        return -torch.cat(parts).mean()

    with torch.no_grad(), disabled(forward.network):
        base = torch.cat([alone(forward, row) for row in GENERAL])
    tuned = torch.cat([alone(forward, row) for row in GENERAL])
    apart = (base.exp() * (base - tuned)).sum(-1).mean()
    return said(ROWS) + share / (1 - share) * said(GENERAL) + kl * apart


def gradients(forward: Forward) -> list[Tensor]:
    found = [each.grad.clone() for each in trainable(forward.network).values() if each.grad is not None]
    forward.network.zero_grad()
    return found


@pytest.mark.parametrize("kl", [0.0, 0.7])
@pytest.mark.parametrize("name", ["lora", "full", "PiSSA"])
def test_replay_and_kl_are_the_formula_on_rows_alone(tmp_path: Path, name: str, kl: float) -> None:
    _, forward = moved(tmp_path, METHODS[name])
    ours = Replayed(Likelihood(), 0.2, kl)
    value = ours(forward, STEP, WIDE)
    mine = gradients(forward)
    loss = expected(forward, 0.2, kl)
    loss.backward()
    assert value["loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert ("kl" in value) == bool(kl)
    theirs = gradients(forward)
    assert len(mine) == len(theirs) > 0
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-4, atol=2e-6)
    assert ours(forward, STEP, NARROW)["loss"] == pytest.approx(value["loss"], abs=1e-5)
    for one, other in zip(gradients(forward), mine, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-4, atol=2e-6)


def test_no_kl_is_as_without_it_and_before_anything_moved_it_is_zero(tmp_path: Path) -> None:
    base = load_base(tiny.save(tmp_path), NumberFormat("float32", "float32"), "cpu")
    fresh = base.forward.over(attach(base.network, tiny.lora(), seed=1)[0])
    value = Replayed(Likelihood(), 0.2, 3.0)(fresh, STEP, WIDE)
    assert value["kl"] == pytest.approx(0.0, abs=1e-7)
    assert value["loss"] == pytest.approx(Replayed(Likelihood(), 0.2, 0.0)(fresh, STEP, WIDE)["loss"], abs=1e-6)
    assert fresh.network.training, "the base was read as it is, and training goes on"


def test_every_step_has_its_share_and_the_pool_goes_round() -> None:
    own, pool = [[Unit((ROWS[0],))] * 8] * 5, [Unit((row,), replay=True) for row in GENERAL]
    small = [*beside(own, pool, 0.05)]
    assert [sum(unit.replay for unit in units) for units in small] == [1] * 5
    assert [units[-1].rows[0] for units in small] == [*GENERAL, *GENERAL[:2]]
    assert [sum(unit.replay for unit in units) for units in beside(own, pool, 0.5)] == [8] * 5


TEXTS = [f"My card {number} was swallowed by the quick brown fox near the lazy dog." for number in range(9)]
QUESTIONS = [
    {"question": f"What is good number {number}?", "choices": ["fox", "dog", "card"], "answer": "ABC"[number % 3]}
    for number in range(9)
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    tiny.save(folder / "base")
    answers = [("up", "rises"), ("down", "falls"), ("down", "sinks")]
    lines = [
        "text,label",
        *(f"share {number} {answers[number % 3][1]},{answers[number % 3][0]}" for number in range(40)),
    ]
    (folder / "x.csv").write_text("\n".join(lines) + "\n")
    files = {"general": [{"text": text} for text in TEXTS], "choices": QUESTIONS}
    files["replay"] = [{"prompt": f"Where is dog {number}?", "answer": f"Over fox {number}."} for number in range(12)]
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def recipe(folder: Path, **changes: Any) -> Recipe:
    raw = {
        "model": "base",
        "domain": [{"name": "mood", "data": "x.csv", "labels": ["up", "down"]}],
        "strategy": {"method": "lora", "peft": {"r": 4}},
        "train": {"num_train_epochs": 4, "batch_size": 8, "learning_rate": 3e-2, "max_length": 128},
        "eval": {"general_text": "general.jsonl", "general_choices": "choices.jsonl", "max_new_tokens": 6},
    }
    return Recipe.of(raw, folder / "recipe.toml").override(**changes)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "measure", lambda *_: Rates(1e-6, 1e-6, 1e-6, 1e-6, 1e-12))


def events(run: Run) -> list[dict[str, Any]]:
    return [each for each in run.events() if each["phase"] == "train"]


@pytest.mark.long
@pytest.mark.usefixtures("quick")
def test_a_share_is_measured_without_training_again(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tradeoff, "NEGLIGIBLE", -9.0)  # a random base has little to forget
    folder = Path(shutil.copytree(home, tmp_path / "home"))
    half = experiment.train(recipe(folder, **{"strategy.scale": 0.5, "eval.guard": {"general_choices": 0.0}}))
    whole = Run.open(half.directory.parent / half.facts["whole"])
    assert len([*(folder / "runs").glob("lora-*")]) == 2
    assert events(whole)
    assert not events(half)
    assert half.seen() == whole.seen()
    lost = {run.name: run.scores()["forgetting"]["value"] for run in (whole, half)}
    assert abs(lost[half.name]) < abs(lost[whole.name])
    again = experiment.train(recipe(folder))
    assert (again.name, len([*(folder / "runs").glob("lora-*")])) == (whole.name, 2)

    weighed = whole.tradeoff
    assert weighed
    assert whole.scores()["tradeoff"] == weighed
    scales = [each["scale"] for each in weighed["points"]]
    assert scales == sorted(scales)
    assert {0.0, 0.25, 0.5, 0.75, 1.0} < set(scales)
    assert len(scales) == 6
    assert weighed["points"][0]["forgetting"] == 0.0
    chosen = experiment.train(recipe(folder, **{"strategy.scale": "auto"}))
    strategy = chosen.recipe().strategy
    assert isinstance(strategy, Tuned)
    assert strategy.scale == weighed["recommended"]
    page = whole.report.read_text()
    assert "A share of what was trained" in page
    assert f"recommended strategy.scale: {weighed['recommended']:g}" in str(whole)
    choices = half.scores()["general_choices"]
    assert half.scores()["guard"]["general_choices"]["value"] == pytest.approx(choices["before"] - choices["after"])
    assert choices["n"] == len(QUESTIONS)
    assert len(choices["gained"]) - len(choices["lost"]) == round(choices["value"] * choices["n"])


def test_general_text_is_cut_by_a_fixed_rule(home: Path) -> None:
    general = read_general(recipe(home))
    assert (len(general.heldout), len(general.validation)) == (7, 2)
    assert not {each.text for each in general.heldout} & {each.text for each in general.validation}
    assert {each.text for each in (*general.heldout, *general.validation)} == set(TEXTS)


def test_a_scale_is_not_chosen_where_there_is_nothing_to_choose_by(home: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(home, tmp_path / "home"))
    (folder / "general.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS[:3]))
    with pytest.raises(RecipeError, match=r"strategy\.scale: is auto, but eval\.general_text"):
        experiment.train(recipe(folder, **{"strategy.scale": "auto"}))
    assert not (folder / "runs").exists()


def test_what_shows_forgetting_is_never_replayed(home: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(home, tmp_path / "home"))
    other = "A heron stands in cold water for an hour and moves nothing but its eyes."
    (folder / "mixed.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in (*TEXTS[:4], other)))
    job = prepare(recipe(folder, **{"train.replay": {"data": "mixed.jsonl"}}))
    assert [item.reference for item in job.replay.items] == [other]
    assert len(job.replay.left_out) == 4
    assert "mixed.jsonl:1" in "\n".join(map(str, job.replay.left_out))
    with pytest.raises(DataError, match="has only rows that are measured on"):
        prepare(recipe(folder, **{"train.replay": {"data": "general.jsonl"}}))
    with pytest.raises(DataError, match="no prompts that the base could answer"):
        prepare(recipe(folder, **{"train.replay": {"data": "mixed.jsonl", "answers": "base"}}))
    with pytest.raises(RecipeError, match=r"train\.kl: has no rows"):
        recipe(folder, **{"train.kl": 0.1})


@pytest.mark.long
@pytest.mark.usefixtures("quick")
def test_replay_of_the_bases_own_answers_stopped_and_continued_ends_with_the_same_bytes(
    home: Path, tmp_path: Path
) -> None:
    replayed = {"train.replay": {"data": "replay.jsonl", "answers": "base", "share": 0.2}, "train.kl": 0.3}
    replayed |= {"train.num_train_epochs": 2, "eval.general_choices": ""}
    calm, rough = (Path(shutil.copytree(home, tmp_path / name)) for name in ("calm", "rough"))
    expected_run = experiment.train(recipe(calm, **replayed))
    taken = sum(unit.replay for units in prepare(recipe(calm, **replayed)).steps() for unit in units)
    assert len(expected_run.replay.read_text().splitlines()) == min(12, taken)
    assert {"replay", "kl"} <= set(events(expected_run)[-1]["values"])
    assert expected_run.plan()["seconds"]["replay answers"] > 0
    seen: list[Event] = []
    how: dict[str, Any] = {"overrides": {"checkpoint_every": 99}}

    def three_steps() -> bool:
        return sum(each.phase == "train" for each in seen) >= 3

    with pytest.raises(Stopped):
        experiment.train(recipe(rough, **replayed), on_event=seen.append, stop=three_steps, **how)
    found = experiment.train(recipe(rough, **replayed), on_event=seen.append, **how)
    assert sum("general prompts" in str(each.values.get("text")) for each in seen) == 1, "asked once"
    for path in expected_run.adapter.iterdir():
        assert (found.adapter / path.name).read_bytes() == path.read_bytes(), path.name
