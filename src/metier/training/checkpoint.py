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
    scaler: dict[str, float] = field(default_factory=dict)  # of the loss, where there is one
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
        state: dict[str, dict[str, Tensor]] = {"parameter": {}}
        for name, each in parameters.items():
            state["parameter"][name] = each.detach().contiguous()
            for moment, value in optimizer.state[each].items():
                state.setdefault(moment, {})[name] = value.contiguous()

        def fill(staged: Path) -> None:
            # A file each: what is written is held twice over, which counts where all weights move.
            for kind, tensors in {**state, "best": progress.best}.items():
                (staged / f"{kind}.safetensors").write_bytes(serialize(tensors))
            write_json(staged / "progress.json", progress.facts())

        write_directory(self.directory / f"step-{progress.step:08d}", fill)
        for old in self._all()[_KEEP:]:
            shutil.rmtree(old)

    def restore(self, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> Progress:
        """Load the newest checkpoint that verifies into parameters and optimizer; a fresh start without one."""
        newest = self._newest()
        if newest is None:
            return Progress()
        state = {path.stem: load_file(path) for path in newest.glob("*.safetensors")}
        best, stored = state.pop("best"), state.pop("parameter")
        for name, each in parameters.items():
            each.data.copy_(stored[name])
            moments = {moment: tensors[name].clone() for moment, tensors in state.items() if name in tensors}
            # None where no gradient ever came. They live where their parameter does; the count stays on the CPU.
            optimizer.state[each] = {
                key: value.to(each.device) if value.dim() else value for key, value in moments.items()
            }
        return Progress(**read_json(newest / "progress.json"), best=best)

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
