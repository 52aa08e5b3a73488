"""Adapters that begin as a part of the base's own weights (PiSSA, OLoRA), with the base left as it is.

PEFT takes the beginning B₀A₀ out of the weight W and trains BA on the rest. Here W stays, and a second, frozen
adapter takes the beginning out of the sum: W + s·BA − s·B₀A₀. Without adapters that is the base bit for bit, and what
is saved is plain LoRA of twice the rank, as PEFT itself converts it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor

NAME = "beginning"


def take(adapted: Any, how: str) -> None:
    """Begin the fresh adapter of `adapted` as PEFT's `init_lora_weights` names it; on the meta device only in shape."""
    config = adapted.peft_config["default"]
    assert isinstance(config, LoraConfig)
    adapted.add_adapter(NAME, dataclasses.replace(config, lora_dropout=0.0, modules_to_save=None))
    for layer in _layers(adapted):
        if layer.get_base_layer().weight.device.type != "meta":
            _begin(layer, how)
    adapted.base_model.set_adapter(["default", NAME])
    for name, parameter in adapted.named_parameters():
        if f".{NAME}." in name:
            parameter.requires_grad_(False)


@torch.no_grad()
def _begin(layer: Any, how: str) -> None:
    """PEFT's own decomposition of one layer, whose weight is put back; the frozen adapter is its negative."""
    base = layer.get_base_layer()
    kept = base.weight.data.clone() if how == "olora" else base.weight.data  # which OLoRA changes in place
    if how == "olora":
        layer.olora_init("default")
    else:
        layer.pissa_init("default", how)
    base.weight.data = kept
    for factors, sign in ((layer.lora_A, 1), (layer.lora_B, -1)):
        factors["default"].weight.data = factors["default"].weight.data.contiguous()
        factors[NAME].weight.data = sign * factors["default"].weight.data


def _layers(adapted: Any) -> Iterator[Any]:
    return (module for module in adapted.modules() if isinstance(module, LoraLayer))


def without(tensors: Mapping[str, Tensor], beginning: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """BA − B₀A₀ as one adapter: the factors beside each other, [2r, in] and [out, 2r]."""
    return {
        name: torch.cat([each, beginning[name]], dim=0 if ".lora_A." in name else 1) if ".lora_" in name else each
        for name, each in tensors.items()
    }


def doubled(config: LoraConfig) -> dict[str, float]:
    """The rank and alpha of such an adapter: twice the rank at the same scale."""
    return {"r": 2 * config.r, "lora_alpha": (math.sqrt(2) if config.use_rslora else 2) * config.lora_alpha}
