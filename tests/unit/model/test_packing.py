from __future__ import annotations

import pytest
import torch
from torch import nn

from metier.model import packing
from metier.model.packing import Packed, pack_weights


def network(dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 70), nn.Sequential(nn.Linear(70, 33, bias=False))).to(dtype).eval()


@pytest.fixture(autouse=True)
def known() -> None:
    if not packing._fits(torch.empty(1, dtype=torch.bfloat16)):
        pytest.skip("no bfloat16 on this processor")


@torch.no_grad()
def test_packed_layers_answer_the_same_to_the_bit() -> None:
    made, x = network(), torch.randn(2, 5, 40).bfloat16()
    before = made(x)
    pack_weights(made)
    assert [type(made.get_submodule(name)) for name in ("0", "1.0")] == [Packed, Packed]
    assert torch.equal(made(x), before)
    assert made(x[0, 0]).shape == (33,)


@torch.no_grad()
def test_float32_answers_the_same_but_for_the_order_of_sums() -> None:
    made, x = network(torch.float32), torch.randn(2, 5, 40)
    before = made(x)
    pack_weights(made)
    assert type(made.get_submodule("0")) is Packed
    assert torch.allclose(made(x), before, rtol=0, atol=1e-6)


@torch.no_grad()
def test_weights_are_let_go_and_whoever_computes_with_them_sees_that() -> None:
    made = network()
    pack_weights(made)
    weight = made.get_parameter("0.weight")
    assert (weight.shape, weight.dtype) == ((70, 40), torch.bfloat16)
    assert weight.untyped_storage().nbytes() == weight.itemsize
    assert nn.functional.linear(torch.ones(40).bfloat16(), weight).isnan().all()


def test_what_is_more_than_a_linear_layer_stays() -> None:
    class Own(nn.Linear):
        pass

    made = nn.Sequential(Own(4, 4), nn.Embedding(4, 4)).bfloat16()
    pack_weights(made)
    assert [type(each) for each in made] == [Own, nn.Embedding]
