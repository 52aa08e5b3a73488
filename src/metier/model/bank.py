"""Low-rank adapters of many runs beside one base, in one forward: every token passes through its own.

Shapes: N tokens, R ranks of an adapter, or of all of a layer, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora.layer import LoraLayer
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from metier.errors import ModelError
from metier.files import read_json
from metier.model.adapters import HEAD, WEIGHTS, Adapted, Identity, changed, load
from metier.model.packing import Packed

Pattern = tuple[tuple[int, int], ...]

BASE = ""
"""Who passes through no adapter."""


# What an adapter's configuration may say while all that it does is to add up: anything else, and whatever a newer PEFT
# knows, takes a base of its own. Of how it began those alone that leave the base's weights as they are.
_ADDS_UP = frozenset(
    {
        *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version", "revision"),
        *("task_type", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
        *("r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "use_rslora", "fan_in_fan_out"),
        *("init_lora_weights", "eva_config", "megatron_core", "qalora_group_size"),  # the last two alone mean nothing
    }
)
_BEGINNINGS = (True, False, "gaussian", "eva", "orthogonal")


def bankable(directory: Path) -> bool:
    """Whether a saved adapter is nothing but low-rank matrices beside linear layers, which add up in one forward.

    Raises `ModelError` where its files cannot be read any more.
    """
    if not (directory / "adapter_config.json").exists() or (directory / HEAD).exists():
        return False
    try:
        config: dict[str, Any] = read_json(directory / "adapter_config.json")
        if config["peft_type"] != "LORA" or not _low_rank(directory / WEIGHTS):
            return False
    except (OSError, ValueError, LookupError, SafetensorError):
        raise changed(directory) from None
    more = [key for key, value in config.items() if key not in _ADDS_UP and value and value != "none"]
    return config.get("init_lora_weights", True) in _BEGINNINGS and not more


def _low_rank(weights: Path) -> bool:
    """Whether a file holds pairs of matrices alone: beside an embedding they have other names, and a convolution's
    have more dimensions."""
    with safe_open(weights, framework="pt") as opened:
        return all(
            name.endswith((".lora_A.weight", ".lora_B.weight")) and len(opened.get_slice(name).get_shape()) == 2
            for name in opened.keys()  # noqa: SIM118 (it is no mapping)
        )


@dataclass(frozen=True)
class _Piece:
    """What an adapter, or several side by side, add to some of a layer's outputs, from one to another."""

    outputs: tuple[int, int]
    down_IR: Tensor
    up_RO: Tensor


@dataclass(frozen=True)
class _LowRank:
    """What an adapter, or several side by side, add in one layer: x → x down up, their scale being in `down`.

    All lie in memory as PEFT has them, turned over: the same products add up in the same order. What adds to different
    outputs, where linear layers are computed together, goes down in one product, and up in its own.
    """

    down_IR: Tensor
    ups_RO: Sequence[Tensor]
    outputs: Sequence[tuple[int, int]]

    @classmethod
    def of(cls, pieces: Sequence[_Piece]) -> _LowRank:
        """All of these, those with the same outputs one behind the other."""
        together = [[*those] for _, those in groupby(pieces, key=attrgetter("outputs"))]
        return cls(
            torch.cat([piece.down_IR.T for piece in pieces]).T,
            [torch.cat([piece.up_RO.T for piece in those], dim=1).T for those in together],
            [those[0].outputs for those in together],
        )

    @property
    def pieces(self) -> Iterator[_Piece]:
        downs_IR = self.down_IR.split([len(up_RO) for up_RO in self.ups_RO], dim=1)
        return map(_Piece, self.outputs, downs_IR, self.ups_RO)

    def added(self, output: Tensor, low_NR: Tensor) -> Tensor:
        """A layer's output with what inputs that went down come up to."""
        total_NO = output.to(low_NR.dtype).view(-1, output.shape[-1])
        lows_NR = low_NR.split([len(up_RO) for up_RO in self.ups_RO], dim=1)
        for (begin, end), each_NR, up_RO in zip(self.outputs, lows_NR, self.ups_RO, strict=True):
            total_NO[:, begin:end].addmm_(each_NR, up_RO)
        return total_NO.to(output.dtype).view(output.shape)


@dataclass
class _Layer:
    """One layer's low ranks laid side by side; `of` has those of each adapter alone.

    The `pattern` is each one's place and rank: layers that have the same are passed alike.
    """

    beside: _LowRank
    of: Mapping[str, _LowRank]
    pattern: Pattern


@dataclass
class Bank:
    """Adapters on one network, whose layers stay the base's own; `passing` says who speaks in a forward."""

    network: nn.Module
    _adapters: dict[str, dict[nn.Module, _LowRank]] = field(default_factory=dict)
    _layers: dict[nn.Module, _Layer] = field(default_factory=dict)
    _hooked: set[nn.Module] = field(default_factory=set)
    _places: dict[str, int] = field(default_factory=lambda: {BASE: -1})
    _passing: str | Tensor = BASE  # one name, or everybody's place
    _asked: Tensor | None = None  # of which places the head alone speaks
    _mine: dict[tuple[Pattern, bool], Tensor] = field(default_factory=dict)
    _handed: tuple[Tensor, Tensor] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._adapters)

    def add(self, name: str, directory: Path, identity: Identity) -> None:
        """Lay a saved adapter, one that is `bankable`, beside the others.

        Raises `ModelError` as `load` does, where it stands beside a layer that is not linear, and where a weight is not
        finite.
        """
        adapted = load(self.network, directory, identity)
        try:
            self._adapters[name] = _low_ranks(adapted, name)
        finally:
            adapted.unload()
        self._arrange()

    def remove(self, name: str) -> None:
        """Forget an adapter; nobody may be passing through it."""
        del self._adapters[name]
        self._arrange()

    def assert_known(self, *names: str) -> None:
        """Raises `ModelError` for one that is not here, or not any more."""
        if strange := {*names} - self._places.keys():
            raise ModelError(f"{min(strange)}: was unloaded", "choose another model")

    @contextmanager
    def passing(self, names: Sequence[str], asked: Tensor | None = None) -> Iterator[None]:
        """For one forward: whose each token of its only sequence is. One name alone stands for all.

        With `asked` the output head runs at these tokens alone. Raises `ModelError` for an adapter that is not here.
        """
        self.assert_known(*names)
        same = len({*names}) == 1
        self._passing = names[0] if same else torch.tensor([self._places[name] for name in names])
        self._asked = asked
        try:
            yield
        finally:
            self._passing, self._asked, self._handed = BASE, None, None
            self._mine.clear()

    def _arrange(self) -> None:
        self._places = {BASE: -1, **{name: place for place, name in enumerate(self._adapters)}}
        layers = dict.fromkeys(layer for each in self._adapters.values() for layer in each)
        self._layers = {layer: self._side_by_side(layer) for layer in layers}
        for layer in layers.keys() - self._hooked:
            layer.register_forward_hook(self._hook)
            self._hooked.add(layer)

    def _side_by_side(self, layer: nn.Module) -> _Layer:
        own = {name: each[layer] for name, each in self._adapters.items() if layer in each}
        pieces = [(self._places[name], piece) for name, low in own.items() for piece in low.pieces]
        pieces.sort(key=lambda pair: pair[1].outputs)
        pattern = tuple((place, len(piece.up_RO)) for place, piece in pieces)
        return _Layer(_LowRank.of([piece for _, piece in pieces]), own, pattern)

    @cached_property
    def _head(self) -> nn.Module:
        head: nn.Module = self.network.get_output_embeddings()  # type: ignore[operator]
        return _computing(head)[0]

    def _hook(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """The layer's output with what the adapters add, in the numbers in which they were trained."""
        layer, passing = self._layers.get(module), self._passing
        if layer is None:
            return output
        if not isinstance(passing, str):
            every = layer.beside
            low_NR = self._rows(inputs[0], every) @ every.down_IR
            low_NR *= self._shares(layer, passing, head=self._asked is not None and module is self._head)
            return every.added(output, low_NR)
        own = layer.of.get(passing)  # exactly what it would be alone
        return own.added(output, self._rows(inputs[0], own) @ own.down_IR) if own else output

    def _rows(self, x: Tensor, low: _LowRank) -> Tensor:
        """An input as rows [N, I] in an adapter's numbers: several layers one behind the other are handed the same."""
        if self._handed is None or self._handed[0] is not x:
            self._handed = x, x.reshape(-1, x.shape[-1]).to(low.down_IR.dtype)
        return self._handed[1]

    def _shares(self, layer: _Layer, passing_N: Tensor, *, head: bool) -> Tensor:
        """1 for each rank that counts for who passes, else 0, [N, R]: made once a forward for all layers alike."""
        key = layer.pattern, head
        if key not in self._mine:
            asked_N = passing_N[self._asked] if head else passing_N
            place_R = torch.tensor([place for place, rank in layer.pattern for _ in range(rank)])
            self._mine[key] = (asked_N[:, None] == place_R).to(layer.beside.down_IR)
        return self._mine[key]


def _computing(layer: nn.Module) -> tuple[nn.Module, int]:
    """What computes a linear layer, and from where on among its outputs."""
    return (layer.product, layer.begin) if isinstance(layer, Packed) else (layer, 0)


def _low_ranks(adapted: Adapted, name: str) -> dict[nn.Module, _LowRank]:
    """By what computes a layer, or several together, what its adapter multiplies."""
    pieces: dict[nn.Module, list[_Piece]] = {}
    for path, module in adapted.named_modules():
        if isinstance(module, LoraLayer):
            if not isinstance(kind := module.get_base_layer(), nn.Linear | Conv1D):
                problem = f"{name}: stands beside {path}, a {type(kind).__name__}, in which low ranks do not add up"
                raise ModelError(problem, "merge it into its base, and serve the run of that")
            down_RI, up_OR = (_weight(each["default"]) for each in (module.lora_A, module.lora_B))
            scaling: dict[str, float] = vars(module)["scaling"]
            scaled_RI = down_RI * scaling["default"]
            computing, begin = _computing(kind)
            piece = _Piece((begin, begin + len(up_OR)), scaled_RI.T, up_OR.T)
            pieces.setdefault(computing, []).append(piece)
    _assert_finite(chain.from_iterable(pieces.values()), name)
    return {computing: _LowRank.of(each) for computing, each in pieces.items()}


def _weight(linear: nn.Module) -> Tensor:
    return linear.get_parameter("weight").detach()


def _assert_finite(pieces: Iterable[_Piece], name: str) -> None:
    """Side by side with others, what is no number would be one of theirs no more: 0 times it is not 0."""
    if not all(bool(torch.isfinite(each).all()) for piece in pieces for each in (piece.down_IR, piece.up_RO)):
        raise ModelError(f"{name}: has weights that are no finite numbers", "tune it again, at a lower learning rate")
