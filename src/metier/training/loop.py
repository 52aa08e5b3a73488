"""The training loop: one optimizer step over token trees, validated, checkpointed, resumable bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.amp import GradScaler

from metier.data.mixing import Unit
from metier.errors import MetierError, RunError
from metier.events import Event, Listener
from metier.model.adapters import state, trainable
from metier.model.forward import Forward
from metier.training.checkpoint import Progress, Store
from metier.training.masters import Masters
from metier.training.objectives import Objective, Packing


class Stopped(MetierError):
    """Training was asked to stop; its checkpoint is written."""


@dataclass(frozen=True)
class Settings:
    """A resolved recipe's and plan's numbers, in steps."""

    learning_rate: float
    schedule: Literal["linear", "cosine", "constant"]
    warmup: int
    weight_decay: float
    max_grad_norm: float
    seed: int
    tokens_per_batch: int
    boundary: int | None
    validate_every: int
    checkpoint_every: int
    patience: int
    loss_scaling: bool = False


@dataclass(frozen=True)
class Hooks:
    """What the loop calls: `validate` gives values with the task's metric as `score`; `stop` asks to end."""

    validate: Callable[[], Mapping[str, float]]
    listen: Listener
    stop: Callable[[], bool]


def train(
    forward: Forward,
    steps: Sequence[Sequence[Unit]],
    objective: Objective,
    settings: Settings,
    store: Store,
    hooks: Hooks,
) -> Progress:
    """Train the adapter in `forward` on the units of each step; continue from the newest good checkpoint.

    Returns the progress with the best adapter's tensors. Raises `RunError` at the first non-finite
    value and `Stopped` after `hooks.stop`. With loss scaling a step whose gradients overflow float16 is
    skipped, and the scale halved (Micikevicius et al. 2018, section 3.2).
    """
    adapted = forward.network
    masters = Masters(trainable(adapted))
    parameters = masters.parameters
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=False
    )
    optimizer.register_step_post_hook(lambda *_: masters.publish())
    scaler = GradScaler(forward.device.type, enabled=settings.loss_scaling)
    progress = store.restore(parameters, optimizer)
    masters.publish()
    if progress.scaler:
        scaler.load_state_dict(progress.scaler)
    forward = forward.scaled(scaler.scale)
    begun = time.monotonic() - progress.seconds
    while progress.step < len(steps) and not progress.stopped_early:
        now = Now(progress.step, len(steps), settings)
        values = _step(forward, optimizer, scaler, objective, steps[progress.step], now)
        progress.step += 1
        progress.seconds = time.monotonic() - begun
        hooks.listen(Event("train", progress.step, len(steps), values))
        last = progress.step == len(steps)
        if last or progress.step % settings.validate_every == 0:
            _validate(adapted, progress, settings, hooks, len(steps))
        asked = hooks.stop()
        if asked or last or progress.stopped_early or progress.step % settings.checkpoint_every == 0:
            progress.seconds, progress.scaler = time.monotonic() - begun, scaler.state_dict()
            store.save(progress, parameters, optimizer)
        if asked and not last:
            raise Stopped(f"stopped after step {progress.step} of {len(steps)}; its checkpoint is written")
    return progress


def rate(step: int, total: int, settings: Settings) -> float:
    """The learning rate of a step counted from 0: linear warm-up, then as the schedule says, to zero."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / (settings.warmup + 1)
    done = (step - settings.warmup) / max(1, total - settings.warmup)
    falling = {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}
    return settings.learning_rate * falling[settings.schedule]


@dataclass(frozen=True)
class Now:
    """Which step of how many."""

    step: int
    total: int
    settings: Settings


def _step(
    forward: Forward,
    optimizer: torch.optim.Optimizer,
    scaler: GradScaler,
    objective: Objective,
    units: Sequence[Unit],
    now: Now,
) -> dict[str, float]:
    """One optimizer step over all units, however many trees they take; returns what was measured."""
    begun, settings, step = time.monotonic(), now.settings, now.step
    torch.manual_seed(settings.seed * 1_000_003 + step)  # dropout depends on the step, not on the past
    forward.network.train()
    packing = Packing(settings.tokens_per_batch, forward.forks, settings.boundary)
    values = objective(forward, units, packing)
    loss = values["loss"]
    scaler.unscale_(optimizer)
    norm = float(torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], settings.max_grad_norm))
    overflown = not math.isfinite(norm)
    if not math.isfinite(loss) or (overflown and scaler.get_scale() <= 1):
        raise RunError(f"step {step + 1}: {_cause(loss, step, settings)}")
    learning_rate = rate(step, now.total, settings)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    measured = {"skipped": 1.0} if overflown else {"grad_norm": norm}
    if scaler.is_enabled():
        measured["loss_scale"] = scaler.get_scale()
    return {**values, **measured, "learning_rate": learning_rate, "seconds": time.monotonic() - begun}


def _cause(loss: float, step: int, settings: Settings) -> str:
    if step == 0:
        return f"the loss is {loss} before anything was changed: the base itself gives numbers that are not finite"
    what = "the loss is" if not math.isfinite(loss) else "the gradient's norm is not finite, the loss"
    return (
        f"{what} {loss}: the likely cause is a learning rate that is too high; "
        f"try train.learning_rate={settings.learning_rate / 3:.1g}"
    )


def _validate(adapted: nn.Module, progress: Progress, settings: Settings, hooks: Hooks, total: int) -> None:
    """Measure on the validation slice, keep the best adapter, and stop where patience is at its end."""
    adapted.eval()
    values = dict(hooks.validate())
    better = progress.best_score is None or values["score"] > progress.best_score
    if better:
        progress.best_score, progress.best_step, progress.stale = values["score"], progress.step, 0
        progress.best = state(adapted)
    else:
        progress.stale += 1
        progress.stopped_early = progress.stale >= settings.patience
    hooks.listen(Event("validation", progress.step, total, values))
