"""Linear layers laid out for a CPU's own products. Their network answers, and is trained no more.

Shapes: I inputs, O outputs.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import Tensor, nn

_MACHINES = {"x86_64", "AMD64"}
_OPS: Any = torch.ops.mkldnn


class Packed(nn.Linear):
    """What a linear layer computes, from weights that lie as oneDNN's products read them.

    Torch's own layer has them rearranged at every call, which takes as long as the product of a few tokens.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        self._laid: Tensor = _OPS._reorder_linear_weight(layer.weight.detach().contiguous())
        # Whoever asks for its shape, its format or its device finds them, and whoever computes with it sees that.
        absent_OI = layer.weight.new_full((), torch.nan).expand(layer.weight.shape)
        self.weight = nn.Parameter(absent_OI, requires_grad=False)
        self.bias = layer.bias

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = _OPS._linear_pointwise(input, self._laid, self.bias, "none", [], "")
        return output


def pack_weights(network: nn.Module) -> None:
    """Lay out every linear layer anew where a CPU computes its format; each lets go of its weights.

    The answers stay the same: of 16-bit formats to the bit, of float32 but for the order of its sums.
    """
    for name, layer in [*network.named_modules()]:
        if type(layer) is nn.Linear and _fits(layer.weight):
            network.set_submodule(name, Packed(layer))


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
