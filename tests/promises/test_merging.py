"""Merged adapters are what their kind of merging says, and are measured as any foreign adapter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from metier.artifacts.merging import Merge, merge_adapters
from metier.errors import RecipeError
from metier.experiment import train
from metier.recipe import Recipe
from tests.unit import tiny

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # PEFT's own
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
]
TARGETS = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]


def plain(home: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(home / "base", dtype=torch.float32)


def write(home: Path, name: str, config: PeftConfig) -> None:
    """An adapter that has moved, as PEFT saves it."""
    adapted = get_peft_model(plain(home), config)
    torch.manual_seed(sum(name.encode()))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.copy_(torch.randn_like(parameter) * 0.2)
    adapted.save_pretrained(home / name)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    tiny.save(home / "base")
    write(home, "one", LoraConfig(r=2, lora_alpha=6, target_modules=TARGETS))
    write(home, "two", LoraConfig(r=2, lora_alpha=2, target_modules=TARGETS))
    write(home, "three", LoraConfig(r=3, lora_alpha=3, target_modules=TARGETS, use_rslora=True))
    write(home, "patterned", LoraConfig(r=2, target_modules=TARGETS, rank_pattern={"o_proj": 3}))
    write(home, "few", LoraConfig(r=2, target_modules=TARGETS[:2]))
    write(home, "dora", LoraConfig(r=2, target_modules=TARGETS, use_dora=True))
    write(home, "other", IA3Config(target_modules=["o_proj"], feedforward_modules=[]))
    return home


def deltas(home: Path, adapter: Path) -> dict[str, Tensor]:
    """What an adapter adds to each weight, by plain PEFT."""
    before = plain(home).state_dict()
    after = PeftModel.from_pretrained(plain(home), str(adapter)).merge_and_unload().state_dict()
    return {name: after[name] - before[name] for name in before if not torch.equal(after[name], before[name])}


def merged(home: Path, to: Path, kind: Merge, *names: str, **how: Any) -> Path:
    return merge_adapters([home / name for name in names], plain(home), kind, to, **how)


@pytest.mark.parametrize("weights", [None, (2.0, -0.5, 0.25)])
@pytest.mark.parametrize("first", ["one", "three"])  # whose configuration PEFT takes over, scaling included
def test_concatenated_adapters_add_the_weighted_sum_of_what_each_adds(
    home: Path, tmp_path: Path, weights: tuple[float, ...] | None, first: str
) -> None:
    names = [first, *({"one", "three"} - {first}), "patterned"]
    found = deltas(home, merged(home, tmp_path / "merged", "cat", *names, weights=weights))
    each = [deltas(home, home / name) for name in names]
    assert found.keys() == each[0].keys()
    for layer, delta in found.items():
        wanted = sum(w * own[layer] for w, own in zip(weights or [1 / 3] * 3, each, strict=True))
        torch.testing.assert_close(delta, wanted, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", ["linear", "cat"])
@pytest.mark.parametrize("name", ["one", "three"])
def test_one_adapter_alone_is_itself(home: Path, tmp_path: Path, kind: Merge, name: str) -> None:
    found, wanted = deltas(home, merged(home, tmp_path / "merged", kind, name)), deltas(home, home / name)
    for layer, delta in wanted.items():
        torch.testing.assert_close(found[layer], delta, atol=2e-6, rtol=1e-4)


def test_ties_of_everything_kept_from_equal_adapters_is_one_of_them(home: Path, tmp_path: Path) -> None:
    found = deltas(home, merged(home, tmp_path / "merged", "ties", "one", "one", density=1.0))
    half = deltas(home, merged(home, tmp_path / "half", "ties", "one", "one", density=0.5))
    wanted = deltas(home, home / "one")
    for layer, delta in wanted.items():
        torch.testing.assert_close(found[layer], delta, atol=2e-6, rtol=1e-4)
        assert not torch.allclose(half[layer], delta, atol=1e-3)


def test_equal_adapters_added_linearly_are_as_many_times_as_strong(home: Path, tmp_path: Path) -> None:
    found, wanted = deltas(home, merged(home, tmp_path / "merged", "linear", "one", "one")), deltas(home, home / "one")
    for layer, delta in wanted.items():
        torch.testing.assert_close(found[layer], 2 * delta, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", ["linear", "ties", "cat"])
def test_the_same_merge_is_the_same_bytes_and_leaves_base_and_chance_alone(
    home: Path, tmp_path: Path, kind: Merge
) -> None:
    network = plain(home)
    before, chance = {name: each.clone() for name, each in network.state_dict().items()}, torch.get_rng_state()
    paths = [merge_adapters([home / "one", home / "two"], network, kind, tmp_path / name) for name in ("a", "b")]
    assert [*map(contents, paths)] == [contents(paths[0])] * 2
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), chance)
    assert contents(merged(home, tmp_path / "c", kind, "one", "two", weights=(0.9, 0.1))) != contents(paths[0])


def contents(directory: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(directory.iterdir())]


def test_ranks_add_up_only_where_they_are_concatenated(home: Path, tmp_path: Path) -> None:
    path = merged(home, tmp_path / "merged", "cat", "one", "three")
    assert json.loads((path / "adapter_config.json").read_text())["r"] == 5
    ranks = {each.shape[0] for name, each in load_file(path / "adapter_model.safetensors").items() if "lora_A" in name}
    assert ranks == {5}


@pytest.mark.parametrize(
    ("names", "kind", "how", "said"),
    [
        (["one", "three"], "linear", {}, 'three: has rank 3, but .*one has 2; linear needs equal ranks; choose "cat"'),
        (["one", "few"], "cat", {}, "few: has another target_modules than"),
        (["one", "dora"], "cat", {}, "dora: has use_dora = True, which cannot be added up"),
        (["one", "patterned"], "ties", {}, "patterned: has rank_pattern"),
        (["one", "other"], "cat", {}, "other: is an adapter of ia3"),
        (["one", "base"], "cat", {}, "base: holds no adapter"),
        (["one", "two"], "cat", {"weights": [1.0]}, "weights: are 1 for 2 adapters"),
        (["one", "two"], "ties", {"density": 0.0}, "density: is 0"),
        (["one", "two"], "sum", {}, "sum: is no way of merging"),
        ([], "cat", {}, "there is no adapter"),
    ],
)
def test_what_cannot_be_merged_is_said_before_a_weight_is_read(
    home: Path, tmp_path: Path, names: list[str], kind: Any, how: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        merge_adapters([home / name for name in names], torch.nn.Linear(1, 1), kind, tmp_path / "merged", **how)
    assert not (tmp_path / "merged").exists()


@pytest.mark.slow
def test_experts_of_ours_are_merged_and_measured_as_a_foreign_adapter(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "base", tmp_path / "base")
    domains = ""
    for name, labels in (("mood", ("up", "down")), ("taste", ("sweet", "sour"))):
        rows = [f"{name} {number} is it,{labels[number % 3 == 0]}" for number in range(40)]
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
        domains += f'[[domain]]\nname = "{name}"\ndata = "{name}.csv"\nprompt = "{{text}}"\nanswer = "{{label}}"\n'
        domains += f"labels = {json.dumps(labels)}\n"
    (tmp_path / "general.csv").write_text("text\nthe lazy dog\n")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'model = "base"\n{domains}[train]\nnum_train_epochs = 1\n[eval]\ngeneral_text = "general.csv"\n')
    experts = [train(Recipe.load(recipe, {f"domain.{name}.trained": False})) for name in ("mood", "taste")]
    merge_adapters([run.adapter for run in experts], plain(tmp_path), "cat", tmp_path / "merged")
    run = train(Recipe.load(recipe, {"strategy": {"method": "adapter", "adapter": "merged"}}))
    assert set(run.scores()["against"]) == {"none", "classical"}
    assert {row["domain"] for row in run.answers() if row["kind"] == "label"} == {"mood", "taste"}
    assert all(not row.get("failed") for row in run.answers())
    identity = json.loads((shutil.copytree(experts[0].adapter, tmp_path / "elsewhere") / "identity.json").read_text())
    (tmp_path / "elsewhere" / "identity.json").write_text(json.dumps({**identity, "base_digest": "another"}))
    with pytest.raises(RecipeError, match="was made for another base"):
        merge_adapters([experts[1].adapter, tmp_path / "elsewhere"], plain(tmp_path), "cat", tmp_path / "again")
