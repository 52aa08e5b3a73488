"""An accelerator's path, proven without one: on the meta device a tensor left on the CPU is an error, and so is
reading a value, for which an accelerator would have to wait."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from metier.inference.cache import Next, decoder
from metier.inference.reading import Prompt
from metier.model.forward import ATTENTION, Forward, register
from metier.training.objectives import likelihood, row_logprobs
from metier.trees import pack
from tests.promises.test_families import FORKING, Family
from tests.promises.test_trees import forest

_KINDS = {"llama", "mistral", "gpt2", "gemma2", "gpt_oss", "mixtral"}  # of attention, and experts


@pytest.mark.long
@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("family", [each for each in FORKING if each.model_type in _KINDS], ids=lambda each: each.name)
def test_no_tensor_is_left_behind(family: Family, reference: bool) -> None:
    register()
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(family.config, attn_implementation=ATTENTION, dtype=torch.bfloat16)
    forward = Forward(network.eval(), forks=True, reference=reference, multiple=8)
    trees = pack(forest(3), 60)
    for tree in trees:
        weight_K = torch.as_tensor(tree.weight, dtype=torch.float32).to(forward.device)
        likelihood(forward.logprobs(tree), weight_K).backward()
    assert all(each.grad is not None and each.grad.device.type == "meta" for each in network.parameters())
    row_logprobs(forward, trees).sum().backward()
    with torch.no_grad():
        slots = decoder(forward)
        read = [Prompt((1, 2, 3), ("", ""), 9), Prompt((1, 2, 4, 5), ("", ""), 300)]
        assert slots.step(read, [])[1].device.type == "meta"
        assert slots.step(read, [Next(0, (3,)), Next(1, (4,))])[1].shape == (4, family.config.vocab_size)
        slots.release(0)
        assert slots.step([], [Next(0, (3, 5, 6))])[1].shape == (3, family.config.vocab_size)
