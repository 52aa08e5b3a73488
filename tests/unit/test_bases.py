from __future__ import annotations

import dataclasses
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest
from transformers import (
    Gemma2Config,
    GemmaConfig,
    GlmConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
)

from metier.bases import Base, find, known, table
from metier.model.adapters import linear_size
from metier.model.trials import count
from tests.unit import tiny

ROOT = Path(__file__).parents[2]
FAMILIES: dict[str, type[PreTrainedConfig]] = {
    "SmolLM2": LlamaConfig,
    "Llama": LlamaConfig,
    "Qwen2.5": Qwen2Config,
    "hi-": Phi3Config,
    "Mistral": MistralConfig,
    "gemma-2-": Gemma2Config,
    "gemma-2b": GemmaConfig,
    "glm": GlmConfig,
}
SHAPE = [
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
    "tie_word_embeddings",
]


def config(base: Base) -> PreTrainedConfig:
    family = next(each for part, each in FAMILIES.items() if part in base.name)
    shape = {name: getattr(base, name) for name in SHAPE}
    return family(**shape, pad_token_id=None, bos_token_id=None, eos_token_id=None)


def test_the_reference_says_what_the_list_says() -> None:
    """Written by `python -c "from metier.bases import table; print(table(), end='')"`."""
    assert (ROOT / "docs/reference/bases.md").read_text() == table()


def test_every_fact_has_its_page_and_day() -> None:
    assert len({base.name for base in known()}) == len(known()) >= 20
    for base in known():
        assert base.licence
        assert isinstance(base.read, date)
        assert all(page.startswith("https://") for page in [*base.shape_pages, *base.licence_pages])
        assert base.shape_pages
        assert base.licence_pages
        assert base.revision is None or any(base.revision in page for page in [*base.shape_pages, *base.licence_pages])


def test_the_ladder_goes_from_a_tenth_to_fourteen_billion() -> None:
    sizes = [base.parameters for base in known()]
    assert sizes == sorted(sizes)
    assert 0.1e9 < sizes[0] < 0.2e9
    assert 14e9 < sizes[-1] < 15e9
    free = [base.parameters for base in known() if not base.gated and not base.terms]
    assert all(larger <= 4 * smaller for smaller, larger in pairwise(free)), "no wide gap"


@pytest.mark.parametrize(
    ("name", "billions"),
    [  # as other pages say them: Qwen's and Meta's model cards, the open leaderboards
        ("Qwen/Qwen2.5-0.5B-Instruct", 0.49),
        ("Qwen/Qwen2.5-1.5B-Instruct", 1.54),
        ("Qwen/Qwen2.5-3B-Instruct", 3.09),
        ("Qwen/Qwen2.5-7B-Instruct", 7.61),
        ("Qwen/Qwen2.5-14B-Instruct", 14.7),
        ("meta-llama/Llama-3.2-1B-Instruct", 1.23),
        ("meta-llama/Llama-3.2-3B-Instruct", 3.21),
        ("microsoft/Phi-3.5-mini-instruct", 3.82),
    ],
)
def test_the_arithmetic_gives_the_published_size(name: str, billions: float) -> None:
    base = find(name)
    assert base
    assert base.parameters / 1e9 == pytest.approx(billions, rel=0.009)


@pytest.mark.parametrize("base", known(), ids=lambda base: base.name)
def test_the_arithmetic_is_the_model_s(base: Base) -> None:
    """On two layers, on the meta device; norms and biases are left out."""
    small = dataclasses.replace(base, num_hidden_layers=2)
    made = config(small)
    assert linear_size(made) == small.linear_parameters
    trained = sum(kind.parameters for kind in count(made, tiny.lora(r=16, lora_alpha=32.0)))
    fused = "hi-" in base.name or "glm" in base.name
    assert trained <= small.adapter(16) if fused else trained == small.adapter(16)
    assert trained > 0.8 * small.adapter(16)


def test_a_pinned_name_carries_its_revision() -> None:
    pinned, open_ended = find("mistralai/Mistral-7B-Instruct-v0.3"), find("microsoft/phi-4")
    assert pinned
    assert open_ended
    assert pinned.pinned == f"{pinned.name}@{pinned.revision}"
    assert open_ended.pinned == open_ended.name
    assert find("nobody/nothing") is None
