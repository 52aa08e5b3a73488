"""A base and its low-rank adapters as GGUF, the format of llama.cpp: a file each, in the numbers as they are stored.

The layout is that of llama.cpp's own converters: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Shapes:
I inputs, O outputs, R ranks.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFWriter, LlamaFileType, RopeScalingType, TokenType
from safetensors import safe_open
from torch import Tensor

from metier.data.rendering import Renderer
from metier.errors import ModelError
from metier.files import read_json
from metier.model.bank import bankable
from metier.model.loading import Config, boundary, context, read_config

GGUF = 1  # how files are written; what was written otherwise is not taken again


@dataclass(frozen=True)
class _Family:
    """`paired`: rotary positions turn neighbours, not halves, so the rows of queries and keys lie in another order."""

    arch: MODEL_ARCH
    paired: bool = False


_FAMILIES = {
    "llama": _Family(MODEL_ARCH.LLAMA, paired=True),
    "mistral": _Family(MODEL_ARCH.LLAMA, paired=True),
    "qwen2": _Family(MODEL_ARCH.QWEN2),
    "qwen3": _Family(MODEL_ARCH.QWEN3),
    "phi3": _Family(MODEL_ARCH.PHI3),
}
_STORED = {
    torch.float32: (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    torch.float16: (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    torch.bfloat16: (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
}
# How words are cut before bytes are merged, by the pattern in tokenizer.json; GPT-2's own has none.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_SIGNS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CUTS = {"": "gpt-2", rf"{_WORDS}\p{{N}}{_SIGNS}": "qwen2", rf"{_WORDS}\p{{N}}{{1,3}}{_SIGNS}": "llama-bpe"}


def write_base(directory: Path, renderer: Renderer, to: Path) -> None:
    """Write a base with its tokenizer and chat template. Raises `ModelError` for what this has no form for."""
    config = read_config(directory)
    family = _family(config)
    writer = GGUFWriter(to, gguf.MODEL_ARCH_NAMES[family.arch])
    writer.add_name(directory.name)
    _add_shape(writer, config)
    factors = _add_positions(writer, config)
    _add_tokens(writer, renderer, int(config.vocab_size))
    names = _names(config, family)
    tensors = {names(name): (name, tensor) for name, tensor in _tensors(directory)}
    stored = {tensor.dtype for _, tensor in tensors.values() if tensor.dim() > 1}
    writer.add_file_type(_STORED[max(stored, key=str)][1])
    for name, (own, tensor) in tensors.items():
        _add(writer, name, _turned(tensor, own, config, family))
    for name, values in factors.items():
        _add(writer, name, torch.tensor(values))
    _close(writer)


def write_adapter(directory: Path, base: Path, to: Path) -> None:
    """Write a saved adapter of a base. Raises `ModelError` where it is more than low ranks beside linear layers."""
    if not bankable(directory):
        problem = f"{directory}: is more than low-rank matrices beside linear layers, for which GGUF has no form"
        raise ModelError(problem, "merge it into its base, or serve it with metier's own engine")
    config, how = read_config(base), read_json(directory / "adapter_config.json")
    family = _family(config)
    names = _names(config, family)
    writer = GGUFWriter(to, gguf.MODEL_ARCH_NAMES[family.arch])
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(how["lora_alpha"]))
    for layer, down_RI, up_OR in _low_ranks(directory):
        rank = len(down_RI)
        alpha = _of(layer, how.get("alpha_pattern") or {}, how["lora_alpha"])
        scale = alpha / (math.sqrt(rank) if how.get("use_rslora") else rank)
        up_OR = _turned(up_OR.float(), f"{layer}.weight", config, family)
        name = names(f"{layer}.weight")
        _add(writer, f"{name}.lora_a", down_RI.float())
        _add(writer, f"{name}.lora_b", up_OR * (scale * rank / how["lora_alpha"]))  # read back as alpha / rank
    _close(writer)


def reach(config: Config) -> int:
    """The longest row that a file means as its base does.

    llama.cpp chooses LongRoPE's factors once for all rows, and slides no window over them.
    """
    limits = (context(config), boundary(config), getattr(config, "sliding_window", None))
    return min(int(each) for each in limits if each)


def _family(config: Config) -> _Family:
    if config.model_type not in _FAMILIES:
        problem = f"{config.model_type}: is no kind of model that is written as GGUF here"
        raise ModelError(problem, f"the kinds are {', '.join(_FAMILIES)}")
    return _FAMILIES[config.model_type]


def _names(config: Config, family: _Family) -> Any:
    """A tensor's name in its base → in GGUF."""
    known = gguf.get_tensor_name_map(family.arch, config.num_hidden_layers)

    def name(own: str) -> str:
        found: str | None = known.get_name(own, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise ModelError(f"{own}: has no name in GGUF for a {config.model_type}", "use metier's own engine")
        return found

    return name


def _tensors(directory: Path) -> Iterator[tuple[str, Tensor]]:
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="pt") as opened:
            for name in opened.offset_keys():
                yield name, opened.get_tensor(name)


def _low_ranks(directory: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Every layer by the base's name for it, with what its adapter multiplies."""
    found = dict(_tensors(directory))
    for name in sorted(found):
        if ".lora_A." in name:
            layer = name.removeprefix("base_model.model.").partition(".lora_A.")[0]
            yield layer, found[name], found[name.replace(".lora_A.", ".lora_B.")]


def _of(layer: str, patterns: Mapping[str, float], otherwise: float) -> float:
    """A layer's own value, by the first pattern that its name ends with, as PEFT reads them."""
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", layer)), otherwise)


def _turned(tensor: Tensor, name: str, config: Config, family: _Family) -> Tensor:
    """Rows of queries and keys with what is turned together side by side."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if not family.paired or heads is None:
        return tensor
    return tensor.reshape(heads, 2, len(tensor) // heads // 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape)


def _add(writer: GGUFWriter, name: str, tensor: Tensor) -> None:
    """Vectors are wanted in float32. What is mapped stays so until it is written."""
    tensor = tensor.float() if tensor.dim() < 2 else tensor.contiguous()
    kind, _ = _STORED[tensor.dtype]
    bits = tensor.view(torch.uint16) if kind == GGMLQuantizationType.BF16 else tensor
    writer.add_tensor(name, bits.numpy(), raw_dtype=kind)


def _close(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_shape(writer: GGUFWriter, config: Config) -> None:
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(context(config))
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if config.model_type == "phi3":
        writer.add_sliding_window(0)


def _add_positions(writer: GGUFWriter, config: Config) -> dict[str, list[float]]:
    """The tensors that rotary positions need besides."""
    rope: dict[str, Any] = config.rope_parameters
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    turned = int(size * rope.get("partial_rotary_factor", 1.0))
    original = boundary(config) or rope.get("original_max_position_embeddings") or context(config)
    writer.add_rope_dimension_count(turned)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_scaling_orig_ctx_len(int(original))
    match rope["rope_type"]:
        case "default":
            return {}
        case "linear":
            writer.add_rope_scaling_type(RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(rope["factor"])
            return {}
        case "llama3":
            return {"rope_freqs.weight": _llama3(rope, turned)}
        case "longrope":
            stretch = context(config) / original
            strength = math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0
            writer.add_rope_scaling_attn_factors(rope.get("attention_factor") or strength)
            long, short = rope["long_factor"], rope["short_factor"]
            return {"rope_factors_long.weight": long, "rope_factors_short.weight": short}
    raise ModelError(f"positions of the kind {rope['rope_type']!r} are not written as GGUF here", "use another base")


def _llama3(rope: Mapping[str, Any], turned: int) -> list[float]:
    """By how much each frequency is divided (Llama 3.1's model card; transformers' `_compute_llama3_parameters`)."""
    lengths = 2 * math.pi * rope["rope_theta"] ** (np.arange(0, turned, 2) / turned)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = ((rope["original_max_position_embeddings"] / lengths - low) / (high - low)).clip(0, 1)
    factors: list[float] = (1 / ((1 - smooth) / rope["factor"] + smooth)).tolist()
    return factors


def _add_tokens(writer: GGUFWriter, renderer: Renderer, size: int) -> None:
    tokenizer = renderer.tokenizer
    state: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    if state["model"]["type"] != "BPE":
        problem = f"a tokenizer of the kind {state['model']['type']} is not written as GGUF here"
        raise ModelError(problem, "use a base whose tokenizer merges pairs (BPE)")
    pieces = [f"[PAD{place}]" for place in range(size)]
    kinds = [TokenType.UNUSED] * size
    for piece, place in state["model"]["vocab"].items():
        pieces[place], kinds[place] = piece, _kind(piece, state["model"])
    for added in state["added_tokens"]:
        pieces[added["id"]] = added["content"]
        kinds[added["id"]] = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
    merges = [each.split(" ") if isinstance(each, str) else each for each in state["model"]["merges"]]
    if state["model"]["byte_fallback"]:
        _add_ranked(writer, pieces, merges, state)
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_cut(state["pre_tokenizer"]))
        writer.add_token_merges([" ".join(each) for each in merges])
    writer.add_token_list(pieces)
    writer.add_token_types(kinds)
    _add_ends(writer, renderer)


def _kind(piece: str, model: Mapping[str, Any]) -> TokenType:
    if piece == model.get("unk_token"):
        return TokenType.UNKNOWN
    return TokenType.BYTE if model["byte_fallback"] and re.fullmatch(r"<0x[0-9A-F]{2}>", piece) else TokenType.NORMAL


def _add_ranked(writer: GGUFWriter, pieces: list[str], merges: list[list[str]], state: Mapping[str, Any]) -> None:
    """SentencePiece's form: what merges first has the highest score."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault("".join(pair), rank)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_scores([-float(ranks.get(piece, len(merges))) for piece in pieces])
    writer.add_add_space_prefix('"Prepend"' in json.dumps(state["normalizer"]))


def _cut(pre_tokenizer: Mapping[str, Any]) -> str:
    """GGUF's name for the way in which words are cut."""
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    pattern = next((each["pattern"]["Regex"] for each in steps if each["type"] == "Split"), "")
    if pattern not in _CUTS or steps[-1]["type"] != "ByteLevel":
        problem = "the tokenizer cuts words in a way that has no name here, so others would read them differently"
        raise ModelError(problem, f"known are those of {', '.join(_CUTS.values())}")
    return _CUTS[pattern]


def _add_ends(writer: GGUFWriter, renderer: Renderer) -> None:
    tokenizer = renderer.tokenizer
    begins = tokenizer("x").input_ids[:1] == [tokenizer.bos_token_id]
    writer.add_add_bos_token(begins)
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    if tokenizer.eos_token_id is not None:
        writer.add_eos_token_id(tokenizer.eos_token_id)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    for turn in renderer.stop_ids - {tokenizer.eos_token_id}:
        writer.add_eot_token_id(turn)
    writer.add_chat_template(renderer.template)
