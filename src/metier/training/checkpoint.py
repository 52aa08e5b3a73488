"""Checkpoints: everything that a later step depends on, staged, sealed and renamed into place."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor, nn

from metier.files import read_json, verify, write_directory, write_json

_KEEP = 2


@dataclass
class Progress:
    """How far a training is, and the best validation so far."""

    step: int = 0
    best_score: float | None = None
    best_step: int = 0
    stale: int = 0  # validations since the best
    seconds: float = 0.0
    stopped_early: bool = False
    best: dict[str, Tensor] = field(default_factory=dict)

    def facts(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "best"}


@dataclass(frozen=True)
class Store:
    """The checkpoints of one run, newest verified one first."""

    directory: Path

    def save(
        self, progress: Progress, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> None:
        """Write the state behind `progress.step` and drop all but the newest two."""
        tensors = {f"parameter.{name}": each.detach() for name, each in parameters.items()}
        for name, each in parameters.items():
            for moment, value in optimizer.state[each].items():
                tensors[f"{moment}.{name}"] = value
        tensors = {name: each.contiguous().clone() for name, each in tensors.items()}

        def fill(staged: Path) -> None:
            (staged / "state.safetensors").write_bytes(serialize(tensors))
            (staged / "best.safetensors").write_bytes(serialize(progress.best))
            write_json(staged / "progress.json", progress.facts())

        write_directory(self.directory / f"step-{progress.step:08d}", fill)
        for old in self._all()[_KEEP:]:
            shutil.rmtree(old)

    def restore(self, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> Progress:
        """Load the newest checkpoint that verifies into parameters and optimizer; a fresh start without one."""
        newest = self._newest()
        if newest is None:
            return Progress()
        tensors = load_file(newest / "state.safetensors")
        for name, each in parameters.items():
            each.data.copy_(tensors[f"parameter.{name}"])
            suffix = f".{name}"
            moments = {key.removesuffix(suffix): value for key, value in tensors.items() if key.endswith(suffix)}
            moments.pop("parameter")
            optimizer.state[each] = {key: value.clone() for key, value in moments.items()}
        return Progress(**read_json(newest / "progress.json"), best=load_file(newest / "best.safetensors"))

    def newest_step(self) -> int:
        """The step behind which training would continue."""
        newest = self._newest()
        return int(newest.name.removeprefix("step-")) if newest else 0

    def clear(self) -> None:
        """A finished run needs none."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _newest(self) -> Path | None:
        return next(filter(verify, self._all()), None)

    def _all(self) -> list[Path]:
        return sorted(self.directory.glob("step-*"), reverse=True)
