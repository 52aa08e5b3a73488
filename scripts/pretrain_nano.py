"""A small base from a folder of text, through metier's own loop: tokenizer, random weights, training, card.

    python scripts/pretrain_nano.py texts/ nano/ --licence "public domain" --epochs 1

`texts/` holds .txt and .md files. `nano/` becomes a base like any other, with a README.md that says what went in,
what it cost and what it reached on held-out passages. Killed, the same command goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, Phi3Config, PreTrainedTokenizerFast

from metier import Recipe, Run, train
from metier.data.sources import read_rows
from metier.domain import Domain
from metier.errors import MetierError
from metier.events import Event
from metier.files import MANIFEST, write_atomic, write_directory
from metier.stages import find_base

CONTROLS = ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"]
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def main() -> None:
    options = _options()
    work = options.to.with_name(f"{options.to.name}.work")
    if options.to.exists():
        raise MetierError(f"{options.to}: exists already", "remove it, or name another folder")
    work.mkdir(parents=True, exist_ok=True)
    begin = work / f"init-{options.vocabulary}-{options.layers}-{options.hidden}"
    if not begin.is_dir():
        tokenizer = train_tokenizer(options.texts, options.vocabulary)
        write_directory(begin, lambda to: write_random(tokenizer, options, to))
    run = train(recipe(options, work, begin.name), offline=True, on_event=tell)
    source = find_base(str(run.directory.resolve()), work, offline=True)
    write_directory(options.to, lambda to: publish(source.directory, card(options, run), to))
    print(f"{options.to}: loss on held-out passages {scores(run)['after']:.3f} nats a token")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", type=Path, help="folder of .txt and .md files")
    parser.add_argument("to", type=Path, help="where the base goes")
    parser.add_argument("--licence", required=True, help="of the texts, for the card")
    parser.add_argument("--vocabulary", type=int, default=8192, help="pieces of the tokenizer")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=256, help="width; four heads, MLP of 11/4 of it")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=16, help="passages a step")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--max-length", type=int, default=512)
    return parser.parse_args()


def train_tokenizer(texts: Path, vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE: any text has its pieces, and none begins by itself."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=CONTROLS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(_passages(texts), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|endoftext|>", pad_token="<|pad|>")
    fast.chat_template = TEMPLATE
    return fast


def _passages(texts: Path) -> Iterator[str]:
    for row in read_rows(Domain(name="texts", data=str(texts), text="text"), texts):
        yield str(row.values["text"])


def write_random(tokenizer: PreTrainedTokenizerFast, options: argparse.Namespace, to: Path) -> None:
    """Random weights in float32, which full tuning needs, with the tokenizer."""
    config = Phi3Config(
        vocab_size=len(tokenizer),
        hidden_size=options.hidden,
        intermediate_size=options.hidden * 11 // 4,
        num_hidden_layers=options.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=max(2048, options.max_length),
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(to)
    tokenizer.save_pretrained(to)


def recipe(options: argparse.Namespace, work: Path, begin: str) -> Recipe:
    """Every weight moves, on plain text; a twentieth of the passages is held out."""
    raw: dict[str, Any] = {
        "model": begin,
        "domain": [{"name": "texts", "data": str(options.texts.resolve()), "heldout": 0.05, "validation": 0.05}],
        "strategy": {"method": "full", "objective": "lm"},
        "train": {
            "num_train_epochs": options.epochs,
            "batch_size": options.batch,
            "learning_rate": options.learning_rate,
            "lr_scheduler_type": "cosine",
            "weight_decay": 0.1,
            "max_length": options.max_length,
        },
        "eval": {"limit": 400},
    }
    return Recipe.of(raw, work / "recipe.toml")


def tell(event: Event) -> None:
    values = " ".join(f"{name} {value:.3g}" for name, value in event.values.items() if isinstance(value, float))
    print(f"{event.phase} {event.done}/{event.total} {values or event.values.get('text', '')}", flush=True)


def scores(run: Run) -> dict[str, float]:
    """Held-out loss of the random weights and of the trained ones, nats a token."""
    (mine,) = (each for each in run.scores()["domains"] if each["domain"] == "texts")
    (theirs,) = run.scores()["against"]["none"]["domains"]
    after = next(score["value"] for score in mine["scores"] if score["metric"] == "loss")
    return {"after": after, "before": after - theirs["differences"][0]["value"]}


def card(options: argparse.Namespace, run: Run) -> str:
    """What went in, how it was made, what it reached."""
    counts, reached, plan = run.facts["data"]["texts"], scores(run), run.plan()
    files = sorted(path.name for path in options.texts.rglob("*") if path.suffix.lower() in (".txt", ".md"))
    named = ", ".join(files[:8]) + (" …" if len(files) > 8 else "")
    seconds = sum(run.facts["measured"]["seconds"].values())
    size = f"{options.layers} layers of width {options.hidden}, {options.vocabulary} pieces of byte-level BPE"
    return f"""# {options.to.name}

A base language model made by `scripts/pretrain_nano.py` on {date.today().isoformat()}, from random weights.

- Architecture: `Phi3ForCausalLM`, {size}, tied embeddings, trained at {options.max_length} tokens.
- Texts: {len(files)} files ({named}), licence: {options.licence};
  {counts["train"]} passages of {counts["target_tokens"]:,} tokens trained on, {counts["heldout"]} held out
  (the tokenizer was made from all of them).
- Training: {run.facts["steps"]} steps of {options.batch} passages, AdamW, {plan["compute"]}, learning rate
  {options.learning_rate:g} falling as a cosine, {seconds:.0f} seconds on {plan["threads"]} threads.
- Loss on held-out passages, nats a token: {reached["before"]:.3f} with random weights, {reached["after"]:.3f} trained.
"""


def publish(base: Path, text: str, to: Path) -> None:
    for path in base.iterdir():
        if path.is_file() and path.name != MANIFEST:
            shutil.copyfile(path, to / path.name)
    write_atomic(to / "README.md", text)


if __name__ == "__main__":
    try:
        main()
    except MetierError as error:
        sys.exit(f"{error}; {error.hint}")
