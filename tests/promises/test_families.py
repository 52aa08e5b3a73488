"""Every family of models: trees where they equal the rows alone, rows where they cannot, in float32 and on NF4.

The table in docs/reference/families.md is `table()`; `tests/shape/test_reference.py` compares them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from metier.errors import ModelError
from metier.model.forward import Forward
from metier.model.loading import Base, NumberFormat, boundary, load
from metier.training.objectives import accumulate
from metier.trees import Example, pack
from tests.promises.test_trees import alone, assert_same_gradients, depth, forest, gradients

WINDOW = 5
_SMALL: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + 0.1 * i for i in range(8)],
    "long_factor": [2.0 + i for i in range(8)],
    "original_max_position_embeddings": 8,
}
_HEADS = {"head_dim": 16}
_HALVES = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "head_dim": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
}
_LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "shared_expert_intermediate_size": 32,
    "layer_types": ["linear_attention", "full_attention"],
}


@dataclass(frozen=True)
class Family:
    """`why_rows` and `why_not_nf4` stand in the table; the words `told` are what metier says itself."""

    name: str
    model_type: str
    changes: dict[str, Any] = field(default_factory=dict)
    why_rows: str = ""
    told: str = ""
    why_not_nf4: str = ""

    @property
    def config(self) -> PreTrainedConfig:
        config: PreTrainedConfig = AutoConfig.for_model(self.model_type, **(_SMALL | self.changes))
        return config


_DIFFERS = "differs from its rows alone"
_OWN_LINEAR = "linear layers of its own kind"
_PAST = "reads a weight past its layer"
FAMILIES = [
    Family("Llama 2, 3, SmolLM2", "llama"),
    Family("Mistral, sliding window", "mistral", {"sliding_window": WINDOW}),
    Family("Ministral", "ministral3", _HEADS),
    Family("Mixtral", "mixtral", {"num_local_experts": 4}),
    Family("Phi-2", "phi"),
    Family("Phi-3, Phi-3.5, Phi-4", "phi3"),
    Family("Phi-3, LongRoPE", "phi3", {"original_max_position_embeddings": 8, "rope_parameters": _LONGROPE}),
    Family("Phi-3.5-MoE", "phimoe", {"num_local_experts": 4}),
    Family("Qwen 2, 2.5", "qwen2"),
    Family("Qwen 2 MoE", "qwen2_moe", {**_EXPERTS, "shared_expert_intermediate_size": 32}),
    Family("Qwen 3", "qwen3", _HEADS),
    Family("Qwen 3 MoE", "qwen3_moe", {**_HEADS, **_EXPERTS}),
    Family("Gemma", "gemma", _HEADS),
    Family("Gemma 2, window and softcap", "gemma2", {**_HEADS, **_HALVES, "attn_logit_softcapping": 2.0}),
    Family("Gemma 3, window", "gemma3_text", {**_HEADS, **_HALVES}),
    Family("gpt-oss, window and sinks", "gpt_oss", {**_HEADS, **_HALVES, "num_local_experts": 4}),
    Family("GPT-2", "gpt2"),
    Family("GPT-NeoX, Pythia", "gpt_neox"),
    Family("OPT", "opt", {"ffn_dim": 96, "word_embed_proj_dim": 64}),
    Family("OLMo", "olmo"),
    Family("OLMo 2", "olmo2"),
    Family("OLMo 3, window", "olmo3", _HALVES),
    Family("GLM-4-9B", "glm", _HEADS),
    Family("GLM-4-0414", "glm4", _HEADS),
    Family("GLM-4.5", "glm4_moe", {**_HEADS, **_LATENT, "num_key_value_heads": 2}),
    Family("DeepSeek-V2", "deepseek_v2", _LATENT),
    Family("DeepSeek-V3", "deepseek_v3", _LATENT),
    Family("Granite", "granite"),
    Family("Cohere Command R", "cohere"),
    Family("SmolLM3", "smollm3"),
    Family("StarCoder2", "starcoder2"),
    Family("StableLM", "stablelm", {}, "keywords do not reach its attention", "is handed no tree"),
    Family("Nemotron", "nemotron", {}, "keywords do not reach its attention", "is handed no tree"),
    Family("GPT-J", "gptj", {"rotary_dim": 8}, "its attention cannot be exchanged", "cannot be exchanged"),
    Family("Falcon", "falcon", {}, "its attention cannot be exchanged", "cannot be exchanged", _OWN_LINEAR),
    Family("Bloom", "bloom", {}, "ALiBi counts keys in the flat sequence", _DIFFERS),
    Family("Mamba", "mamba", {"state_size": 8}, "a recurrent state has one past", _DIFFERS, _PAST),
    Family("Falcon-Mamba", "falcon_mamba", {"state_size": 8}, "a recurrent state has one past", _DIFFERS),
    Family(
        "Qwen3-Next",
        "qwen3_next",
        {**_HEADS, **_EXPERTS, **_LINEAR},
        "linear attention: a recurrent state has one past",
        _DIFFERS,
    ),
    Family(
        "Llama 4",
        "llama4_text",
        {**_HEADS, "num_local_experts": 4, "attention_chunk_size": WINDOW, "intermediate_size_mlp": 96},
        "attention in chunks of the flat sequence",
        _DIFFERS,
    ),
    Family(
        "LFM2",
        "lfm2",
        {"layer_types": ["conv", "full_attention"]},
        "a convolution reads over neighbours of the flat sequence",
        _DIFFERS,
    ),
]
FORKING = [family for family in FAMILIES if not family.why_rows]
NF4 = [family for family in FAMILIES if not family.why_not_nf4]
_NOT_INT8 = {"deepseek_v2", "deepseek_v3"}  # a weight is read past its layer
_EVERY_DAY = {"mistral", "phi3", "qwen2", "gpt2", "gemma3_text", "mixtral", "bloom"}  # on NF4
_GRADIENTS_TOO = {"mistral", "gpt2", "gpt_oss", "deepseek_v3"}


def rarely(families: Sequence[Family], often: set[str] | None = None) -> list[Any]:
    """Parameters of a test; those of types that are not in `often` are for `make test-all`."""
    return [
        pytest.param(each, id=each.name, marks=() if often is None or each.model_type in often else pytest.mark.slow)
        for each in families
    ]


def table() -> list[str]:
    """The lines of the reference's table."""
    lines = [
        "| family | `model_type` | trees, float32 | trees, NF4 | rows, float32 | rows, NF4 |",
        "|---|---|---|---|---|---|",
    ]
    for each in FAMILIES:
        nf4 = f"no: {each.why_not_nf4}" if each.why_not_nf4 else "same"
        trees = [f"no: {each.why_rows}"] * 2 if each.why_rows else ["same", nf4]
        lines.append(f"| {' | '.join([each.name, f'`{each.model_type}`', *trees, 'same', nf4])} |")
    return lines


def saved(family: Family, directory: Path) -> Path:
    """A random base on disk, its weights large enough that no layer's fault drowns in the residual stream."""
    torch.manual_seed(0)
    network: nn.Module = AutoModelForCausalLM.from_config(copy.deepcopy(family.config), dtype=torch.float32)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
    network.save_pretrained(directory)  # type: ignore[operator]
    return directory


def pair(family: Family, directory: Path, storage: str) -> tuple[Base, Base]:
    """The family as metier loads it, and in plain transformers."""
    directory, number_format = saved(family, directory), NumberFormat(storage, "float32")
    ours = load(directory, number_format, "cpu")
    assert bool(ours.why_rows) == bool(family.why_rows), ours.why_rows
    assert family.told in ours.why_rows
    return ours, load(directory, number_format, "cpu", why_rows="plain transformers")


def assert_same_likelihoods(
    forward: Forward, plain: nn.Module, rows: Sequence[Example], edge: int | None, within: float = 5e-5
) -> None:
    with torch.no_grad():
        for tree in pack(rows, 80, fork=forward.forks, boundary=edge):
            sums = tree.row_sums(forward.logprobs(tree).numpy())
            for index, ours in zip(tree.rows.tolist(), sums, strict=True):
                assert ours == pytest.approx(float(alone(plain, rows[index])), abs=within)


def distinct(rows: Sequence[Example], edge: int | None) -> list[Example]:
    """LongRoPE reads a prefix inside a longer row with the longer row's factors: there rows stay on one side."""
    return [row for row in rows if edge is None or len(row.tokens) <= edge]


def test_the_forest_is_hard_enough() -> None:
    rows = forest(3)
    assert depth(rows) >= 4
    assert max(len(row.tokens) for row in rows) > 2 * WINDOW > WINDOW > min(len(row.tokens) for row in rows)


def assert_same(family: Family, directory: Path, storage: str) -> None:
    ours, plain = pair(family, directory, storage)
    rows, edge = forest(3), boundary(family.config)
    assert_same_likelihoods(ours.forward, plain.network, rows, edge)
    if not family.why_rows:
        assert_same_likelihoods(Forward(plain.network, forks=False), plain.network, distinct(rows, edge), edge)


@pytest.mark.long
@pytest.mark.parametrize("family", rarely(FAMILIES))
def test_trees_or_rows_equal_plain_transformers(family: Family, tmp_path: Path) -> None:
    assert_same(family, tmp_path, "float32")


@pytest.mark.long
@pytest.mark.parametrize("family", rarely(NF4, _EVERY_DAY))
def test_they_do_so_on_four_bits(family: Family, tmp_path: Path) -> None:
    assert_same(family, tmp_path, "nf4")


@pytest.mark.parametrize("family", rarely(FAMILIES, {"llama", "bloom"}))
def test_on_eight_bits_they_agree_within_rounding(family: Family, tmp_path: Path) -> None:
    """LLM.int8 rounds activations too: where one lies between two numbers, the last bit of a sum decides."""
    if family.why_not_nf4 or family.model_type in _NOT_INT8:
        with pytest.raises(ModelError, match="cannot be stored in fewer bits"):
            load(saved(family, tmp_path), NumberFormat("int8", "float32"), "cpu")
        return
    ours, plain = pair(family, tmp_path, "int8")
    assert_same_likelihoods(ours.forward, plain.network, forest(3), boundary(family.config), within=0.1)


@pytest.mark.long
@pytest.mark.parametrize("storage", ["float32", "nf4"])
@pytest.mark.parametrize("family", rarely(FORKING, _GRADIENTS_TOO))
def test_every_gradient_is_that_of_the_rows(family: Family, storage: str, tmp_path: Path) -> None:
    """On NF4 that of everything that is not packed, through everything that is."""
    if family.why_not_nf4:
        pytest.skip(family.why_not_nf4)
    ours, plain = pair(family, tmp_path, storage)
    for network in (ours.network, plain.network):
        for parameter in network.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
    rows = forest(5)
    accumulate(ours.forward, pack(rows, 60, boundary=boundary(family.config)))
    weight = sum(sum(row.weights) for row in rows)
    (-torch.stack([alone(plain.network, row) for row in rows]).sum() / weight).backward()
    found = gradients(ours.network)
    assert len(found) >= 2  # embeddings in and out, and norms where they have weights
    assert_same_gradients(found, gradients(plain.network))


@pytest.mark.parametrize("family", [each for each in FAMILIES if each.why_not_nf4], ids=lambda family: family.name)
def test_what_cannot_be_packed_is_refused_with_a_way(family: Family, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be stored in fewer bits") as caught:
        load(saved(family, tmp_path), NumberFormat("nf4", "float32"), "cpu")
    assert 'method = "lora"' in caught.value.hint
