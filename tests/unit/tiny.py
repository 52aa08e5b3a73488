"""Small real models for tests: a random Llama or Phi-3 saved as a user would have it, with a tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, Phi3Config, PreTrainedTokenizerFast

from metier.strategies import Lora, LoraStrategy

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_TEXT = ["the quick brown fox jumps over the lazy dog", "My card was swallowed! What now?", "good bad fine 0123456789"]


def lora(**keys: Any) -> LoraStrategy:
    """A recipe's LoRA of rank 4, with other keys changed."""
    return LoraStrategy(method="lora", peft=Lora(**{"r": 4, "lora_alpha": 8.0, **keys}))


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with Phi-3's kind of control tokens; nothing is put in front of text."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    raw.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    controls = ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        _TEXT,
        trainers.BpeTrainer(vocab_size=400, special_tokens=controls, initial_alphabet=alphabet, show_progress=False),
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|endoftext|>", pad_token="<|pad|>")
    fast.chat_template = TEMPLATE
    return fast


def save(directory: Path, family: str = "phi3", **changes: Any) -> Path:
    """A random two-layer model in float32 with its tokenizer; returns the directory."""
    made = tokenizer()
    sizes = {
        "vocab_size": len(made),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 5,
        **changes,
    }
    config = Phi3Config(**sizes) if family == "phi3" else LlamaConfig(**sizes)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(directory)
    made.save_pretrained(directory)
    return directory
