"""What goes through the network in one forward side by side, each part with an attention of its own.

Shapes: T nodes, H query heads, E head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from metier.kernels.reference import Scoring
from metier.model.forward import Attention


@dataclass(frozen=True)
class Part:
    """Tokens [T] at their positions, each through its own adapter; logits are asked behind the nodes `ends`."""

    tokens: Sequence[int]
    positions: Sequence[int]
    adapters: Sequence[str]
    ends: Sequence[int]
    attention: Attention


class Beside:
    """Parts as one, which see nothing of each other."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._sizes = [len(part.tokens) for part in parts]
        begins = accumulate(self._sizes, initial=0)
        self.tokens = [token for part in parts for token in part.tokens]
        self.positions = [position for part in parts for position in part.positions]
        self.adapters = [adapter for part in parts for adapter in part.adapters]
        self.ends = [begin + end for part, begin in zip(parts, begins, strict=False) for end in part.ends]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
        if len(self._parts) == 1:
            return self._parts[0].attention.attend(layer, q, k, v, scoring)
        each = zip(self._parts, *(of.split(self._sizes, dim=2) for of in (q, k, v)), strict=True)
        return torch.cat([part.attention.attend(layer, *own, scoring) for part, *own in each], dim=2)


class _Idle:
    """Nobody is seen."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scoring: Scoring) -> Tensor:
        return v.new_zeros((*q.shape[:3], v.shape[3]))


def idle(count: int, adapter: str) -> Part:
    """So many nodes that nobody asks about."""
    return Part([0] * count, [0] * count, [adapter] * count, [], _Idle())
