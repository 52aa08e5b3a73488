from __future__ import annotations

import pytest
import torch
from torch import nn

from metier.model import packing
from metier.model.packing import Packed, Product, pack_weights


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


class Attending(nn.Module):
    def __init__(self, bias: bool, sizes: tuple[int, int, int] = (48, 16, 16)) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(40, each, bias=bias) for each in sizes)
        self.o_proj = nn.Linear(40, 40)

    def forward(self, x: torch.Tensor, other: torch.Tensor) -> list[torch.Tensor]:
        return [self.q_proj(x), self.k_proj(other), self.v_proj(other), self.o_proj(x)]


@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_layers_that_read_the_same_are_one_product_and_answer_the_same_to_the_bit(bias: bool) -> None:
    torch.manual_seed(0)
    made = Attending(bias).bfloat16().eval()
    x, other = torch.randn(2, 5, 40).bfloat16(), torch.randn(2, 5, 40).bfloat16()
    before = [made(x, each) for each in (x, other, x)]
    pack_weights(made)
    assert made.q_proj.product is made.k_proj.product is made.v_proj.product is not made.o_proj.product
    products: list[None] = []
    made.q_proj.product.register_forward_hook(lambda *_: products.append(None))
    after = [made(x, each) for each in (x, other, x)]
    assert all(
        torch.equal(*pair) for one, two in zip(before, after, strict=True) for pair in zip(one, two, strict=True)
    )
    assert len(products) == 1 + 2 + 1
    assert made.q_proj.product._said is None  # nothing of an input is kept


@torch.no_grad()
def test_outputs_are_handed_out_once_in_any_order() -> None:
    """Whoever doubles them in place, and asks again, is not handed what was doubled."""
    made, x = Attending(bias=False).bfloat16().eval(), torch.randn(2, 40).bfloat16()
    expected = made(x, x)[:3]
    pack_weights(made)
    made.q_proj(x).mul_(2)
    assert torch.equal(made.q_proj(x), expected[0])
    assert torch.equal(made.v_proj(x), expected[2])
    assert torch.equal(made.k_proj(x), expected[1])
    assert made.q_proj.product._said is None


@torch.no_grad()
def test_layers_that_differ_in_format_or_are_not_all_there_are_products_of_their_own() -> None:
    made = Attending(bias=False).bfloat16().eval()
    made.v_proj = made.v_proj.float()
    pack_weights(made)
    assert len({id(each.product) for each in (made.q_proj, made.k_proj, made.v_proj)}) == 3
    half = nn.ModuleDict({"gate_proj": nn.Linear(4, 4)}).bfloat16()
    pack_weights(half)
    assert type(half["gate_proj"]) is Packed


@pytest.mark.parametrize("shape", [(0, 8), (2, 0, 8), (1, 8), (1, 3, 8), (1, 4, 8), (2, 3, 8)])
def test_a_product_has_the_shape_of_its_input(shape: tuple[int, ...]) -> None:
    layer, x = nn.Linear(8, 6), torch.randn(shape)
    with torch.inference_mode():
        assert torch.allclose(Product([layer])(x), layer(x), atol=1e-6)
        assert Product([layer])(x).shape == layer(x).shape
