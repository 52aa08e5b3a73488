from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from metier.data.mixing import Unit
from metier.errors import RunError
from metier.events import Event, silent
from metier.model.adapters import attach, state
from metier.model.forward import ATTENTION, Forward, register
from metier.training.checkpoint import Store
from metier.training.loop import Hooks, Settings, Stopped, rate, train
from metier.training.objectives import Likelihood
from metier.trees import Example
from tests.unit import tiny

SETTINGS = Settings(
    learning_rate=1e-2,
    schedule="linear",
    warmup=2,
    weight_decay=0.0,
    max_grad_norm=1.0,
    seed=3,
    tokens_per_batch=64,
    boundary=None,
    validate_every=4,
    checkpoint_every=3,
    patience=3,
)


def forward(dropout: float = 0.1) -> Forward:
    register()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    network = AutoModelForCausalLM.from_config(config, attn_implementation=ATTENTION, dtype=torch.float32)
    network.requires_grad_(False)
    return Forward(attach(network, tiny.lora(lora_dropout=dropout), seed=3)[0], forks=True)


def rows(count: int) -> list[list[Unit]]:
    """Steps of two rows that can be learned: token n is followed by n + 1."""
    made = [
        Unit((Example(tuple((start + i) % 60 for i in range(10)), (0.0, *[1.0] * 9)),)) for start in range(2 * count)
    ]
    return [made[2 * step : 2 * step + 2] for step in range(count)]


class Scores:
    """A validation that says what it is told to."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = list(values)

    def __call__(self) -> dict[str, float]:
        return {"score": self.values.pop(0) if self.values else 0.0}


def hooks(scores: Sequence[float] = (), stop_after: int = 1 << 30) -> tuple[Hooks, list[Event]]:
    events: list[Event] = []
    steps = lambda: sum(event.phase == "train" for event in events)  # noqa: E731
    return Hooks(Scores(scores), events.append, lambda: steps() >= stop_after), events


@pytest.mark.long
def test_it_learns(tmp_path: Path) -> None:
    hook, events = hooks()
    patient = dataclasses.replace(SETTINGS, patience=99, learning_rate=5e-2)
    train(forward(0.0), rows(1) * 80, Likelihood(), patient, Store(tmp_path), hook)
    losses = [event.values["loss"] for event in events if event.phase == "train"]
    assert float(losses[-1]) < 0.9 * float(losses[0])


def test_a_stopped_training_continues_bit_for_bit(tmp_path: Path) -> None:
    """Dropout included: 12 steps = 5 + 4 + 3, each in a new network."""
    whole = train(forward(), rows(12), Likelihood(), SETTINGS, Store(tmp_path / "whole"), hooks([0.1, 0.2, 0.3])[0])
    store = Store(tmp_path / "parts")
    for stop_after, scores in ((5, [0.1]), (4, [0.2])):
        with pytest.raises(Stopped):
            train(forward(), rows(12), Likelihood(), SETTINGS, store, hooks(scores, stop_after)[0])
    parts = train(forward(), rows(12), Likelihood(), SETTINGS, store, hooks([0.3])[0])
    assert {name: each.tolist() for name, each in parts.best.items()} == {
        name: each.tolist() for name, each in whole.best.items()
    }
    assert (parts.step, parts.best_step, parts.best_score) == (whole.step, whole.best_step, whole.best_score)


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(Stopped):
        train(forward(), rows(12), Likelihood(), SETTINGS, store, hooks([0.1], 7)[0])
    assert store.newest_step() == 7
    (tmp_path / "step-00000007" / "parameter.safetensors").write_bytes(b"torn")
    assert store.newest_step() == 6
    whole = train(forward(), rows(12), Likelihood(), SETTINGS, Store(tmp_path / "whole"), hooks([0.1, 0.2, 0.3])[0])
    again = train(forward(), rows(12), Likelihood(), SETTINGS, store, hooks([0.2, 0.3])[0])
    assert all(torch.equal(again.best[name], whole.best[name]) for name in whole.best)


def test_the_best_adapter_is_kept_and_patience_ends_it(tmp_path: Path) -> None:
    hook, events = hooks([0.1, 0.9, 0.2, 0.2, 0.2])
    made = forward(0.0)
    progress = train(made, rows(40), Likelihood(), SETTINGS, Store(tmp_path), hook)
    assert (progress.best_step, progress.step, progress.stopped_early) == (8, 20, True)
    assert any(not torch.equal(progress.best[name], each) for name, each in state(made.network).items())  # type: ignore[arg-type]
    assert sum(event.phase == "validation" for event in events) == 5


def test_a_value_that_is_not_finite_stops_with_step_and_cause(tmp_path: Path) -> None:
    wild = dataclasses.replace(SETTINGS, learning_rate=1e30, warmup=0, max_grad_norm=1e30)
    with pytest.raises(RunError, match=r"step \d+: .*learning rate"):
        train(forward(0.0), rows(12), Likelihood(), wild, Store(tmp_path), Hooks(Scores([]), silent, lambda: False))
    broken = forward(0.0)
    broken.network.get_input_embeddings().weight.data.fill_(float("nan"))  # type: ignore[operator]
    with pytest.raises(RunError, match=r"step 1: .*base itself"):
        train(broken, rows(2), Likelihood(), SETTINGS, Store(tmp_path / "b"), Hooks(Scores([]), silent, lambda: False))


def test_only_two_checkpoints_are_kept(tmp_path: Path) -> None:
    train(forward(), rows(12), Likelihood(), SETTINGS, Store(tmp_path), hooks()[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000009", "step-00000012"]


@pytest.mark.parametrize(("schedule", "middle"), [("linear", 0.5), ("cosine", 0.5), ("constant", 1.0)])
def test_rates_rise_and_fall_as_the_schedule_says(schedule: str, middle: float) -> None:
    settings = dataclasses.replace(SETTINGS, schedule=schedule, warmup=10)  # type: ignore[arg-type]
    rates = [rate(step, 110, settings) / settings.learning_rate for step in range(110)]
    assert rates[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(middle)
    assert min(rates) > 0
