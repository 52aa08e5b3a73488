"""A head that tells labels apart, on a decoder and on an encoder: trains, resumes bit for bit, saves, scores, talks."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertTokenizerFast,
    DistilBertConfig,
    DistilBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from metier import experiment
from metier.data.classes import HeadRenderer
from metier.data.items import Item, Message
from metier.errors import MetierError, ModelError, RecipeError
from metier.inference.conversation import Conversation
from metier.inference.loaded import open_run
from metier.recipe import SAMPLES, Recipe
from metier.run import Run
from metier.training.loop import Stopped
from tests.unit import tiny

WORDS = ["good", "bad", "fine", "card", "my", "was", "swallowed", "really", *map(str, range(10))]
FAMILIES: dict[str, tuple[Any, Any]] = {
    "bert": (BertConfig, BertForMaskedLM),  # a checkpoint without a pooler
    "roberta": (RobertaConfig, RobertaForMaskedLM),
    "distilbert": (DistilBertConfig, DistilBertForMaskedLM),
}


def encoder(directory: Path, family: str = "bert") -> Path:
    """A random two-layer encoder with a WordPiece tokenizer that puts [CLS] and [SEP] around a text."""
    vocabulary = {piece: number for number, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    raw = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer()  # type: ignore[assignment]
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    raw.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    BertTokenizerFast(tokenizer_object=raw, model_max_length=60).save_pretrained(directory)
    configuration, network = FAMILIES[family]
    sizes: dict[str, Any] = {"vocab_size": len(vocabulary), "max_position_embeddings": 64, "pad_token_id": 0}
    sizes["initializer_range"] = 0.3  # at the usual scale all sentences look alike
    if family == "distilbert":
        sizes |= {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
    else:
        sizes |= {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    torch.manual_seed(0)
    network(configuration(**sizes)).save_pretrained(directory)
    return directory


BASES: dict[str, Callable[[Path], Path]] = {
    "decoder": tiny.save,
    **{family: (lambda directory, family=family: encoder(directory, family)) for family in FAMILIES},
}


def recipe(tmp_path: Path, base: str, **changes: Any) -> Recipe:
    """Sentences whose label one word tells, in a folder of their own."""
    model = BASES[base](tmp_path / "base")
    rows = [
        {"text": f"my card {number % 10} {number // 10} was {'good' if number % 2 else 'bad'}", "label": number % 2}
        for number in range(80)
    ]
    (tmp_path / "moods.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    domain = {"name": "moods", "data": "moods.jsonl", "prompt": "{text}", "answer": "{label}", "heldout": 0.25}
    values: dict[str, Any] = {
        "model": str(model),
        "domain": [{**domain, "label_map": {"0": "bad", "1": "good"}}],
        "strategy": {"method": "full", "objective": "classify"},
        "train": {"num_train_epochs": 4, "batch_size": 8, "learning_rate": 5e-3, "max_length": 60},
        **changes,
    }
    return Recipe.of(values, tmp_path / "recipe.toml")


STRATEGIES = [
    ("decoder", {"method": "head"}),
    ("decoder", {"method": "full", "objective": "classify"}),
    ("decoder", {"method": "last-n", "layers": 1, "objective": "classify"}),
    ("decoder", {"method": "lora", "objective": "classify"}),
    ("decoder", {"method": "ia3", "objective": "classify"}),
    ("bert", {"method": "head"}),
    ("bert", {"method": "full", "objective": "classify"}),
    ("bert", {"method": "last-n", "layers": 1, "objective": "classify"}),
    ("bert", {"method": "lora", "objective": "classify"}),
    ("roberta", {"method": "head"}),
    ("roberta", {"method": "lora", "objective": "classify"}),
    ("distilbert", {"method": "head"}),
    ("distilbert", {"method": "full", "objective": "classify"}),
]


OFTEN = STRATEGIES[5:6]  # by default; the others are slow together


@pytest.mark.long
@pytest.mark.parametrize(
    ("base", "strategy"),
    [pytest.param(*each, marks=() if each in OFTEN else pytest.mark.slow) for each in STRATEGIES],
)
def test_a_head_trains_resumes_saves_and_scores(tmp_path: Path, base: str, strategy: dict[str, Any]) -> None:
    asked = recipe(tmp_path, base, strategy=strategy)
    overrides = {"compute": "float32", "checkpoint_every": 2}
    run = experiment.train(asked, overrides=overrides)
    whole = (run.adapter / "adapter_model.safetensors").read_bytes()
    answers = run.answers()
    assert {each["kind"] for each in answers} == {"label"}, "nothing was read that only a language model could"
    assert {*run.scores()["against"]} == ({"none", "classical"} if base == "decoder" else {"classical"})
    assert run.scores()["forgetting"] is None
    assert "forgetting: not measured, because a head that classifies" in "\n".join(map(str, run.parts()))
    assert "Not measured: a head that classifies" in run.report.read_text()
    losses = [event["values"]["loss"] for event in run.events() if event["phase"] == "train"]
    assert sum(losses[-3:]) < 0.97 * sum(losses[:3])
    assert_same_answers(run, answers)

    shutil.rmtree(run.directory)
    with pytest.raises(Stopped):
        experiment.train(asked, overrides=overrides, stop=stopping(after=5))
    again = experiment.train(asked, overrides=overrides)
    assert again.directory == run.directory
    assert (again.adapter / "adapter_model.safetensors").read_bytes() == whole
    assert again.answers() == answers


def stopping(after: int) -> Callable[[], bool]:
    """Asks to stop behind so many training steps; only the loop asks once a step."""
    steps = [0]

    def stop() -> bool:
        steps[0] += any(frame.function == "train" and "loop" in frame.filename for frame in inspect.stack()[1:3])
        return steps[0] >= after

    return stop


def assert_same_answers(run: Run, answers: list[dict[str, Any]]) -> None:
    """What is loaded from the run's folder says what was measured."""
    loaded = open_run(run)
    renderer = loaded.renderer
    assert isinstance(renderer, HeadRenderer)
    for each in answers[:5]:
        labels = tuple(each["labels"])
        item = Item("", "moods", "", "", 0, (Message("user", each["prompt"]),), labels, kind="label")
        scores = loaded.engine().score(renderer.label_rows(item))
        assert scores == pytest.approx(each["label_logprobs"], abs=1e-5)


@pytest.mark.long
def test_chat_tells_the_labels_of_what_is_typed(tmp_path: Path) -> None:
    run = experiment.train(recipe(tmp_path, "bert"), overrides={"compute": "float32"})
    conversation = Conversation(run)
    (said,) = conversation.reply(conversation.questions.item("my card 3 4 was good", "moods"))
    shares = {part.split()[0]: float(part.split()[1]) for part in said.split(", ")}
    assert {*shares} == {"good", "bad"}
    assert sum(shares.values()) == pytest.approx(1, abs=0.011)
    with pytest.raises(MetierError, match="no head"):
        list(conversation.reply(conversation.questions.item("good", "moods"), base=True))

    weights = tmp_path / "base" / "config.json"
    weights.write_text(weights.read_text().replace('"architectures"', '"other"'))
    with pytest.raises(ModelError, match="another base"):
        open_run(run)


@pytest.mark.slow
def test_heldout_answers_change_nothing(tmp_path: Path) -> None:
    asked = recipe(tmp_path, "decoder", strategy={"method": "head"})
    run = experiment.train(asked, overrides={"compute": "float32"})
    places = {int(each["place"].rpartition(":")[2]) for each in run.answers()}
    before = (run.adapter / "adapter_model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "runs")
    lines = [json.loads(line) for line in (tmp_path / "moods.jsonl").read_text().splitlines()]
    for place in places:
        lines[place - 1]["label"] = 1 - lines[place - 1]["label"]
    (tmp_path / "moods.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    again = experiment.train(asked, overrides={"compute": "float32"})
    assert (again.adapter / "adapter_model.safetensors").read_bytes() == before
    assert {each["reference"] for each in again.answers()} == {"good", "bad"}


@pytest.mark.parametrize("objective", ["sft", "auto"])
def test_an_encoder_is_refused_for_anything_else(tmp_path: Path, objective: str) -> None:
    with pytest.raises(ModelError, match="no causal language model") as caught:
        experiment.check(recipe(tmp_path, "distilbert", strategy={"method": "lora", "objective": objective}))
    assert "classify" in caught.value.hint


def test_open_answers_are_no_classes(tmp_path: Path) -> None:
    asked = recipe(tmp_path, "decoder", strategy={"method": "head"})
    domain = {"name": "moods", "data": "moods.jsonl", "prompt": "{text}", "answer": "It was {label}.", "heldout": 0.25}
    with pytest.raises(RecipeError, match="domain moods holds answers"):
        experiment.check(Recipe.of({**asked.values(), "domain": [domain]}, asked.path))


@pytest.mark.slow
def test_a_head_on_nano_beats_its_zero_shot_labels(tmp_path: Path, shared: Path) -> None:
    given = Recipe.load(SAMPLES.parent / "recipes" / "fpb.toml", {"data_root": str(shared / "data")})
    asked = Recipe.of({**given.values(), "strategy": {"method": "head"}}, tmp_path / "recipe.toml")
    (domain,) = experiment.train(asked, offline=True).scores()["against"]["none"]["domains"]
    accuracy = next(each for each in domain["differences"] if each["metric"] == "accuracy")
    assert accuracy["verdict"] == "better"
    assert accuracy["p"] < 0.05
