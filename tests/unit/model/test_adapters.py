from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from metier.errors import ModelError, RecipeError
from metier.files import write_directory
from metier.model.adapters import Identity, attach, disabled, linear_size, load, save, state, trainable
from metier.model.forward import Forward
from metier.model.loading import Base, NumberFormat, read_config
from metier.model.loading import load as load_base
from metier.model.trials import count
from metier.training.objectives import accumulate
from metier.trees import Example, pack
from tests.unit import tiny

LORA = tiny.lora()
IDENTITY = Identity("tiny", "b" * 64, "t" * 64, "c" * 64)
(TREE,) = pack([Example((7, 8, 9, 10, 11), (0, 1, 1, 1, 1)), Example((7, 8, 20, 21), (0, 1, 1, 1))], 100)


def base(directory: Path) -> Base:
    return load_base(tiny.save(directory), NumberFormat("float32", "float32"), "cpu")


def moved(directory: Path) -> tuple[Forward, PeftModel]:
    """A base with an adapter that does something."""
    loaded = base(directory)
    adapted, _ = attach(loaded.network, LORA, seed=1)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(0, 0.5, generator=torch.Generator().manual_seed(2))
    return loaded.forward.over(adapted.eval()), adapted


def logprobs(forward: Forward) -> Tensor:
    with torch.no_grad():
        return forward.logprobs(TREE)


def test_a_fresh_adapter_is_the_base_and_a_disabled_one_too(tmp_path: Path) -> None:
    plain = logprobs(base(tmp_path).forward)
    loaded = base(tmp_path)
    fresh, _ = attach(loaded.network, LORA, seed=1)
    assert torch.equal(logprobs(loaded.forward.over(fresh)), plain)
    forward, adapted = moved(tmp_path)
    assert not torch.allclose(logprobs(forward), plain, atol=1e-3)
    with disabled(adapted):
        assert torch.equal(logprobs(forward), plain)


def test_base_and_adapter_equal_the_merged_model(tmp_path: Path) -> None:
    forward, adapted = moved(tmp_path)
    before = logprobs(forward)
    merged = adapted.merge_and_unload()
    assert torch.allclose(logprobs(forward.over(merged)), before, atol=1e-5)


def keep(adapted: PeftModel, directory: Path) -> None:
    write_directory(directory, lambda to: save(adapted, IDENTITY, tiny.TEMPLATE, to))


def test_saving_and_loading_is_identity_byte_for_byte(tmp_path: Path) -> None:
    forward, adapted = moved(tmp_path / "base")
    for name in ("one", "two"):
        keep(adapted, tmp_path / name)
    again = load(base(tmp_path / "base").network, tmp_path / "one", IDENTITY)
    assert torch.equal(logprobs(forward.over(again)), logprobs(forward))
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:The PEFT config's .base_model_name_or_path.:UserWarning")
def test_peft_itself_loads_what_is_saved(tmp_path: Path) -> None:
    forward, adapted = moved(tmp_path / "base")
    keep(adapted, tmp_path / "adapter")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    theirs = PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    logits = theirs(input_ids=torch.tensor([[7, 8, 9, 10, 11]])).logits[0, :-1].log_softmax(-1)
    expected = logits.gather(-1, torch.tensor([[8], [9], [10], [11]])).sum()
    row = TREE.rows.tolist().index(0)
    assert TREE.row_sums(logprobs(forward).numpy())[row] == pytest.approx(float(expected.detach()), abs=1e-4)


def test_an_adapter_changed_after_its_test_is_refused(tmp_path: Path) -> None:
    _, adapted = moved(tmp_path / "base")
    keep(adapted, tmp_path / "adapter")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(ModelError, match="is not what was tested"):
        load(base(tmp_path / "base").network, tmp_path / "adapter", IDENTITY)


@pytest.mark.parametrize("what", ["base", "tokenizer", "template"])
def test_an_adapter_of_another_base_is_refused_with_both_names(tmp_path: Path, what: str) -> None:
    _, adapted = moved(tmp_path / "base")
    keep(adapted, tmp_path / "adapter")
    other = dataclasses.replace(IDENTITY, base="another", **{f"{what}_digest": "x" * 64})
    with pytest.raises(ModelError, match=r"made for tiny .* but this is another"):
        load(base(tmp_path / "base").network, tmp_path / "adapter", other)


def test_the_seed_alone_draws_the_random_half(tmp_path: Path) -> None:
    one, two, three = (state(attach(base(tmp_path).network, LORA, seed=seed)[0]) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], three[name]) for name in one)


def test_recomputing_activations_changes_no_gradient(tmp_path: Path) -> None:
    forward, adapted = moved(tmp_path)
    adapted.train()
    found = []
    for recompute in (False, True):
        if recompute:
            adapted.activation_checkpointing_enable({"use_reentrant": False})
        accumulate(forward, [TREE])
        found.append(torch.cat([each.grad.flatten() for each in adapted.parameters() if each.grad is not None]))
        adapted.zero_grad()
    assert float(found[0].norm()) > 0
    assert torch.allclose(found[0], found[1], atol=1e-7)


def test_every_fused_kind_of_phi_is_trained_and_counted(tmp_path: Path) -> None:
    directory = tiny.save(tmp_path)
    kinds = count(read_config(directory), LORA)
    assert {kind.name: (kind.layers, kind.adapted) for kind in kinds} == {
        "qkv_proj": (2, 2),
        "o_proj": (2, 2),
        "gate_up_proj": (2, 2),
        "down_proj": (2, 2),
    }
    sizes = {"qkv_proj": (32, 64), "o_proj": (32, 32), "gate_up_proj": (32, 96), "down_proj": (48, 32)}
    assert {kind.name: kind.parameters for kind in kinds} == {name: 2 * 4 * sum(pair) for name, pair in sizes.items()}


def test_llamas_names_on_phi_are_an_error_that_says_so(tmp_path: Path) -> None:
    llama = tiny.lora(target_modules=("q_proj", "k_proj", "v_proj", "o_proj", "down_proj"))
    with pytest.raises(RecipeError) as caught:
        count(read_config(tiny.save(tmp_path)), llama)
    text = str(caught.value)
    assert "q_proj, k_proj, v_proj match no layer" in text
    assert "only 2 of its 4 linear kinds" in text
    assert "gate_up_proj" in text


def test_the_real_phi_config_trains_what_the_formula_says(shared: Path) -> None:
    kinds = count(read_config(shared / "models/configs/Phi-3.5-mini-instruct"), tiny.lora(r=16, lora_alpha=32.0))
    assert sum(kind.parameters for kind in kinds) == 32 * 16 * (
        (3072 + 9216) + (3072 + 3072) + (3072 + 16384) + (8192 + 3072)
    )
    assert len(kinds) == 4


@pytest.mark.parametrize("storage", ["float32", "nf4"])
def test_dora_trains_its_magnitudes_too_and_loads_again(tmp_path: Path, storage: str) -> None:
    wide = {"hidden_size": 64, "intermediate_size": 128}
    lora = tiny.lora(use_dora=True)

    def fresh() -> Base:
        return load_base(tiny.save(tmp_path / "base", **wide), NumberFormat(storage, "float32"), "cpu")

    one = fresh()
    adapted, kinds = attach(one.network, lora, seed=0)
    assert count(read_config(tmp_path / "base"), lora) == kinds
    assert sum(kind.parameters for kind in kinds) > sum(
        kind.parameters for kind in count(read_config(tmp_path / "base"), LORA)
    )
    forward = one.forward.over(adapted.train())
    before = state(adapted)
    accumulate(forward, [TREE])
    with torch.no_grad():
        for parameter in trainable(adapted).values():
            assert parameter.grad is not None
            parameter -= 0.1 * parameter.grad
    assert any(
        ".lora_magnitude_vector" in name and not torch.equal(each, before[name])
        for name, each in state(adapted).items()
    )
    keep(adapted, tmp_path / "adapter")
    again = load(fresh().network, tmp_path / "adapter", IDENTITY)
    assert torch.allclose(logprobs(forward.over(again)), logprobs(forward.over(adapted.eval())), atol=1e-5)


@pytest.mark.parametrize("target", [("lm_head",), ("embed_tokens",), ".*lm_head"])
def test_what_lies_outside_the_layers_is_no_target(tmp_path: Path, target: str | tuple[str, ...]) -> None:
    lora = tiny.lora(target_modules=target)
    with pytest.raises(RecipeError, match="target_modules"):
        attach(base(tmp_path).network, lora, seed=0)


def test_the_linear_size_is_what_all_linear_layers_hold(tmp_path: Path) -> None:
    network = base(tmp_path).network
    layers = [each for name, each in network.named_modules() if isinstance(each, torch.nn.Linear) and name != "lm_head"]
    assert linear_size(read_config(tmp_path)) == sum(layer.weight.numel() for layer in layers) > 0
