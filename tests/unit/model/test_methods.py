from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from pydantic import TypeAdapter
from transformers import AutoModelForCausalLM

from metier.errors import RecipeError
from metier.files import write_directory
from metier.model.adapters import Identity, attach, restore, save, state, trainable
from metier.model.loading import NumberFormat, load, read_config
from metier.model.methods import check_keys
from metier.model.trials import count, tried
from metier.strategies import Full, LastN, Lora, LoraStrategy, PeftStrategy, Strategy, Tuned
from tests.unit import tiny


def faults(method: str, **keys: Any) -> dict[str, str]:
    with pytest.raises(RecipeError) as caught:
        check_keys(PeftStrategy(method=method, peft=keys))
    return {fault.place: f"{fault.problem}; {fault.fix}" for fault in caught.value.faults}


def test_every_key_that_peft_does_not_know_is_a_fault_at_once() -> None:
    found = faults("ia3", target_module="all-linear", init_ia3_weights="no", task_type="SEQ_CLS")
    assert set(found) == {f"strategy.peft.{key}" for key in ("target_module", "init_ia3_weights", "task_type")}
    assert "did you mean `target_modules`?" in found["strategy.peft.target_module"]
    assert "is 'no'; it should be a valid boolean" in found["strategy.peft.init_ia3_weights"]
    assert "is what strategy.objective says" in found["strategy.peft.task_type"]


@pytest.mark.parametrize(
    ("method", "keys"),
    [
        ("vera", {"r": 8, "vera_dropout": 0.1, "target_modules": ("q_proj", "v_proj")}),
        ("prompt_tuning", {"num_virtual_tokens": 4, "prompt_tuning_init": "RANDOM"}),
        ("waveft", {"n_frequency_pattern": {"q_proj": 8}}),
        ("oft", {"oft_block_size": 8, "r": 0, "bias": "none"}),
    ],
)
def test_what_peft_takes_is_taken(method: str, keys: dict[str, Any]) -> None:
    check_keys(PeftStrategy(method=method, peft=keys))


def test_what_only_the_base_tells_is_a_fault_with_pefts_words(tmp_path: Path) -> None:
    config = read_config(tiny.save(tmp_path, "llama"))
    with pytest.raises(RecipeError, match=r"strategy\.peft: c3a: The block size should be a factor of the input size"):
        count(config, PeftStrategy(method="c3a", peft={"block_size": 24}))
    with pytest.raises(RecipeError, match=r"strategy\.layers: is 3; the base has 2 blocks; choose 1 to 2"):
        count(config, LastN(method="last-n", layers=3))


@pytest.mark.parametrize("method", ["boft", "unilora", "vera", "ia3", "prompt_tuning"])
def test_what_is_counted_without_weights_is_what_is_trained(tmp_path: Path, method: str) -> None:
    """Some methods look at numbers while they are put on: they are counted on one and two real blocks."""
    directory = tiny.save(tmp_path, "llama", num_hidden_layers=3)
    strategy = PeftStrategy(method=method, peft={"num_virtual_tokens": 4} if "prompt" in method else {})
    network = load(directory, NumberFormat("float32", "float32"), "cpu").network
    adapted, kinds = attach(network, strategy, seed=0)
    assert sum(kind.parameters for kind in kinds) == sum(each.numel() for each in trainable(adapted).values()) > 0
    assert count(read_config(directory), strategy) == kinds


@pytest.mark.parametrize("tied", [False, True])
def test_full_moves_everything_and_the_last_blocks_what_they_say(tmp_path: Path, tied: bool) -> None:
    directory = tiny.save(tmp_path, "llama", tie_word_embeddings=tied)
    base = load(directory, NumberFormat("float32", "float32"), "cpu").network
    everything = sum(each.numel() for each in base.parameters())
    config, full = read_config(directory), Full(method="full")
    assert sum(kind.parameters for kind in count(config, full)) == everything
    last = {kind.name: kind.adapted for kind in count(config, LastN(method="last-n", layers=1)) if kind.parameters}
    assert last == {
        **dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), 1),
        **dict.fromkeys(("input_layernorm", "post_attention_layernorm", "norm"), 1),
        **({} if tied else {"lm_head": 1}),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tied", [False, True])
def test_peft_itself_loads_all_weights_and_merges_them(tmp_path: Path, tied: bool) -> None:
    directory = tiny.save(tmp_path / "base", "llama", tie_word_embeddings=tied)
    network = load(directory, NumberFormat("float32", "float32"), "cpu", why_rows="plain").network
    adapted, _ = attach(network, Full(method="full"), seed=0)
    restore(adapted, {name: each + 0.1 for name, each in state(adapted).items()})
    identity = Identity("tiny", "b" * 64, "t" * 64, "c" * 64)
    write_directory(tmp_path / "adapter", lambda to: save(adapted, identity, tiny.TEMPLATE, to))
    plain = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    tokens = torch.tensor([[7, 8, 9, 10]])
    before = plain(input_ids=tokens).logits
    merged = PeftModel.from_pretrained(plain, tmp_path / "adapter").merge_and_unload()
    assert torch.allclose(merged(input_ids=tokens).logits, adapted.eval()(input_ids=tokens).logits, atol=1e-5)
    assert not torch.allclose(merged(input_ids=tokens).logits, before, atol=1e-2)


def test_a_trial_finds_what_mixes_tokens_and_what_cannot_be_a_tree(tmp_path: Path) -> None:
    config = read_config(tiny.save(tmp_path, "llama"))
    with pytest.raises(RecipeError, match=r"strategy\.method: lily: lets a token see those that follow"):
        tried(config, PeftStrategy(method="lily"))
    prefix = tried(config, PeftStrategy(method="prefix_tuning", peft={"num_virtual_tokens": 4}))
    assert prefix.why_rows.startswith("prefix_tuning: fails as a tree")
    assert prefix.why_kept.startswith("prefix_tuning: ")
    prompt = tried(config, PeftStrategy(method="prompt_tuning", peft={"num_virtual_tokens": 4}))
    assert "Ignoring position ids" in prompt.why_rows
    assert not prompt.why_kept
    assert tried(config, PeftStrategy(method="ia3")) == tried(config, tiny.lora())


def test_a_trial_draws_from_no_other_stream(tmp_path: Path) -> None:
    config = read_config(tiny.save(tmp_path, "llama"))
    before, then = torch.get_rng_state(), config.to_dict()
    tried(config, PeftStrategy(method="ia3"))
    assert torch.equal(torch.get_rng_state(), before)
    assert config.to_dict() == then


SOME = {"target_modules": ["q_proj", "o_proj"], "layers_to_transform": [2, 4]}


@pytest.mark.long
@pytest.mark.parametrize(
    ("method", "keys"),
    [
        ("loha", SOME),
        ("loha", {"target_modules": ["layers.3.self_attn.q_proj", "layers.4.mlp.up_proj"], "r": 2}),
        ("loha", {"target_modules": r".*layers\.(4|5)\.self_attn\.q_proj"}),
        ("loha", {"target_modules": ["q_proj"], "rank_pattern": {"layers.4.self_attn.q_proj": 3}}),
        ("boft", SOME),
        ("boft", {"target_modules": ["q_proj", "o_proj"], "exclude_modules": ["layers.5.self_attn.q_proj"]}),
        ("unilora", SOME),
        ("ln_tuning", {"target_modules": ["layers.4.input_layernorm"]}),
    ],
)
def test_a_strategy_for_some_blocks_is_tried_and_counted(tmp_path: Path, method: str, keys: dict[str, Any]) -> None:
    """The twin has two blocks, and the strategy names later ones."""
    directory = tiny.save(tmp_path, "llama", num_hidden_layers=6)
    strategy, config = PeftStrategy(method=method, peft=keys), read_config(directory)
    assert tried(config, strategy) == tried(config, tiny.lora())
    adapted, kinds = attach(load(directory, NumberFormat("float32", "float32"), "cpu").network, strategy, seed=0)
    assert sum(kind.parameters for kind in kinds) == sum(each.numel() for each in trainable(adapted).values()) > 0
    assert count(config, strategy) == kinds


@pytest.mark.parametrize(("method", "more"), [("lora", {"lora_alpha": 4.0}), ("loha", {})])
def test_numbers_of_blocks_go_with_all_linear(tmp_path: Path, method: str, more: dict[str, Any]) -> None:
    config = read_config(tiny.save(tmp_path, "llama", num_hidden_layers=6))
    made = TypeAdapter[Tuned](Strategy).validate_python(
        {"method": method, "peft": {**more, "r": 2, "target_modules": "all-linear", "layers_to_transform": (2, 4)}}
    )
    tried(config, made)
    kinds = {kind.name: kind.adapted for kind in count(config, made) if kind.adapted}
    assert kinds == dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), 2)


def test_lora_takes_patterns_and_says_what_is_no_block(tmp_path: Path) -> None:
    config = read_config(tiny.save(tmp_path, "llama", num_hidden_layers=6))

    def lora(**keys: Any) -> LoraStrategy:
        return LoraStrategy(method="lora", peft=Lora(r=2, lora_alpha=4.0, **keys))

    plain = {kind.name: kind.parameters for kind in count(config, lora())}
    other = lora(rank_pattern={"q_proj": 4}, exclude_modules=("k_proj",), alpha_pattern={"q_proj": 8.0})
    found = {kind.name: kind.parameters for kind in count(config, other)}
    assert (found["q_proj"], found["k_proj"], found["v_proj"]) == (2 * plain["q_proj"], 0, plain["v_proj"])
    with pytest.raises(RecipeError, match="layers_to_transform: names block 6; the base has the blocks 0 to 5"):
        tried(config, lora(layers_to_transform=(1, 6)))


def test_soft_prompts_are_asked_for_their_length() -> None:
    with pytest.raises(RecipeError, match=r"num_virtual_tokens: is missing; say how many"):
        check_keys(PeftStrategy(method="prompt_tuning"))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {**SOME, "layers_to_transform": [1, 6]},
            r"layers_to_transform: names block 6; the base has the blocks 0 to 5",
        ),
        ({**SOME, "layers_to_transform": 17}, "layers_to_transform: names block 17"),
        ({"rank_pattern": {"layers.17.self_attn.q_proj": 4}}, "rank_pattern: layers.17.self_attn.q_proj is no module"),
        ({"target_modules": ["q_proj", "layers.6.mlp.up_proj"]}, "target_modules: layers.6.mlp.up_proj is no module"),
        ({"exclude_modules": ["layers.6.mlp.up_proj"]}, "exclude_modules: layers.6.mlp.up_proj is no module"),
    ],
)
def test_a_block_that_is_not_there_is_a_fault(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    config = read_config(tiny.save(tmp_path, "llama", num_hidden_layers=6))
    with pytest.raises(RecipeError, match=rf"strategy\.peft\.{said}"):
        tried(config, PeftStrategy(method="loha", peft=keys))
