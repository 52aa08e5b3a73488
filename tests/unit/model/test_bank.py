from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.config import BdLoraConfig, KasaConfig, VeloraConfig
from torch import nn

from metier.errors import ModelError
from metier.files import read_json, write_directory, write_json
from metier.inference.engine import Capacity, Engine, Request
from metier.model.adapters import WEIGHTS, Identity, load, save
from metier.model.bank import BASE, Bank, bankable
from metier.model.forward import ATTENTION, Forward
from metier.model.packing import pack_weights
from metier.trees import Example
from tests.unit.inference.test_engine import PROMPTS, STOP, network

IDENTITY = Identity("base", "b", "t", "c")
CONFIGS = {
    "small": LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "v_proj"]),
    "large": LoraConfig(r=6, lora_alpha=6, target_modules="all-linear", rank_pattern={"down_proj": 3}),
    "stable": LoraConfig(r=4, lora_alpha=4, use_rslora=True, target_modules=["down_proj", "o_proj"]),
    "head": LoraConfig(r=3, lora_alpha=3, target_modules=["lm_head", "q_proj"]),
}


TWO: dict[str, Any] = {"r": 2, "target_modules": ["q_proj", "o_proj"]}


def wrapped(config: LoraConfig, attention: str = ATTENTION) -> PeftModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's own, of transformers 5
        made: PeftModel = get_peft_model(network("llama", attention), config)
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


def bank(folders: dict[str, Path], *, packed: bool = False) -> Bank:
    made = Bank(network("llama", ATTENTION))
    if packed:
        pack_weights(made.network)
    for name, folder in folders.items():
        made.add(name, folder, IDENTITY)
    return made


def plain(folder: Path | None) -> nn.Module:
    """The adapter as PEFT runs it, or the bare base."""
    made = network("llama", ATTENTION)
    return load(made, folder, IDENTITY) if folder else made


def engine(over: nn.Module, laid: Bank | None = None, remember: int = 0) -> Engine:
    return Engine(Forward(over, forks=True), Capacity(64, 8, remember), boundary=None, bank=laid)


@pytest.mark.parametrize("packed", [False, True])
def test_everybody_in_a_batch_answers_as_if_alone(folders: dict[str, Path], packed: bool) -> None:
    laid = bank(folders, packed=packed)
    asked = [(name, prompt) for prompt in PROMPTS for name in (BASE, *CONFIGS)]
    requests = [Request(prompt, 10, STOP, adapter=name) for name, prompt in asked]
    found = {place: tokens for place, tokens, _ in engine(laid.network, laid).run(requests)}
    for name in (BASE, *CONFIGS):
        alone = engine(plain(folders.get(name)))
        mine = [place for place, (other, _) in enumerate(asked) if other == name]
        said = {mine[place]: tokens for place, tokens, _ in alone.run([Request(asked[p][1], 10, STOP) for p in mine])}
        assert said == {place: found[place] for place in mine}
    assert len({tuple(found[place]) for place in range(len(CONFIGS) + 1)}) > 2  # they do say different things


def test_who_overflows_leaves_nothing_to_who_takes_the_place(folders: dict[str, Path], tmp_path: Path) -> None:
    """The weights are finite numbers, what becomes of them is not: 0 times it would be none either."""
    wild = wrapped(CONFIGS["large"])
    for key, parameter in sorted(wild.named_parameters()):
        if "lora_" in key:
            torch.nn.init.normal_(parameter, std=1e10, generator=torch.Generator().manual_seed(5))
    write_directory(tmp_path / "wild", lambda place: save(wild, IDENTITY, "", place))
    laid = bank({"small": folders["small"], "wild": tmp_path / "wild"})
    names = ("wild", "small", BASE)
    for order in (names, names[1:] + names[:1], names[::-1]):
        made = engine(laid.network, laid)
        found = {place: said for place, said, _ in made.run([Request(PROMPTS[4], 10, STOP, adapter=n) for n in order])}
        for place, name in enumerate(order):
            ((_, alone, _),) = engine(laid.network, laid).run([Request(PROMPTS[4], 10, STOP, adapter=name)])
            assert name == "wild" or found[place] == alone


@pytest.mark.parametrize("packed", [False, True])
def test_rows_are_scored_through_the_adapter_that_is_named(folders: dict[str, Path], packed: bool) -> None:
    laid = bank(folders, packed=packed)
    rows = [Example(prompt, (0.0, *[1.0] * (len(prompt) - 1))) for prompt in PROMPTS]
    for name in (BASE, *CONFIGS):
        expected = engine(plain(folders.get(name))).score(rows)
        assert engine(laid.network, laid).score(rows, name) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_removed_leaves_the_others_and_the_base_as_they_were(folders: dict[str, Path], packed: bool) -> None:
    laid, rows = bank(folders, packed=packed), [Example(PROMPTS[4], (0.0, *[1.0] * 11))]
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
        (LoraConfig(init_lora_weights="orthogonal", **TWO, exclude_modules=["v_proj"], layers_to_transform=[0]), True),
        (LoraConfig(use_dora=True, **TWO), False),
        (LoraConfig(modules_to_save=["lm_head"], **TWO), False),
        (LoraConfig(bias="all", **TWO), False),
        (LoraConfig(lora_bias=True, **TWO), False),
        (LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"]), False),
        (LoraConfig(layer_replication=[(0, 2), (1, 2)], **TWO), False),
        (LoraConfig(init_lora_weights="pissa", **TWO), False),
        (LoraConfig(init_lora_weights="olora", **TWO), False),
        (LoraConfig(init_lora_weights="mica", **TWO), False),
        (LoraConfig(velora_config=VeloraConfig(num_groups=4), **TWO), False),
        (LoraConfig(kasa_config=KasaConfig(), **TWO), False),
        (LoraConfig(use_bdlora=BdLoraConfig(target_modules_bd_a=["q_proj", "o_proj"], nblocks=2), **TWO), False),
    ],
)
def test_only_what_adds_up_is_laid_beside_others(config: LoraConfig, fits: bool, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's own, of embeddings
        wrapped(config).save_pretrained(str(tmp_path))
    assert bankable(tmp_path) == fits


@pytest.mark.parametrize(
    "more",
    [
        {"use_qalora": True},
        {"arrow_config": {"top_k": 2}},
        {"corda_config": {"corda_method": "kpm"}, "init_lora_weights": "corda"},
        {"init_lora_weights": "loftq"},
        {"megatron_config": {"tensor_model_parallel_size": 2}},
        {"monteclora_config": {"num_samples": 4}},
        {"target_parameters": ["experts.down_proj"]},
        {"trainable_token_indices": [3]},
        {"alora_invocation_tokens": [3]},
        {"peft_type": "ADALORA"},
        {"of_a_newer_peft": True},
    ],
    ids=str,
)
def test_what_peft_can_do_besides_stands_alone(folders: dict[str, Path], more: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(folders["small"], tmp_path, dirs_exist_ok=True)
    assert bankable(tmp_path)
    config = read_json(tmp_path / "adapter_config.json")
    write_json(tmp_path / "adapter_config.json", config | more)
    assert not bankable(tmp_path)


@pytest.mark.parametrize("name", [WEIGHTS, "adapter_config.json"])
@pytest.mark.parametrize("length", [0, 20, None])
def test_what_cannot_be_read_any_more_is_refused(
    folders: dict[str, Path], name: str, length: int | None, tmp_path: Path
) -> None:
    """Cut off, or longer than it was."""
    shutil.copytree(folders["small"], tmp_path, dirs_exist_ok=True)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:length] if length is not None else content + b"}")
    with pytest.raises(ModelError, match="is not what was tested"):
        bankable(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(ModelError, match="is not what was tested"):
        bankable(tmp_path)


def test_what_stands_beside_other_layers_is_refused_and_leaves_the_base_as_it_was(tmp_path: Path) -> None:
    """By its files it could not be told: the base has another kind of layer under the same name."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.MultiheadAttention(8, 2)

    def odd() -> PeftModel:
        torch.manual_seed(0)
        made: PeftModel = get_peft_model(Odd(), LoraConfig(r=2, target_modules=["inner"]))
        return made

    write_directory(tmp_path / "odd", lambda place: save(odd(), IDENTITY, "", place))
    laid = Bank(Odd())
    before = sorted(name for name, _ in laid.network.named_parameters())
    with pytest.raises(ModelError, match=r"odd: stands beside .*inner, a MultiheadAttention"):
        laid.add("odd", tmp_path / "odd", IDENTITY)
    assert laid.names == ()
    assert sorted(name for name, _ in laid.network.named_parameters()) == before


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"], init_lora_weights=False),
        LoraConfig(layer_replication=[(0, 2), (1, 2)], **TWO, init_lora_weights=False),
    ],
    ids=["embeddings", "blocks twice"],
)
def test_alone_it_answers_as_peft_has_it(config: LoraConfig) -> None:
    """Without anything kept between two tokens."""
    over, plainly = wrapped(config).eval(), wrapped(config, "eager").eval()
    plainly.load_state_dict(over.state_dict())
    for prompt in PROMPTS:
        expected = [*prompt]
        with torch.no_grad():
            for _ in range(6):
                expected.append(int(plainly(torch.tensor([expected])).logits[0, -1].argmax()))
        ((_, said, _),) = engine(over).run([Request(prompt, 6, frozenset())])
        assert [*prompt, *said] == expected


def test_an_adapter_that_is_no_number_does_not_lie_beside_others(tmp_path: Path) -> None:
    """0 times what is no number is none, and would be added to what another adapter says."""
    adapted, broken = wrapped(CONFIGS["small"]), tmp_path / "broken"
    first = next(each for name, each in adapted.named_parameters() if "lora_B" in name)
    first.data[0, 0] = float("nan")
    write_directory(broken, lambda place: save(adapted, IDENTITY, "", place))
    bank = Bank(network("llama", ATTENTION))
    with pytest.raises(ModelError, match="broken: has weights that are no finite numbers"):
        bank.add("broken", broken, IDENTITY)
    assert not bank.names
