"""lm-eval tasks of our own, in the shapes of well-known benchmarks; their data lies beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Rows = Sequence[dict[str, Any]]

_MEAN = {"aggregation": "mean", "higher_is_better": True}
_PERPLEXITY = {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False}
_CHOICE = {"output_type": "multiple_choice", "doc_to_target": "{{gold}}"}
_ROLLING = [
    {"metric": "word_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False},
    {"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False},
]


def _metrics(*names: str) -> list[dict[str, Any]]:
    return [{"metric": name, **_MEAN} for name in names]


SHAPES: dict[str, dict[str, Any]] = {
    "mmlu": {
        **_CHOICE,
        "num_fewshot": 2,
        "fewshot_split": "dev",
        "fewshot_config": {"sampler": "first_n"},
        "description": "The following are multiple choice questions (with answers).\n\n",
        "doc_to_text": "{{query}}\n{% for each in choices %}{{'ABCD'[loop.index0]}}. {{each}}\n{% endfor %}Answer:",
        "doc_to_choice": ["A", "B", "C", "D"],
        "metric_list": _metrics("acc"),
    },
    "arc": {
        **_CHOICE,
        "doc_to_text": "Question: {{query}}\nAnswer:",
        "doc_to_choice": "{{choices}}",
        "metric_list": _metrics("acc", "acc_norm"),
    },
    "piqa": {
        **_CHOICE,
        "doc_to_text": "{{query}}\nAnswer:",
        "doc_to_choice": "{{choices}}",
        "metric_list": _metrics("acc", "acc_norm"),
    },
    "boolq": {
        **_CHOICE,
        "doc_to_text": "{{query}}?\nAnswer:",
        "doc_to_choice": ["no", "yes"],
        "metric_list": _metrics("acc"),
    },
    "hellaswag": {
        **_CHOICE,
        "doc_to_text": "{{query}}",
        "doc_to_choice": "{{choices}}",
        "metric_list": _metrics("acc", "acc_norm"),
    },
    "lambada": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{context}}",
        "doc_to_target": " {{word}}",
        "metric_list": [_PERPLEXITY, *_metrics("acc")],
    },
    "wikitext": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": _ROLLING,
    },
    "gsm8k": {
        "output_type": "generate_until",
        "doc_to_text": "Question: {{query}}\nAnswer:",
        "doc_to_target": "{{word}}",
        "generation_kwargs": {"until": ["\n", "Question:"], "max_gen_toks": 24, "do_sample": False},
        "metric_list": _metrics("exact_match"),
    },
}


def write(folder: Path, shape: str, rows: Rows, **changes: Any) -> Path:
    """A task file `<shape>.yaml` with its items, the first two also as examples; JSON is YAML."""
    data = {"test": folder / f"{shape}.jsonl", "dev": folder / f"{shape}_dev.jsonl"}
    for path, some in zip(data.values(), (rows, rows[:2]), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in some))
    where = {"data_files": {split: str(path) for split, path in data.items()}, "cache_dir": str(folder / "cache")}
    config = {
        "task": f"local_{shape}",
        "dataset_path": "json",
        "dataset_kwargs": where,
        "test_split": "test",
        **SHAPES[shape],
        **changes,
    }
    (folder / f"{shape}.yaml").write_text(json.dumps(config))
    return folder / f"{shape}.yaml"


def invented(shape: str, count: int = 12) -> list[dict[str, Any]]:
    """Items that mean nothing: a multiple-choice item has as many choices as its shape."""
    things = ["fox", "dog", "card", "lazy jump", "brown quick", "good", "bad", "fine 7"]
    rows = []
    for number in range(count):
        one, two, three, four = (things[(number * step + step) % 8] for step in (1, 3, 5, 7))
        row = {
            "query": f"what does the {one} say to {number}",
            "gold": number % 2,
            "text": f"{one} {two}\n{three} " * 9,
        }
        choices = [f"the {two}", f"a {three}", f"{four} over it", "nothing now"]
        row |= {"choices": choices if shape != "piqa" else choices[:2]}
        row |= {"context": f"The {one} jumps over the" if number else "", "word": two}
        rows.append(row)
    return rows
