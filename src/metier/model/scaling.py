"""A share of an adapter's change: W + λ·Δ, for adapters whose change is added to the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from peft.tuners.ln_tuning.layer import LNTuningLayer
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn


@torch.no_grad()
def scale(adapted: nn.Module, factor: float) -> None:
    """Multiply the adapter's change by `factor` in 0 … 1: its own tensors move, the base's stay.

    At 0 that is the base bit for bit, and at 1 nothing changes. Low rank is scaled in B, of every adapter that is
    on; a module that is trained whole goes the way back to what it was (WiSE-FT, Wortsman et al. 2022, equation 1).
    """
    for tensor, origin in _changes(adapted):
        tensor.mul_(factor) if origin is None else tensor.copy_(torch.lerp(origin.to(tensor), tensor, factor))


@contextmanager
def scaled(adapted: nn.Module, factor: float) -> Iterator[None]:
    """`scale`, for as long as the block lasts."""
    kept = [(tensor, tensor.detach().clone()) for tensor, _ in _changes(adapted)] if factor != 1 else []
    try:
        scale(adapted, factor)
        yield
    finally:
        for tensor, before in kept:
            tensor.data.copy_(before)


def _changes(adapted: nn.Module) -> Iterator[tuple[Tensor, Tensor | None]]:
    """What scales an adapter, each tensor once: with what it began as, or None where that is zero."""
    seen: set[int] = set()  # a tied head and embedding share theirs
    for module in adapted.modules():
        for tensor, origin in _of(module):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor, origin


def _of(module: nn.Module) -> Iterator[tuple[Tensor, Tensor | None]]:
    match module:
        case LoraLayer():
            assert not any(module.use_dora.values()), "refused when the recipe was read"
            factors = (each.parameters() for each in module.lora_B.values())
            yield from ((each, None) for each in chain(*factors, module.lora_embedding_B.values()))
        case LNTuningLayer():
            yield from _pairs(module.ln_tuning_layers, module.get_base_layer())
        case ModulesToSaveWrapper():
            yield from _pairs(module.modules_to_save, module.original_module)


def _pairs(copies: nn.ModuleDict, origin: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    for copy in copies.values():
        yield from zip(copy.parameters(), origin.parameters(), strict=True)
