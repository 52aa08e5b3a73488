from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from metier.files import write_directory
from metier.inference.engine import Capacity, Engine, Request
from metier.model.adapters import Identity, load, save
from metier.model.bank import BASE, Bank, bankable
from metier.model.forward import ATTENTION, Forward
from metier.trees import Example
from tests.unit.inference.test_engine import PROMPTS, STOP, network

IDENTITY = Identity("base", "b", "t", "c")
CONFIGS = {
    "small": LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "v_proj"]),
    "large": LoraConfig(r=6, lora_alpha=6, target_modules="all-linear", rank_pattern={"down_proj": 3}),
    "stable": LoraConfig(r=4, lora_alpha=4, use_rslora=True, target_modules=["down_proj", "o_proj"]),
    "head": LoraConfig(r=3, lora_alpha=3, target_modules=["lm_head", "q_proj"]),
}


def wrapped(config: LoraConfig) -> PeftModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's own, of transformers 5
        made: PeftModel = get_peft_model(network("llama", ATTENTION), config)
    return made


def adapter(name: str, to: Path) -> Path:
    """A saved adapter that makes a difference."""
    adapted = wrapped(CONFIGS[name])
    random = torch.Generator().manual_seed(len(name))
    for key, parameter in sorted(adapted.named_parameters()):
        if "lora_" in key:
            parameter.data = torch.randn(parameter.shape, generator=random)
    folder = to / name
    write_directory(folder, lambda place: save(adapted, IDENTITY, "", place))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    to = tmp_path_factory.mktemp("adapters")
    return {name: adapter(name, to) for name in CONFIGS}


def bank(folders: dict[str, Path]) -> Bank:
    made = Bank(network("llama", ATTENTION))
    for name, folder in folders.items():
        made.add(name, folder, IDENTITY)
    return made


def plain(folder: Path | None) -> nn.Module:
    """The adapter as PEFT runs it, or the bare base."""
    made = network("llama", ATTENTION)
    return load(made, folder, IDENTITY) if folder else made


def engine(over: nn.Module, laid: Bank | None = None, remember: int = 0) -> Engine:
    return Engine(Forward(over, forks=True), Capacity(64, 8, remember), boundary=None, bank=laid)


def test_everybody_in_a_batch_answers_as_if_alone(folders: dict[str, Path]) -> None:
    laid = bank(folders)
    asked = [(name, prompt) for prompt in PROMPTS for name in (BASE, *CONFIGS)]
    requests = [Request(prompt, 10, STOP, adapter=name) for name, prompt in asked]
    found = {place: tokens for place, tokens, _ in engine(laid.network, laid).run(requests)}
    for name in (BASE, *CONFIGS):
        alone = engine(plain(folders.get(name)))
        mine = [place for place, (other, _) in enumerate(asked) if other == name]
        said = {mine[place]: tokens for place, tokens, _ in alone.run([Request(asked[p][1], 10, STOP) for p in mine])}
        assert said == {place: found[place] for place in mine}
    assert len({tuple(found[place]) for place in range(len(CONFIGS) + 1)}) > 2  # they do say different things


def test_rows_are_scored_through_the_adapter_that_is_named(folders: dict[str, Path]) -> None:
    laid = bank(folders)
    rows = [Example(prompt, (0.0, *[1.0] * (len(prompt) - 1))) for prompt in PROMPTS]
    for name in (BASE, *CONFIGS):
        expected = engine(plain(folders.get(name))).score(rows)
        assert engine(laid.network, laid).score(rows, name) == pytest.approx(expected, abs=1e-4)


def test_what_is_removed_leaves_the_others_and_the_base_as_they_were(folders: dict[str, Path]) -> None:
    laid, rows = bank(folders), [Example(PROMPTS[4], (0.0, *[1.0] * 11))]
    made = engine(laid.network, laid)
    before = {name: made.score(rows, name) for name in (BASE, *CONFIGS)}
    laid.remove("small")
    assert laid.names == ("large", "stable", "head")
    for name in (BASE, *laid.names):
        assert made.score(rows, name) == before[name]
    laid.add("small", folders["small"], IDENTITY)
    assert made.score(rows, "small") == before["small"]
    for name in laid.names:
        laid.remove(name)
    assert made.score(rows) == before[BASE]


@pytest.mark.parametrize(
    ("config", "fits"),
    [
        (CONFIGS["large"], True),
        (LoraConfig(r=2, use_dora=True, target_modules=["q_proj"]), False),
        (LoraConfig(r=2, modules_to_save=["lm_head"], target_modules=["q_proj"]), False),
        (LoraConfig(r=2, bias="all", target_modules=["q_proj"]), False),
    ],
)
def test_only_what_adds_up_is_laid_beside_others(config: LoraConfig, fits: bool, tmp_path: Path) -> None:
    wrapped(config).save_pretrained(str(tmp_path))
    assert bankable(tmp_path) == fits
