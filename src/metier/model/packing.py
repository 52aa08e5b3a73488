"""Linear layers laid out for a CPU's own products. Their network answers, and is trained no more.

Shapes: N tokens, I inputs, O outputs.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_MACHINES = {"x86_64", "AMD64"}
_OPS: Any = torch.ops.mkldnn
_FEW, _PADDED = 4, 5  # tokens: for fewer the weights are read more slowly than for five (docs/log.md, 2026-11-22)
# Layers of one parent that most networks ask one behind the other about the same input.
_SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class Product(nn.Module):
    """What linear layers compute of one input, side by side, from weights that lie as oneDNN's products read them.

    Torch's own layer has them rearranged at every call, which takes as long as the product of a few tokens, and a
    small product takes longer to begin than to compute.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        weights = [layer.weight.detach() for layer in layers]
        self._laid: Tensor = _OPS._reorder_linear_weight(_beside(weights))
        self._sizes = [*map(len, weights)]
        self._bias: Tensor | None = None
        if layers[0].bias is not None:
            self._bias = _beside([layer.bias.detach() for layer in layers])
        self._said: tuple[Tensor, dict[int, Tensor]] | None = None

    def forward(self, input: Tensor) -> Tensor:
        if (tokens := input.shape[:-1].numel()) >= _FEW:
            return self._times(input)
        x_NI = input.reshape(tokens, input.shape[-1])
        output_NO = self._times(functional.pad(x_NI, (0, 0, 0, _PADDED - tokens)))
        return output_NO[:tokens].view(*input.shape[:-1], output_NO.shape[-1])

    def _times(self, input: Tensor) -> Tensor:
        output: Tensor = _OPS._linear_pointwise(input, self._laid, self._bias, "none", [], "")
        return output

    def of(self, input: Tensor, place: int) -> Tensor:
        """The outputs of one of the layers, once: whoever asks first has all computed, the last one leaves nothing."""
        if self._said is None or self._said[0] is not input or place not in self._said[1]:
            self._said = input, dict(enumerate(self(input).split(self._sizes, dim=-1)))
        output: Tensor = self._said[1].pop(place)
        if not self._said[1]:
            self._said = None
        return output


def _beside(parts: Sequence[Tensor]) -> Tensor:
    """One behind the other; one alone as it is, for a head's copy would be half a gigabyte."""
    return torch.cat([*parts]) if len(parts) > 1 else parts[0].contiguous()


class Packed(nn.Linear):
    """A linear layer as its place in a `product`, from whose output number `begin` on its own are."""

    product: Product

    def __init__(self, layer: nn.Linear, product: Product, place: int, begin: int) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        # Whoever asks for its shape, its format or its device finds them, and whoever computes with it sees that.
        absent_OI = layer.weight.new_full((), torch.nan).expand(layer.weight.shape)
        self.weight = nn.Parameter(absent_OI, requires_grad=False)
        self.bias = layer.bias
        self.begin = begin
        self._place = place
        self.__dict__["product"] = product  # several share it: it is no module of any of them

    def forward(self, input: Tensor) -> Tensor:
        return self.product.of(input, self._place)


def pack_weights(network: nn.Module) -> None:
    """Lay out every linear layer anew where a CPU computes its format; each lets go of its weights.

    The answers stay the same: of 16-bit formats to the bit, of float32 but for the order of its sums.
    """
    for parent in [*network.modules()]:
        for layers in _together(parent):
            product, begin = Product([*layers.values()]), 0
            for place, (name, layer) in enumerate(layers.items()):
                parent.set_submodule(name, Packed(layer, product, place, begin))
                begin += len(layer.weight)


def _together(parent: nn.Module) -> Iterator[Mapping[str, nn.Linear]]:
    """Its linear layers that fit, by name, those of one product together."""
    fitting = {
        name: layer for name, layer in parent.named_children() if type(layer) is nn.Linear and _fits(layer.weight)
    }
    for names in _SIBLINGS:
        own = {name: fitting[name] for name in names if name in fitting}
        alike = {(layer.in_features, layer.weight.dtype, layer.bias is None) for layer in own.values()}
        if len(own) == len(names) and len(alike) == 1:
            yield own
            fitting = {name: layer for name, layer in fitting.items() if name not in own}
    yield from ({name: layer} for name, layer in fitting.items())


def _fits(weight_OI: Tensor) -> bool:
    if (
        weight_OI.device.type != "cpu"
        or platform.machine() not in _MACHINES
        or not torch.backends.mkldnn.is_available()
    ):
        return False
    known = {
        torch.float32: lambda: True,
        torch.bfloat16: _OPS._is_mkldnn_bf16_supported,
        torch.float16: _OPS._is_mkldnn_fp16_supported,
    }
    return weight_OI.dtype in known and bool(known[weight_OI.dtype]())
