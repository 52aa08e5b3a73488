"""A recipe's data and this machine → the largest known base that is done within an hour."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from metier.bases import Base
from metier.errors import DoesNotFit
from metier.hardware import Hardware, Layer, Rates
from metier.memory import Shape
from metier.planning import Plan, plan, resolve
from metier.recipe import Recipe
from metier.strategies import LoraStrategy, QloraStrategy

HOUR = 3600.0
# One layer of a 1 to 2 billion base: small enough to be timed in seconds, wide enough to stand for larger ones.
_HIDDEN, _INTERMEDIATE = 2048, 8192
_TOKENS, _SEQUENCES = 512, 64  # read and decoded at once


@dataclass(frozen=True)
class Proposal:
    """A base, the method that it fits with, and the forecast of that plan."""

    base: Base
    method: str
    plan: Plan

    @property
    def seconds(self) -> float:
        return sum(self.plan.seconds.values())


def layer(hardware: Hardware) -> Layer:
    """The one layer that is timed; the others' times are scaled from it by their weights."""
    device = hardware.devices[0]
    compute, _ = hardware.number_format(device)
    return Layer(_HIDDEN, _INTERMEDIATE, _TOKENS, _SEQUENCES, compute, "qlora" in methods(), device)


def methods() -> Sequence[str]:
    """What a base is tried with, the exact one first; 4 bits need bitsandbytes."""
    return ("lora", "qlora") if find_spec("bitsandbytes") else ("lora",)


def eligible(bases: Iterable[Base], *, token: bool, room: int) -> list[Base]:
    """Those that may be proposed: without terms of their own, gated ones with a token, and with room on the disk."""
    return [base for base in bases if not base.terms and (token or not base.gated) and base.bytes <= room]


def propose(recipe: Recipe, data: Shape, bases: Iterable[Base], hardware: Hardware, rates: Rates) -> Proposal | None:
    """The largest base whose plan fits memory and an hour, or None.

    `data` is the shape of a job on any base: its counts of rows and tokens are kept, the base's numbers
    replaced. `rates` were measured on `layer`.
    """
    for base in sorted(bases, key=lambda base: base.parameters, reverse=True):
        for method in methods():
            found = _try(base, recipe.override(**{"strategy.method": method}), data, hardware, rates)
            if found and found.seconds <= HOUR:
                return found
    return None


def _try(base: Base, recipe: Recipe, data: Shape, hardware: Hardware, rates: Rates) -> Proposal | None:
    shape = _shape(base, data)
    recipe = resolve(recipe, shape)
    assert isinstance(recipe.strategy, LoraStrategy | QloraStrategy), "one of `methods`"
    shape = dataclasses.replace(shape, trainable=base.adapter(int(recipe.strategy.peft.r)))
    scaled = _scaled(rates, base, quantized=recipe.strategy.method == "qlora")
    try:
        return Proposal(base, recipe.strategy.method, plan(recipe, shape, hardware, scaled, {}))
    except DoesNotFit:
        return None


def _shape(base: Base, data: Shape) -> Shape:
    return dataclasses.replace(
        data,
        parameters=base.parameters,
        linear_parameters=base.linear_parameters,
        file_bytes=base.bytes,
        layers=base.num_hidden_layers,
        hidden=base.hidden_size,
        intermediate=base.intermediate_size,
        cache_width=base.cache_width,
        vocabulary=base.vocab_size,
        context=base.max_position_embeddings,
    )


def _scaled(rates: Rates, base: Base, *, quantized: bool) -> Rates:
    """A layer's times grow with its weights; what is given per weight stays."""
    timed = 4 * _HIDDEN**2 + 3 * _HIDDEN * _INTERMEDIATE
    factor = base.linear_parameters / base.num_hidden_layers / timed
    return dataclasses.replace(
        rates,
        train=rates.train * factor,
        read=rates.read * factor,
        decode=rates.decode * factor,
        unpack=rates.unpack if quantized else 0.0,
    )
