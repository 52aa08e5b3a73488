"""Float32 masters: what the optimizer moves where weights are stored in fewer bits."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import nn


class Masters:
    """The parameters that move, each in float32: itself, or a master beside its stored copy.

    A step of AdamW is smaller than half a bit of most 16-bit weights, which would never move by themselves.
    Gradients add up in float32 too, and leave the stored copy as soon as they are there.
    """

    def __init__(self, moving: Mapping[str, nn.Parameter]) -> None:
        self._stored = {name: each for name, each in moving.items() if each.dtype != torch.float32}
        self.parameters = dict(moving)
        for name, stored in self._stored.items():
            self.parameters[name] = nn.Parameter(stored.detach().float())
            stored.register_post_accumulate_grad_hook(partial(_hand_over, self.parameters[name]))

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters into the stored copies."""
        for name, stored in self._stored.items():
            stored.copy_(self.parameters[name])


def _hand_over(master: nn.Parameter, stored: torch.Tensor) -> None:
    assert stored.grad is not None
    grad = stored.grad.float()
    master.grad = grad if master.grad is None else master.grad.add_(grad)
    stored.grad = None
