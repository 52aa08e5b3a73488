"""metier behind lm-evaluation-harness gives what lm-eval's own `hf` backend gives, question by question."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, BloomConfig, BloomForCausalLM

from metier.evaluation.harness import register
from metier.evaluation.lm import MetierLM
from metier.hub import EMBEDDED
from metier.inference.engine import Request
from tests.unit import local_tasks, tiny
from tests.unit.local_tasks import SHAPES

NEAR = 1e-3  # nats; two predictions nearer than this are a tie


def both(
    model: Path, tasks: list[Path], through: LM | None = None, **arguments: Any
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(task, lm-eval's own result, ours) for every item."""
    register()
    common = {"pretrained": str(model), "dtype": "float32", "device": "cpu", **arguments}
    models = (HFLM(**common, batch_size=8), through or MetierLM.create_from_arg_obj(common))
    manager = TaskManager(include_defaults=False)
    results = []
    for model_ in models:
        loaded = manager.load([str(task) for task in tasks])
        for task in loaded["tasks"].values():
            task.set_fewshot_seed(1234)
        results.append(evaluate(model_, loaded, bootstrap_iters=0))
    for name in results[0]["samples"]:
        for theirs, ours in zip(*(each["samples"][name] for each in results), strict=True):
            yield name, theirs, ours


def assert_same(model: Path, tasks: list[Path], through: LM | None = None, **arguments: Any) -> dict[str, int]:
    """Equal log-likelihoods, greedy flags, predictions and texts; how many items of each task were compared."""
    seen: dict[str, int] = {}
    for name, theirs, ours in both(model, tasks, through, **arguments):
        seen[name] = seen.get(name, 0) + 1
        assert theirs["arguments"] == ours["arguments"]
        answers = theirs["filtered_resps"], ours["filtered_resps"]
        if isinstance(answers[0][0], str):
            assert answers[0] == answers[1]
            continue
        for one, two in zip(*answers, strict=True):
            (value, greedy), (our_value, our_greedy) = (
                each if isinstance(each, tuple) else (each, None) for each in (one, two)
            )
            assert our_value == pytest.approx(value, abs=NEAR, rel=0)
            assert our_greedy == greedy
        values = sorted((each[0] for each in answers[0] if isinstance(each, tuple)), reverse=True)
        if len(values) > 1 and values[0] - values[1] > NEAR:
            assert {metric: theirs[metric] for metric in theirs["metrics"]} == {
                metric: ours[metric] for metric in ours["metrics"]
            }
    return seen


@pytest.fixture
def tasks(tmp_path: Path) -> list[Path]:
    """One of every shape, a dozen items each."""
    return [local_tasks.write(tmp_path, shape, local_tasks.invented(shape)) for shape in local_tasks.SHAPES]


def with_bos(directory: Path) -> Path:
    """The model's tokenizer, putting a BOS in front of all text."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.bos_token = "<|system|>"
    pair = ("<|system|>", tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<|system|> $A", special_tokens=[pair])
    tokenizer.save_pretrained(directory)
    return directory


@pytest.mark.long
def test_every_shape_equals_the_hf_backend(tmp_path: Path, tasks: list[Path]) -> None:
    seen = assert_same(tiny.save(tmp_path / "model"), tasks)
    assert seen == {f"local_{shape}": 12 for shape in local_tasks.SHAPES}


@pytest.mark.long
@pytest.mark.parametrize("add_bos_token", [None, True, False])
def test_a_bos_stands_in_front_as_there(tmp_path: Path, tasks: list[Path], add_bos_token: bool | None) -> None:
    arguments = {} if add_bos_token is None else {"add_bos_token": add_bos_token}
    assert assert_same(with_bos(tiny.save(tmp_path / "model", family="llama")), tasks, **arguments)


@pytest.mark.parametrize("add_bos_token", [None, True])
def test_a_bos_that_the_text_brings_is_not_doubled(tmp_path: Path, add_bos_token: bool | None) -> None:
    rows = [{**row, "context": f"<|system|>{row['context']}"} for row in local_tasks.invented("lambada")]
    path = local_tasks.write(tmp_path, "lambada", rows)
    model = with_bos(tiny.save(tmp_path / "model", family="llama"))
    assert assert_same(model, [path], **({} if add_bos_token is None else {"add_bos_token": add_bos_token}))


def test_an_answer_ends_at_its_stop_text_as_there(tmp_path: Path) -> None:
    """The stop text is one that the model does write, in the middle of a token or across two."""
    model = tiny.save(tmp_path / "model")
    rows = local_tasks.invented("gsm8k")
    whole = local_tasks.write(tmp_path, "gsm8k", rows)
    written = [ours["filtered_resps"][0] for _, _, ours in both(model, [whole])]
    text = max(written, key=lambda each: sum(letter.isascii() for letter in each))
    stop = next(text[place : place + 2] for place in range(5, len(text) - 2) if text[place : place + 2].isascii())
    shorter = SHAPES["gsm8k"]["generation_kwargs"] | {"until": [stop]}
    path = local_tasks.write(tmp_path, "gsm8k", rows, task="local_stopped", generation_kwargs=shorter)
    assert assert_same(model, [path])
    stopped = [ours["filtered_resps"][0] for _, _, ours in both(model, [path])]
    assert stopped == [each.split(stop)[0] for each in written]
    assert stopped != written


def test_a_question_longer_than_the_context_loses_its_beginning_as_there(tmp_path: Path) -> None:
    """Of the model's last place too: the continuation's last token needs none."""
    shapes = ("arc", "lambada", "wikitext", "gsm8k")
    tasks = []
    for shape in shapes:
        rows = local_tasks.invented(shape)
        for number, row in enumerate(rows):
            row |= {"query": row["query"] + " and then" * number, "context": "x " * (28 + 2 * number)}
        tasks.append(local_tasks.write(tmp_path, shape, rows))
    model = tiny.save(tmp_path / "model", max_position_embeddings=48)
    assert sum(assert_same(model, tasks).values()) == 48
    assert assert_same(model, tasks[:2], max_length=40)


@pytest.mark.long
def test_a_model_that_cannot_fork_gives_the_same_by_rows(tmp_path: Path, tasks: list[Path]) -> None:
    made = tiny.tokenizer()
    made.save_pretrained(tmp_path / "model")
    config = BloomConfig(vocab_size=len(made), hidden_size=32, n_layer=2, n_head=4, eos_token_id=0, pad_token_id=5)
    BloomForCausalLM(config).save_pretrained(tmp_path / "model")
    lm = MetierLM.create_from_arg_obj({"pretrained": str(tmp_path / "model")})
    assert not lm._loaded.forward.forks
    assert assert_same(tmp_path / "model", tasks, max_length=512)


def test_greedy_is_told_token_by_token(tmp_path: Path) -> None:
    """Of a continuation that the model itself wrote, and of one that it leaves at the last token."""
    common = {"pretrained": str(tiny.save(tmp_path)), "dtype": "float32", "device": "cpu"}
    theirs, ours = HFLM(**common), MetierLM.create_from_arg_obj(common)
    context = ours.tok_encode("the quick brown fox")
    ((_, wrote, _),) = ours._loaded.engine().run([Request(tuple(context), 4, frozenset())])
    asked = [(("", ""), context, each) for each in (wrote, [*wrote[:-1], wrote[-1] - 1], wrote[:1], wrote[1:])]
    assert [greedy for _, greedy in ours._loglikelihood_tokens(asked)][:3] == [True, False, True]
    expected = [value for value, _ in theirs._loglikelihood_tokens(asked, disable_tqdm=True)]
    assert [value for value, _ in ours._loglikelihood_tokens(asked)] == pytest.approx(expected, abs=NEAR)


def gauntlet(shared: Path, name: str) -> list[dict[str, Any]]:
    path = shared / "data" / "eval_gauntlet" / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with path.open() as file:
        return [json.loads(line) for line in file]


def mmlu(shared: Path) -> list[dict[str, Any]]:
    path = shared / "data" / "mmlu" / "test" / "clinical_knowledge_test.csv"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with path.open(newline="") as file:
        return [
            {"query": row["question"], "choices": [row[f"choice{n}"] for n in range(4)], "gold": int(row["answer"])}
            for row in csv.DictReader(file)
        ]


def public(shared: Path, tokenizer: Any) -> dict[str, list[dict[str, Any]]]:
    """Fifty items a shape; COPA's stand for HellaSwag's, LAMBADA's contexts for rolling texts."""

    def tells(context: str, word: str) -> bool:
        """By length lm-eval takes the word's tokens from the whole; its `hf` backend fails where none is left."""
        return len(tokenizer.encode(f"{context} {word}")) > len(tokenizer.encode(context))

    pairs = [(row["context"], row["continuation"]) for row in gauntlet(shared, "lambada_openai")]
    lambada = [{"context": context, "word": word} for context, word in pairs[:80] if tells(context, word)]
    shapes = {
        "mmlu": mmlu(shared),
        "arc": gauntlet(shared, "arc_easy"),
        "piqa": gauntlet(shared, "piqa"),
        "boolq": gauntlet(shared, "boolq"),
        "hellaswag": gauntlet(shared, "copa"),
        "lambada": lambada,
        "wikitext": [{"text": row["context"]} for row in lambada],
        "gsm8k": [{"query": row["query"], "word": "x"} for row in gauntlet(shared, "arc_easy")],
    }
    return {shape: rows[:50] for shape, rows in shapes.items()}


@pytest.mark.slow
@pytest.mark.parametrize("base", ["nano", "TinyStories-656K"])
def test_fifty_public_items_a_shape_equal_the_hf_backend(tmp_path: Path, shared: Path, base: str) -> None:
    model = EMBEDDED.get(base, shared / "models" / base)
    if not model.is_dir():
        pytest.skip(f"{model} is not there")
    items = public(shared, AutoTokenizer.from_pretrained(model))
    tasks = [local_tasks.write(tmp_path, shape, rows) for shape, rows in items.items()]
    assert assert_same(model, tasks) == {f"local_{shape}": 50 for shape in local_tasks.SHAPES}
