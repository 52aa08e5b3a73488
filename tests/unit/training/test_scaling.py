"""float16 with loss scaling, as older CUDA cards train: on a CPU the same arithmetic."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.amp import GradScaler

from metier.errors import RunError
from metier.events import Event
from metier.model.adapters import trainable
from metier.model.forward import Forward
from metier.training import loop
from metier.training.checkpoint import Store
from metier.training.loop import Stopped, train
from metier.training.objectives import Likelihood
from tests.unit.training import test_loop

SETTINGS = dataclasses.replace(test_loop.SETTINGS, loss_scaling=True, patience=99)
TOO_MUCH = 2.0**34  # a scale under which float16 gradients overflow at first


def half(dropout: float = 0.1) -> Forward:
    """The base in float16 under adapters in float32."""
    made = test_loop.forward(dropout)
    for parameter in made.network.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.half()
    return made


def weights(forward: Forward) -> dict[str, torch.Tensor]:
    return {name: each.detach().clone() for name, each in trainable(forward.network).items()}


def trained(events: list[Event]) -> list[Event]:
    return [event for event in events if event.phase == "train"]


@pytest.fixture
def overflowing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "GradScaler", partial(GradScaler, init_scale=TOO_MUCH))


def test_scaled_gradients_are_the_same_where_nothing_overflows(tmp_path: Path) -> None:
    """A power of two changes no digit in float32."""
    plain, scaled = test_loop.forward(), test_loop.forward()
    for forward, settings in ((plain, dataclasses.replace(SETTINGS, loss_scaling=False)), (scaled, SETTINGS)):
        store = Store(tmp_path / str(settings.loss_scaling))
        train(forward, test_loop.rows(4), Likelihood(), settings, store, test_loop.hooks()[0])
    after = weights(scaled)
    assert all(torch.equal(each, after[name]) for name, each in weights(plain).items())


def test_small_gradients_are_not_lost(tmp_path: Path) -> None:
    """Through weights that shrink gradients below float16's smallest number, unscaled training stands still."""

    def moved(loss_scaling: bool) -> bool:
        forward = half(0.0)
        head = forward.network.get_output_embeddings().weight  # type: ignore[operator]
        head.data *= 1e-6
        before = weights(forward)
        settings = dataclasses.replace(SETTINGS, loss_scaling=loss_scaling)
        hook, _ = test_loop.hooks()
        train(forward, test_loop.rows(2), Likelihood(), settings, Store(tmp_path / str(loss_scaling)), hook)
        return any(not torch.equal(each, before[name]) for name, each in weights(forward).items())

    assert moved(True)
    assert not moved(False)


@pytest.mark.usefixtures("overflowing")
def test_a_step_that_overflows_changes_nothing_but_the_scale(tmp_path: Path) -> None:
    forward = half()
    before = weights(forward)
    hook, events = test_loop.hooks(stop_after=1)
    with pytest.raises(Stopped):
        train(forward, test_loop.rows(2), Likelihood(), SETTINGS, Store(tmp_path), hook)
    (event,) = trained(events)
    assert event.values["skipped"] == 1.0
    assert event.values["loss_scale"] == TOO_MUCH / 2
    assert "grad_norm" not in event.values
    assert all(torch.equal(each, before[name]) for name, each in weights(forward).items())


@pytest.mark.long
@pytest.mark.usefixtures("overflowing")
def test_it_learns_once_the_scale_has_settled(tmp_path: Path) -> None:
    hook, events = test_loop.hooks()
    settings = dataclasses.replace(SETTINGS, learning_rate=5e-2)
    train(half(0.0), test_loop.rows(1) * 50, Likelihood(), settings, Store(tmp_path), hook)
    skipped = ["skipped" in event.values for event in trained(events)]
    assert skipped[0]
    assert sum(skipped[25:]) <= 3
    losses = [float(event.values["loss"]) for event in trained(events)]
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.long
@pytest.mark.usefixtures("overflowing")
def test_a_stopped_training_continues_bit_for_bit(tmp_path: Path) -> None:
    """The scale and the steps since it last changed are part of a checkpoint."""
    rows = test_loop.rows(30)
    hook, events = test_loop.hooks()
    whole = train(half(), rows, Likelihood(), SETTINGS, Store(tmp_path / "whole"), hook)
    again: list[Event] = []
    for stop_after in (5, 4, 1 << 30):
        hook, heard = test_loop.hooks(stop_after=stop_after)
        with suppress(Stopped):
            found = train(half(), rows, Likelihood(), SETTINGS, Store(tmp_path / "parts"), hook)
        again += trained(heard)
    assert any("skipped" in event.values for event in again[9:])
    assert [event.values["loss"] for event in again] == [event.values["loss"] for event in trained(events)]
    assert found.scaler == whole.scaler


def test_what_no_scale_mends_stops_with_its_cause(tmp_path: Path) -> None:
    forward = half(0.0)
    (first, *_) = trainable(forward.network).values()
    first.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(RunError, match="norm is not finite"):
        train(forward, test_loop.rows(40), Likelihood(), SETTINGS, Store(tmp_path), test_loop.hooks()[0])
