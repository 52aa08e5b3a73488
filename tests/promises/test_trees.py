"""A tree equals its rows run alone: loss, log-probabilities, gradients; and its length is its distinct tokens."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, MistralConfig, Phi3Config, PreTrainedConfig

from metier.model.forward import ATTENTION, Forward, register
from metier.model.loading import boundary
from metier.training.objectives import accumulate
from metier.trees import Example, pack

VOCABULARY = 32
_SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_LONGROPE: dict[str, Any] = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [2.0, 3.0, 4.0, 5.0],
    "original_max_position_embeddings": 8,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**_SMALL),
    "llama, linear rope": LlamaConfig(
        **_SMALL, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
    ),
    "phi3": Phi3Config(**_SMALL),
    "phi3, longrope": Phi3Config(**_SMALL, original_max_position_embeddings=8, rope_parameters=_LONGROPE),
    "mistral, window": MistralConfig(**_SMALL, sliding_window=5),
    "gemma2, window and softcap": Gemma2Config(**_SMALL, head_dim=8, sliding_window=5, attn_logit_softcapping=2.0),
}


def model(config: PreTrainedConfig, attention: str) -> nn.Module:
    register()
    torch.manual_seed(0)
    network: nn.Module = AutoModelForCausalLM.from_config(
        copy.deepcopy(config), attn_implementation=attention, dtype=torch.float32
    )
    return network.eval()


def forest(seed: int) -> list[Example]:
    """Rows of random depth that fork at many places, at least eight ways at one of them."""
    random = np.random.default_rng(seed)
    rows: list[list[int]] = [random.integers(1, VOCABULARY, random.integers(1, 8)).tolist()]
    for _ in range(int(random.integers(10, 24))):
        stem = rows[int(random.integers(len(rows)))]
        cut = int(random.integers(0, len(stem) + 1))
        rows.append([*stem[:cut], *random.integers(1, VOCABULARY, random.integers(1, 7)).tolist()])
    rows += [[*rows[0], token] for token in range(1, 10)]
    kinds = (0.0, 1.0, 0.5)
    weights = [(0.0, *(kinds[int(each)] for each in random.integers(0, 3, len(row) - 1))) for row in rows]
    return [Example(tuple(row), each) for row, each in zip(rows, weights, strict=True)]


def alone(network: nn.Module, row: Example) -> Tensor:
    """The row's weighted log-likelihood in plain transformers."""
    if len(row.tokens) < 2:
        return torch.zeros(())
    tokens = torch.tensor([row.tokens])
    logprobs = network(input_ids=tokens, use_cache=False).logits[0, :-1].log_softmax(-1)
    picked = logprobs.gather(-1, tokens[0, 1:, None])[:, 0]
    total: Tensor = (picked * torch.tensor(row.weights[1:])).sum()
    return total


def gradients(network: nn.Module) -> dict[str, Tensor]:
    found = {name: each.grad.clone() for name, each in network.named_parameters() if each.grad is not None}
    network.zero_grad()
    return found


def assert_same_gradients(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Within 1e-5 of the larger of the tensor's norm and a thousandth of the whole gradient's."""
    whole = float(torch.stack([each.norm() for each in theirs.values()]).norm())
    assert ours.keys() == theirs.keys()
    for name, theirs_here in theirs.items():
        allowed = 1e-5 * max(float(theirs_here.norm()), 1e-3 * whole)
        assert float((ours[name] - theirs_here).norm()) <= allowed, name


def depth(rows: Sequence[Example]) -> int:
    """The most forks on one path."""
    (tree,) = pack(rows, 1 << 20)
    forks = [node for node in range(len(tree)) if np.sum(tree.query == node) > 1]
    return max(sum(node in tree.path(row) for node in forks) for row in range(len(rows)))


@pytest.mark.parametrize("name", CONFIGS)
@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10_000), tokens_per_batch=st.sampled_from([24, 60, 1 << 20]))
def test_a_tree_equals_its_rows_alone(name: str, seed: int, tokens_per_batch: int) -> None:
    rows = forest(seed)
    plain, forked = model(CONFIGS[name], "eager"), model(CONFIGS[name], ATTENTION)
    trees = pack(rows, tokens_per_batch, boundary=boundary(CONFIGS[name]))

    ours = accumulate(Forward(forked, forks=True), trees)
    weight = sum(sum(row.weights) for row in rows)
    theirs = -torch.stack([alone(plain, row) for row in rows]).sum() / weight
    theirs.backward()

    assert ours == pytest.approx(float(theirs.detach()), abs=1e-5)
    assert_same_gradients(gradients(forked), gradients(plain))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("reference", [True, False])
def test_each_rows_log_likelihood_is_its_own(name: str, reference: bool) -> None:
    rows = forest(3)
    plain, forked = model(CONFIGS[name], "eager"), model(CONFIGS[name], ATTENTION)
    forward = Forward(forked, forks=True, reference=reference)
    with torch.no_grad():
        for tree in pack(rows, 80, boundary=boundary(CONFIGS[name])):
            sums = tree.row_sums(forward.logprobs(tree).numpy())
            for index, ours in zip(tree.rows.tolist(), sums, strict=True):
                assert ours == pytest.approx(float(alone(plain, rows[index])), abs=2e-5)


def test_the_forests_are_hard_enough() -> None:
    assert all(depth(forest(seed)) >= 4 for seed in range(3))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_the_length_is_the_number_of_distinct_tokens(seed: int) -> None:
    rows = forest(seed)
    (tree,) = pack(rows, 1 << 20)
    assert len(tree) == len({row.tokens[: end + 1] for row in rows for end in range(len(row.tokens))})
    for place, index in enumerate(tree.rows.tolist()):
        assert tuple(tree.tokens[tree.path(place)].tolist()) == rows[index].tokens


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_without_forks_give_the_same(name: str) -> None:
    """The fallback for models that cannot fork: single paths, one forward each."""
    rows = forest(5)
    plain = model(CONFIGS[name], "eager")
    with torch.no_grad():
        for tree in pack(rows, 1 << 20, fork=False):
            assert not any(block.forks for block in tree.blocks)
            sums = tree.row_sums(Forward(plain, forks=False).logprobs(tree).numpy())
            if name == "phi3, longrope":  # a prefix read inside a longer row has the longer row's factors
                continue
            for index, ours in zip(tree.rows.tolist(), sums, strict=True):
                assert ours == pytest.approx(float(alone(plain, rows[index])), abs=2e-5)


def test_accumulation_does_not_change_the_gradient() -> None:
    """1 × 8 equals 8 × 1: the loss is normalised by the global sum of target weights."""
    rows = forest(7)
    one, many = model(CONFIGS["llama"], ATTENTION), model(CONFIGS["llama"], ATTENTION)
    whole = accumulate(Forward(one, forks=True), pack(rows, 1 << 20))
    trees = [tree for row in rows for tree in pack([row], 1 << 20)]
    parts = accumulate(Forward(many, forks=True), trees)
    assert whole == pytest.approx(parts, abs=1e-6)
    assert_same_gradients(gradients(many), gradients(one))
