"""A directory with a causal language model → a network in the number format that the plan names."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.utils import logging as vendor_logging

from metier.errors import ModelError
from metier.model.forward import ATTENTION, Forward, register
from metier.trees import Example, pack

Config = PreTrainedConfig  # for units that do not house transformers
PROBE_CONTEXT = 8
_TOLERANCE = 1e-3
_probed: dict[tuple[type[PreTrainedConfig], str], str] = {}
_EXPERTS = 16  # of a twin: no fewer than any router chooses, two in each of DeepSeek's eight groups


@dataclass(frozen=True)
class NumberFormat:
    """How weights are stored and what arithmetic computes in: `nf4/bfloat16`, `int8/float16`, `float32/float32`, …"""

    storage: str
    compute: str

    def __str__(self) -> str:
        return f"{self.storage}/{self.compute}"

    @property
    def quantized(self) -> bool:
        return self.storage != self.compute

    @property
    def dtype(self) -> torch.dtype:
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[self.compute]


@dataclass(frozen=True)
class Base:
    """A loaded base: its network, whether it can fork and why not, and where LongRoPE changes its factors."""

    forward: Forward
    why_rows: str
    boundary: int | None

    @property
    def network(self) -> nn.Module:
        return self.forward.network


class NoCausalModel(ModelError):
    """A base that cannot generate."""

    def __init__(self, kind: str, why: str) -> None:
        hint = "name a decoder, such as a Llama, Mistral, Phi or Qwen"
        hint += ', or train this base to tell labels apart: strategy.objective = "classify"'
        super().__init__(f"{kind}: is no causal language model: {why}", hint)


def read_config(directory: Path) -> PreTrainedConfig:
    """The base's configuration; raises `ModelError` where transformers has no such causal model."""
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(directory, trust_remote_code=False)
        return config
    except (OSError, ValueError, KeyError) as error:
        first = str(error).splitlines()[0]
        raise ModelError(f"{directory}: is not a model that transformers can load: {first}") from None


def boundary(config: PreTrainedConfig) -> int | None:
    """The length beyond which LongRoPE takes its long factors, if the model uses it."""
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "longrope":
        return None
    original = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    return int(original) if original else None


def context(config: PreTrainedConfig) -> int:
    """How many tokens the model reads at most."""
    return int(getattr(config, "max_position_embeddings", None) or 1 << 20)


def load(directory: Path, number_format: NumberFormat, device: str, *, why_rows: str | None = None, **how: Any) -> Base:
    """Read the weights, frozen and in evaluation mode.

    `why_rows` is what `probe` said, asked here if it was not before; `how` goes to `Forward`.
    """
    register()
    vendor_logging.disable_progress_bar()
    config = read_config(directory)
    why_rows = probe(config) if why_rows is None else why_rows
    attention = {} if why_rows else {"attn_implementation": ATTENTION}
    network = settled(pretrained(AutoModelForCausalLM, directory, config, number_format, device, **attention))
    forward = Forward(network, forks=not why_rows, **how)
    if number_format.quantized:
        _assert_quantised(forward, config.model_type, known=not why_rows and number_format.storage == "nf4")
    return Base(forward, why_rows, boundary(config))


def pretrained(
    family: Any, directory: Path, config: PreTrainedConfig, number_format: NumberFormat, device: str, **how: Any
) -> nn.Module:
    """The weights of a directory in one of transformers' families of models; raises `ModelError`."""
    keywords = {"dtype": number_format.dtype, "trust_remote_code": False, "use_safetensors": True, **how}
    if device != "cpu" or number_format.quantized:
        keywords["device_map"] = {"": device}  # shard by shard, never whole on the host
    if number_format.quantized:
        keywords["quantization_config"] = _quantization(number_format)
    try:
        network: nn.Module = family.from_pretrained(directory, config=config, **keywords)
    except (OSError, ValueError) as error:
        raise ModelError(f"{directory}: cannot be loaded: {str(error).splitlines()[0]}") from None
    return network


def settled(network: nn.Module) -> nn.Module:
    """Frozen, in evaluation mode, and without anything that would change it or drop parts of it."""
    _keep_weights_as_stored(network)
    _without_dropout(network)
    return network.requires_grad_(False).eval()


def _quantization(number_format: NumberFormat) -> Any:
    from transformers import BitsAndBytesConfig

    if number_format.storage == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=number_format.dtype,
    )


def _keep_weights_as_stored(network: nn.Module) -> None:
    """Forbid bitsandbytes' repacking: on AVX512-BF16 it changes a 4-bit weight in place at the first
    forward in eval mode, after which gradients are silently zero and saved bases differ."""
    for module in network.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010 (no attribute of nn.Module's)


@torch.no_grad()
def _assert_quantised(forward: Forward, kind: str, *, known: bool) -> None:
    """Some families bring linear layers of their own, which stay as they were, or read a weight past its layer.

    Families that run trees are known to bear NF4 (docs/reference/families.md); others are tried on two tokens.
    """
    problem = "" if _quantised(forward.network) else "none of its linear layers is of the kind that bitsandbytes knows"
    if not problem and not known:
        (tree,) = pack([Example((0, 0), (0.0, 1.0))], 2)
        try:
            forward.logprobs(tree)
        except RuntimeError as error:
            problem = str(error).splitlines()[0]
    if problem:
        raise ModelError(f"{kind}: cannot be stored in fewer bits: {problem}", 'set strategy.method = "lora"')


def _quantised(network: nn.Module) -> bool:
    return any(type(parameter).__name__ in ("Params4bit", "Int8Params") for parameter in network.parameters())


def _without_dropout(network: nn.Module) -> None:
    """Some bases bring dropouts of their own (GPT-2: 0.1); what is dropped in training the recipe alone says."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def probe(config: PreTrainedConfig) -> str:
    """Why a model of this kind cannot run trees, or "" where it can.

    Measured, not looked up: a random two-layer twin with every window, chunk and original context
    shrunk to 8 scores a forest, and plain transformers scores each row alone; once a config. Raises `ModelError`
    for a model that sees the future, which is no causal one.
    """
    key = (type(config), config.to_json_string(use_diff=False))
    if key not in _probed:
        _probed[key] = _probe(config)
    return _probed[key]


def _probe(config: PreTrainedConfig) -> str:
    register()
    vendor_logging.set_verbosity_error()
    rows = probe_rows()
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise NoCausalModel(config.model_type, "transformers has no causal model of its kind")
    try:
        twin_config = twin(config)
        with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            plain, forked = (random_network(twin_config, implementation) for implementation in ("eager", ATTENTION))
            _assert_causal(plain, config.model_type, rows[0])
            forked.load_state_dict(plain.state_dict())
            alone = torch.stack([row_logprob(plain, row) for row in rows])
            together = torch.empty_like(alone)
            for tree in pack(rows, 1 << 20, boundary=boundary(twin_config)):
                logprobs = Forward(forked, forks=True).logprobs(tree).numpy()
                together[torch.as_tensor(tree.rows)] = torch.as_tensor(tree.row_sums(logprobs), dtype=alone.dtype)
    except (NotImplementedError, TypeError, ValueError, RuntimeError, AttributeError, KeyError) as error:
        return f"{config.model_type}: {_reason(error)}"
    worst = float((alone - together).abs().max())
    return "" if worst < _TOLERANCE else f"{config.model_type}: a tree differs from its rows alone by {worst:.2g} nats"


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError) and error.args == (ATTENTION,):
        return "its attention cannot be exchanged"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def twin(config: PreTrainedConfig) -> PreTrainedConfig:
    """The config with two layers (one of each kind), few experts, a small vocabulary and all contexts shrunk."""
    twin = copy.deepcopy(config)
    kinds = list(getattr(config, "layer_types", None) or [])
    chosen = sorted({kinds.index(kind) for kind in kinds}) or [0, 1]
    chosen = chosen if len(chosen) > 1 else [0, min(1, max(len(kinds) - 1, 1))]
    small: dict[str, Any] = {
        "num_hidden_layers": len(chosen),
        "vocab_size": 64,
        "intermediate_size": 64,
        "moe_intermediate_size": 64,
    }
    experts = ("num_experts", "num_local_experts", "n_routed_experts")
    small |= {name: min(_EXPERTS, each) for name in experts if (each := getattr(config, name, None))}
    contexts = ("sliding_window", "attention_chunk_size", "chunk_size", "original_max_position_embeddings")
    small |= {name: PROBE_CONTEXT for name in contexts if getattr(config, name, None)}
    if kinds and "layer_types" in vars(twin):  # elsewhere it follows from other fields
        small["layer_types"] = [kinds[index] for index in chosen]
    for name, value in small.items():
        if hasattr(twin, name):
            setattr(twin, name, value)
    rope = getattr(twin, "rope_parameters", None) or {}
    if rope.get("original_max_position_embeddings"):
        rope["original_max_position_embeddings"] = PROBE_CONTEXT
    for token in ("bos_token_id", "eos_token_id"):
        setattr(twin, token, None)
    # No probe row holds 0; RoBERTa counts its positions from the number of this token.
    twin.pad_token_id = None if getattr(config, "pad_token_id", None) is None else 0
    return twin


def random_network(config: PreTrainedConfig, implementation: str) -> nn.Module:
    """A network of random float32 weights, frozen and in evaluation mode."""
    network: nn.Module = AutoModelForCausalLM.from_config(
        copy.deepcopy(config), attn_implementation=implementation, dtype=torch.float32, trust_remote_code=False
    )
    # Weights at their usual small scale would let what a layer does wrong drown in the residual stream.
    for parameter in network.requires_grad_(False).parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, 1.5 / parameter.shape[-1] ** 0.5)
    return network.eval()


def _assert_causal(network: nn.Module, kind: str, row: Example) -> None:
    if sees_ahead(network, row):
        raise NoCausalModel(kind, "its predictions see the tokens that follow")


def sees_ahead(network: nn.Module, row: Example) -> bool:
    """Whether another last token changes what is predicted in front of it; each row by itself, as some mix batches."""
    last = (row.tokens[-1] + 1) % 64
    first, second = (
        network(input_ids=torch.tensor([[*row.tokens[:-1], token]]), use_cache=False).logits[0, :-1].float()
        for token in (row.tokens[-1], last)
    )
    return float((first - second).abs().max()) > _TOLERANCE


def probe_rows() -> list[Example]:
    """Rows that fork at the root, in the middle and at the end, on both sides of the shrunk context."""
    random = np.random.default_rng(0)
    stem = random.integers(1, 64, 12).tolist()
    rows = []
    for length, tail in ((12, 9), (12, 3), (6, 14), (3, 4), (3, 2), (0, 7), (0, 20)):
        tokens = [*stem[:length], *random.integers(1, 64, tail).tolist()]
        rows.append(Example(tuple(tokens), (0.0, *[1.0] * (len(tokens) - 1))))
    return rows


def row_logprob(network: nn.Module, row: Example) -> Tensor:
    """The log-probability of a row behind its first token, in plain transformers."""
    tokens = torch.tensor([row.tokens])
    # Virtual tokens that an adapter puts in front have logits too.
    logits = network(input_ids=tokens, use_cache=False).logits[0, -len(row.tokens) : -1].float()
    total: Tensor = logits.log_softmax(-1).gather(-1, tokens[0, 1:, None]).sum()
    return total
