"""The models that `serving.py` serves: one base of a real shape with four adapters, as each server wants to have them.

Weights but nano's are random from a seed, and so are the adapters: speed does not ask what they say. Turns end with a
token that no model of these says, so every answer has the length that was asked for, whoever serves it.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

import metier
from metier.artifacts.gguf import write_adapter, write_base
from metier.data.rendering import Renderer
from metier.planning import Plan
from metier.run import save_plan

ADAPTERS = 4
_NANO = Path(metier.__file__).parent / "assets" / "nano"
_END = "<|turn_ends|>"
_ROWS = 12


@dataclass(frozen=True)
class Models:
    """`base` with its adapters as `runs` for metier, as `ggufs` for llama.cpp and `merged` for transformers."""

    base: Path
    runs: tuple[Path, ...]
    base_gguf: Path
    ggufs: tuple[Path, ...]
    merged: tuple[Path, ...]

    @property
    def renderer(self) -> Renderer:
        return Renderer.load(self.base)


def make(shape: str, folder: Path, *, data: Path | None, merged: int, threads: int) -> Models:
    """What lies in `folder` already is taken as it is. `shape` is nano, or a folder of `data`/models/configs."""
    base = folder / "base"
    if not base.exists():
        _make_base(shape, base, data)
    adapters = [_adapter(base, folder / f"adapter-{number}", number) for number in range(ADAPTERS)]
    base_gguf = folder / "base.gguf"
    if not base_gguf.exists():
        write_base(base, Renderer.load(base), base_gguf)
    ggufs = [folder / f"adapter-{number}.gguf" for number in range(ADAPTERS)]
    for adapter, to in zip(adapters, ggufs, strict=True):
        if not to.exists():
            write_adapter(adapter, base, to)
    plain = [_merged(base, adapters[number], folder / f"merged-{number}") for number in range(merged)]
    return Models(base, _runs(base, adapters, folder, threads), base_gguf, tuple(ggufs), tuple(plain))


def _make_base(shape: str, to: Path, data: Path | None) -> None:
    torch.manual_seed(0)
    if shape == "nano":
        network = AutoModelForCausalLM.from_pretrained(_NANO, dtype=torch.bfloat16)
    else:
        assert data is not None, "--data names the folder of public configs"
        config = AutoConfig.from_pretrained(data / "models" / "configs" / shape, trust_remote_code=False)
        network = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    tokenizer = _tokenizer(network.config.vocab_size)
    end = tokenizer.convert_tokens_to_ids(_END)
    for settings in (network.config, network.generation_config):
        settings.eos_token_id, settings.bos_token_id, settings.pad_token_id = end, None, end
    network.save_pretrained(to)
    tokenizer.save_pretrained(to)


def _tokenizer(size: int) -> PreTrainedTokenizerFast:
    """nano's, filled up with words to the size of the shape's vocabulary, the last one ending a turn."""
    state: dict[str, Any] = json.loads((_NANO / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = state["model"]["vocab"]
    if len(vocabulary) == size:  # nano itself: its last word makes room
        last = max(vocabulary, key=vocabulary.__getitem__)
        state["model"]["merges"] = [pair for pair in state["model"]["merges"] if "".join(pair) != last]
        del vocabulary[last]
    for place in range(len(vocabulary), size - 1):
        vocabulary[f"Ġw{place}"] = place
    vocabulary[_END] = size - 1
    control = next(each for each in state["added_tokens"] if each["content"] == "<|end|>")
    state["added_tokens"].append({**control, "id": size - 1, "content": _END})
    path = Path(str(_NANO / "chat_template.jinja"))
    made = PreTrainedTokenizerFast(tokenizer_object=_tokenizer_of(state), eos_token=_END, pad_token=_END)
    made.chat_template = path.read_text(encoding="utf-8").replace("<|end|>", _END)
    return made


def _tokenizer_of(state: dict[str, Any]) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps(state))


def _adapter(base: Path, to: Path, seed: int) -> Path:
    """Rank 16 on every linear layer, both matrices drawn."""
    if not to.exists():
        with torch.device("meta"):
            network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base), dtype=torch.bfloat16)
            how = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
            adapted = get_peft_model(network, how)
        random = torch.Generator().manual_seed(seed)
        drawn = {
            name: torch.randn(weight.shape, generator=random) * (0.02 if "lora_A" in name else 0.002)
            for name, weight in adapted.named_parameters()
            if "lora_" in name
        }
        adapted.save_pretrained(str(to), state_dict=drawn)
    return to


def _merged(base: Path, adapter: Path, to: Path) -> Path:
    if not to.exists():
        network = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
        PeftModel.from_pretrained(network, adapter).merge_and_unload().save_pretrained(to)
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(base / name, to / name)
    return to


def _runs(base: Path, adapters: list[Path], folder: Path, threads: int) -> tuple[Path, ...]:
    """Each adapter measured on a few rows, for a run is what metier serves."""
    rows = folder / "rows.jsonl"
    turns = [
        [{"role": "user", "content": f"What is {number}?"}, {"role": "assistant", "content": str(number)}]
        for number in range(_ROWS)
    ]
    rows.write_text("".join(json.dumps({"messages": each}) + "\n" for each in turns), encoding="utf-8")
    text = folder / "text.jsonl"
    text.write_text('{"text": "A few words."}\n' * 4, encoding="utf-8")
    found = []
    for adapter in adapters:
        recipe = metier.Recipe.model_validate(
            {
                "model": str(base),
                "domain": ({"name": "sums", "data": str(rows), "messages": "messages"},),
                "strategy": {"method": "adapter", "adapter": str(adapter)},
                "eval": {"general_text": str(text), "general_choices": "", "max_new_tokens": 1},
                "path": folder / "recipe.toml",
            }
        )
        run = metier.evaluate(recipe, offline=True)
        save_plan(run, Plan(**{**run.plan(), "threads": threads}))  # a server takes as many as the plan says
        found.append(run.directory)
    return tuple(found)
