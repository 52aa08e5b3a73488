"""What is written as GGUF is what lies in the base's folder, read back by others: transformers' own reader, gguf's."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from metier.artifacts.gguf import reach, write_adapter, write_base
from metier.data.rendering import Renderer
from metier.errors import ModelError
from metier.model.adapters import Identity, attach, save
from metier.model.loading import read_config
from tests.unit import tiny

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "phi3")
PROMPT = torch.tensor([[9, 60, 31, 7, 200, 13]])


def base(folder: Path, family: str, **changes: Any) -> Path:
    """A random model of a family, whose heads are as wide as the reader supposes."""
    if family in ("llama", "phi3"):
        return tiny.save(folder, family, **changes)
    made = tiny.tokenizer()
    sizes = {"vocab_size": len(made), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "eos_token_id": 0}
    torch.manual_seed(0)
    width = {"head_dim": 128} if family == "qwen3" else {}
    config = AutoConfig.for_model(family, **{**sizes, **heads, **width, "sliding_window": None, **changes})
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def written(folder: Path) -> Path:
    write_base(folder, Renderer.load(folder), folder / "model.gguf")
    return folder / "model.gguf"


def fields(path: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def tensors(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    return {each.name: each.data for each in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize("family", FAMILIES)
def test_another_reader_finds_the_same_model(tmp_path: Path, family: str) -> None:
    written(base(tmp_path, family))
    ours = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    how: dict[str, Any] = {"dtype": torch.float32, "pad_token_id": 5}  # or Phi-3's own lies outside
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", **how)
    assert theirs.config.model_type in (family, "llama")
    with torch.no_grad():
        torch.testing.assert_close(theirs(PROMPT).logits, ours(PROMPT).logits, atol=1e-5, rtol=1e-5)


def test_another_reader_finds_the_same_tokens(tmp_path: Path) -> None:
    path = written(base(tmp_path, "llama"))
    text, ours = "My card was swallowed! Was jetzt?  99\n", Renderer.load(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    assert theirs(text).input_ids == ours.raw_ids(text)
    told = fields(path)
    assert told["tokenizer.chat_template"] == ours.template
    assert told["tokenizer.ggml.eot_token_id"] == ours.tokenizer.convert_tokens_to_ids("<|end|>")
    assert told["tokenizer.ggml.token_type"][ours.tokenizer.eos_token_id] == gguf.TokenType.CONTROL
    assert told["tokenizer.ggml.add_bos_token"] is False


def test_sixteen_bits_stay_as_they_are(tmp_path: Path) -> None:
    folder = base(tmp_path, "phi3")
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    path = written(folder)
    stored = load_file(folder / "model.safetensors")["model.layers.1.self_attn.qkv_proj.weight"]
    found = tensors(path)["blk.1.attn_qkv.weight"].view(np.uint16)
    assert (found.reshape(stored.shape) == stored.view(torch.uint16).numpy()).all()
    assert fields(path)["general.file_type"] == gguf.LlamaFileType.MOSTLY_BF16
    assert tensors(path)["output_norm.weight"].dtype == np.float32


def test_ranks_become_scores(tmp_path: Path) -> None:
    """SentencePiece's way of merging: the highest score first, bytes where there is no piece."""
    folder = base(tmp_path, "llama")
    state = json.loads((folder / "tokenizer.json").read_text())
    model, bytes_ = state["model"], [f"<0x{each:02X}>" for each in range(256)]
    controls = [each["content"] for each in state["added_tokens"]]
    pieces = [*controls, "<unk>", *bytes_, "▁", "a", "b", "▁a", "ab", "▁ab"]
    model["vocab"] = {piece: place for place, piece in enumerate(pieces)}
    model |= {"merges": [["a", "b"], ["▁", "ab"], ["▁", "a"]], "byte_fallback": True, "unk_token": "<unk>"}
    state |= {"pre_tokenizer": None, "normalizer": {"type": "Prepend", "prepend": "▁"}}
    (folder / "tokenizer.json").write_text(json.dumps(state))
    told = fields(written(folder))
    pieces, scores = told["tokenizer.ggml.tokens"], told["tokenizer.ggml.scores"]
    assert [scores[pieces.index(each)] for each in ("ab", "▁ab", "▁a", "a")] == [0, -1, -2, -3]
    assert told["tokenizer.ggml.token_type"][pieces.index("<0x41>")] == gguf.TokenType.BYTE
    assert told["tokenizer.ggml.add_space_prefix"] is True
    assert told["tokenizer.ggml.model"] == "llama"


def test_llama3_divides_each_frequency(tmp_path: Path) -> None:
    rope = {"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    folder = base(tmp_path, "llama", rope_parameters=rope, hidden_size=64)
    config = LlamaConfig.from_pretrained(folder)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1 / 10_000.0 ** (torch.arange(0, 16, 2) / 16)
    assert tensors(written(folder))["rope_freqs.weight"] == pytest.approx((plain / scaled).numpy(), rel=1e-5)


def test_longrope_reaches_as_far_as_its_short_factors(tmp_path: Path) -> None:
    rope = {"rope_type": "longrope", "rope_theta": 10_000.0, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    folder = base(tmp_path, "phi3", rope_parameters=rope, original_max_position_embeddings=128)
    told, found = fields(written(folder)), tensors(folder / "model.gguf")
    assert found["rope_factors_long.weight"].tolist() == [2.0] * 4
    assert told["phi3.rope.scaling.attn_factor"] == pytest.approx(math.sqrt(1 + math.log(4) / math.log(128)))
    assert reach(read_config(folder)) == 128


@pytest.mark.parametrize("how", [{}, {"use_rslora": True}, {"alpha_pattern": {"q_proj": 2.0}}])
def test_adapters_add_what_peft_adds(tmp_path: Path, how: dict[str, Any]) -> None:
    folder = base(tmp_path / "base", "llama")
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    how = {**how, "r": 4, "lora_alpha": 12.0}
    adapted, _ = attach(network, tiny.lora(**how), seed=0)
    adapted.requires_grad_(False)
    for parameter in adapted.parameters():
        torch.nn.init.normal_(parameter.data, std=0.1)
    (tmp_path / "adapter").mkdir()
    save(adapted, Identity("base", "", "", ""), "", tmp_path / "adapter")
    write_adapter(tmp_path / "adapter", folder, tmp_path / "adapter.gguf")
    told, found = fields(tmp_path / "adapter.gguf"), tensors(tmp_path / "adapter.gguf")
    assert (told["general.type"], told["adapter.type"], told["general.architecture"]) == ("adapter", "lora", "llama")
    for own, name in (("q_proj", "attn_q"), ("v_proj", "attn_v")):
        down, up = found[f"blk.1.{name}.weight.lora_a"], found[f"blk.1.{name}.weight.lora_b"]
        added = up @ down * (told["adapter.lora.alpha"] / len(down))
        layer = adapted.get_submodule(f"base_model.model.model.layers.1.self_attn.{own}")
        expected = layer.get_delta_weight("default").numpy()  # type: ignore[operator]
        if own == "q_proj":  # its rows lie as the base's do: pairs that turn together side by side
            expected = expected.reshape(4, 2, 4, -1).swapaxes(1, 2).reshape(expected.shape)
        np.testing.assert_allclose(added, expected, rtol=1e-4, atol=1e-6)


def test_what_has_no_form_is_refused(tmp_path: Path) -> None:
    folder = base(tmp_path / "gpt", "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "gpt_neox"}))
    with pytest.raises(ModelError, match="gpt_neox: is no kind of model that is written as GGUF here"):
        written(folder)
    folder = base(tmp_path / "cut", "llama")
    state = json.loads((folder / "tokenizer.json").read_text())
    state["pre_tokenizer"] = {"type": "Whitespace"}
    (folder / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(ModelError, match="cuts words in a way"):
        written(folder)
    (tmp_path / "none").mkdir()
    with pytest.raises(ModelError, match="more than low-rank matrices"):
        write_adapter(tmp_path / "none", folder, tmp_path / "adapter.gguf")
