"""An adapter that PEFT wrote elsewhere is measured like one of our own."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from metier.errors import ModelError, RecipeError
from metier.experiment import evaluate, plan, train
from metier.inference.conversation import Conversation
from metier.recipe import Recipe
from tests.unit import tiny

_RECIPE = """
model = "base"
[[domain]]
name = "mood"
data = "x.csv"
prompt = "{text}"
answer = "{label}"
labels = ["up", "down"]
[strategy]
method = "adapter"
adapter = "theirs"
[eval]
general_text = "general.csv"
general_choices = ""
"""


pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's own


def plain(home: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(home / "base", attn_implementation="eager")


def write(home: Path, name: str, config: PeftConfig) -> None:
    """An adapter that has moved, as PEFT saves it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = get_peft_model(plain(home), config)
        torch.manual_seed(3)
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.data.add_(torch.randn_like(parameter) * 0.3)
        adapted.save_pretrained(home / name)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    tiny.save(home / "base")
    rows = [f"share {number} goes,{('up', 'down')[number % 3 == 0]}" for number in range(40)]
    (home / "x.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    (home / "general.csv").write_text("text\nthe lazy dog\n")
    (home / "recipe.toml").write_text(_RECIPE)
    write(home, "theirs", LoraConfig(r=2, target_modules="all-linear"))
    write(home, "other", IA3Config(target_modules=["o_proj"], feedforward_modules=[]))
    return home


def recipe(home: Path, adapter: str = "theirs") -> Recipe:
    return Recipe.load(home / "recipe.toml", {"strategy.adapter": adapter})


@pytest.mark.parametrize("adapter", ["theirs", pytest.param("other", marks=pytest.mark.slow)])
def test_it_is_measured_beside_base_and_baseline(home: Path, adapter: str) -> None:
    run = train(recipe(home, adapter), overrides={"compute": "float32"})
    assert set(run.scores()["against"]) == {"none", "classical"}
    assert run.scores()["forgetting"]["value"] != 0
    conversation = Conversation(run)
    theirs = PeftModel.from_pretrained(plain(home), str(home / adapter)).eval()
    for row in [row for row in run.answers() if row["kind"] == "label"][:4]:
        prompt = conversation.renderer.prompt_ids(conversation.questions.item(row["prompt"], row["domain"]).asked)
        for label, logprob in zip(row["labels"], row["label_logprobs"], strict=True):
            said = conversation.renderer.encode(label)
            with torch.no_grad():
                logits = theirs(input_ids=torch.tensor([[*prompt, *said]])).logits[0, len(prompt) - 1 : -1]
            alone = logits.log_softmax(-1).gather(-1, torch.tensor(said)[:, None]).sum()
            assert logprob == pytest.approx(alone.item(), abs=1e-3)
    assert evaluate(recipe(home, adapter)).facts["method"] == "adapter"


def test_its_weights_are_in_the_forecast(home: Path) -> None:
    numbers = sum(each.numel() for each in load_file(home / "theirs" / "adapter_model.safetensors").values())
    assert plan(recipe(home), offline=True).memory["frozen adapter"] == 4 * numbers


def test_it_is_found_by_its_bytes(home: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(home, tmp_path / "copy"))
    first = train(recipe(copy))
    weights = load_file(copy / "theirs" / "adapter_model.safetensors")
    save_file({name: 2 * each for name, each in weights.items()}, copy / "theirs" / "adapter_model.safetensors")
    assert train(recipe(copy)).directory != first.directory


@pytest.mark.long
def test_what_does_not_belong_is_said(home: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(home, tmp_path / "copy"))
    (copy / "empty").mkdir()
    with pytest.raises(RecipeError, match=r"strategy\.adapter: .*has no adapter_config\.json"):
        train(recipe(copy, "empty"))
    shutil.rmtree(copy / "base")
    tiny.save(copy / "base", hidden_size=48)
    with pytest.raises(ModelError, match="does not go on this base"):
        train(recipe(copy))
    weights = load_file(copy / "other" / "adapter_model.safetensors")
    save_file({f"x{name}": each for name, each in weights.items()}, copy / "other" / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="belong to no layer"):
        train(recipe(copy, "other"))
